"""Closing in time: a constrained text ends inside its language before the token limit.

Far from the limit every allowed token may follow. Near it a state has a *plan*, tokens that complete its text within
what is left, and a token may follow only where what it leaves of the plan, or another completion that a search finds,
still completes the text in time. The plan's own next token always may, so once there is a plan the text can be
completed at every later step. Masks near the limit do not say which tokens these are, as long as the plan leaves a
choice: only likely tokens are looked at (`vague`).

Card "token masks", step 12, with the shortest completion replaced by a short one, because no recognizer here gives the
shortest. What is promised: near the limit, where a completion is known, no token follows after which the text could not
be completed. What is not: near the limit a token is left out where the search finds too long a completion only; far
from it plans are looked for only now and then (when half of the room is used up), so a text whose completions grow by
more than one token per token can miss its limit, which is an empty mask, thus an error; and where the search finds no
completion at all, nothing is held back, and the text may be cut, which its finish reason tells.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Generic
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from treille.constraints.base import Constraint, S, count_accepted
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError

_LIKELY = 8
"""Tokens near the limit whose share of the mass is found out; the others count as allowed until they are looked at."""
_REPLACED = 24
"""Bytes at the beginning of a plan that a token may stand for."""
_LEAST_ROOM, _MOST_ROOM = 8, 64
"""Bounds of the room, in tokens, that a plan must leave for the limit to be far; between them: the first plan."""


_PLANS: WeakKeyDictionary[Any, tuple[int, ...] | None] = WeakKeyDictionary()
"""Completions of the empty text by constraint: the search may take longer than a short answer."""


def _first_plan(constraint: Constraint[S], root: S) -> tuple[int, ...] | None:
    """A completion of the empty text, searched for once per constraint."""
    if constraint not in _PLANS:
        _PLANS[constraint] = constraint.closing(root)
    return _PLANS[constraint]


class _Spelled:
    """A plan as text, and the tokens of its ends."""

    def __init__(self, vocabulary: Vocabulary, plan: tuple[int, ...]) -> None:
        self._vocabulary = vocabulary
        self._text = vocabulary.decode(plan)
        self._ends = {0: plan}

    def after(self, piece: bytes) -> Iterator[tuple[int, ...]]:
        """What may be left of the plan after a piece of text: all but what both begin with, or one of its other ends.

        A piece may stand for another beginning of the plan than its own: `true` for `false`, or with a space before.
        """
        shared = 0
        while shared < min(len(piece), len(self._text)) and piece[shared] == self._text[shared]:
            shared += 1
        yield self._end(shared)
        for begin in range(min(_REPLACED, len(self._text)) + 1):
            if begin != shared:
                yield self._end(begin)

    def _end(self, begin: int) -> tuple[int, ...]:
        if begin not in self._ends:
            self._ends[begin] = self._vocabulary.spell(self._text[begin:])
        return self._ends[begin]


class Budgeted(Generic[S]):
    """A state with the number of tokens that may still follow; immutable, but for what it remembers.

    Attributes:
        inner: the state of the constraint.
        left: tokens that may still follow; an end-of-sequence token needs no room.
        check_at: as long as more tokens are left, the limit is far.
        plan: tokens that complete the text, if they have been looked for.
        known: tokens that completed the text here or further up; what is left of them often completes it still.
        plans: near the limit, a plan for after each token that was looked at; None where the token may not follow.
        spelled: the plan's text, once it was asked for.
        along: where the plan leaves no choice, the tokens that may follow, each with a plan for after it.
    """

    __slots__ = ("along", "check_at", "inner", "known", "left", "plan", "plans", "spelled")

    def __init__(
        self, inner: S, left: int, check_at: int, plan: tuple[int, ...] | None, known: tuple[int, ...] = ()
    ) -> None:
        self.inner = inner
        self.left = left
        self.check_at = check_at
        self.plan = plan
        self.known = known if plan is None else plan
        self.plans: dict[int, tuple[int, ...] | None] = {}
        self.spelled: _Spelled | None = None
        self.along: dict[int, tuple[int, ...]] | None = None


class BudgetConstraint(Generic[S]):
    """A constraint whose texts are complete within a number of tokens.

    Args:
        inner: The constraint.
        max_new_tokens: The limit, in tokens, without the end-of-sequence token.

    Raises:
        ParameterError: The shortest text that was found is longer than the limit.
    """

    def __init__(self, inner: Constraint[S], max_new_tokens: int) -> None:
        self.inner = inner
        self.limit = max_new_tokens
        self._root = inner.start()
        plan = _first_plan(inner, self._root)
        if plan is not None and len(plan) > max_new_tokens:
            raise ParameterError(
                f"max_new_tokens={max_new_tokens}: too few for this constraint (the shortest text found has "
                f"{len(plan)}); allow more"
            )
        self._plan = plan
        self.room = min(max(len(plan or ()), _LEAST_ROOM), _MOST_ROOM)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the inner constraint."""
        return self.inner.vocabulary

    @property
    def loose(self) -> bool:
        """Whether the inner constraint is."""
        return self.inner.loose

    @property
    def unenforced(self) -> tuple[str, ...]:
        """What the inner constraint does not enforce."""
        return self.inner.unenforced

    def start(self) -> Budgeted[S]:
        """The empty text, with the whole budget."""
        return Budgeted(self._root, self.limit, self.limit, self._plan)

    def advance(self, state: Budgeted[S], token: int) -> Budgeted[S] | None:
        """The state after ``token``, or None where it is not allowed.

        Raises:
            DecodingError: A limit of the recognizer was reached.
        """
        if token in self.vocabulary.eos or self._is_far(state):
            after = self.inner.advance(state.inner, token)
            left = state.left - (token not in self.vocabulary.eos)
            return None if after is None else Budgeted(after, left, state.check_at, None, state.known)
        plan = self._plan_after(state, token)
        if plan is None:
            return None
        after = self.inner.advance(state.inner, token)
        assert after is not None, "a token of the plan is refused"
        return Budgeted(after, state.left - 1, state.left - 1, plan)

    def masks(self, states: Sequence[Budgeted[S]], out: NDArray[np.int32]) -> None:
        """One mask per state in `out`, int32 ``[N, ceil(W / 32)]``, C-contiguous.

        Raises:
            DecodingError: A limit of the recognizer was reached.
        """
        self.inner.masks([state.inner for state in states], out)
        for row, state in enumerate(states):
            if self._is_tight(state):
                ends = out[row] & self.vocabulary.eos_mask
                out[row] = self.vocabulary.mask_of(self._along(state) if self._fits(state) else ()) | ends

    def vague(self, state: Budgeted[S]) -> int:
        """Near the limit, while the plan leaves a choice, the mask allows tokens that `advance` may refuse."""
        if self._is_far(state):
            return self.inner.vague(state.inner)
        return 0 if self._is_tight(state) else _LIKELY

    def accepted(self, state: Budgeted[S], tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, are allowed."""
        if len(tokens) == 1:  # the same, without a state for after it
            if tokens[0] in self.vocabulary.eos or self._is_far(state):
                return self.inner.accepted(state.inner, tokens)
            return int(self._plan_after(state, tokens[0]) is not None)
        return count_accepted(self, state, tokens)

    def sure(self, state: Budgeted[S]) -> NDArray[np.bool_] | None:
        """Those of the inner constraint; none near the limit."""
        return self.inner.sure(state.inner) if self._is_far(state) else None

    def essence(self, text: bytes) -> bytes:
        """What the inner constraint says."""
        return self.inner.essence(text)

    def forced(self, state: Budgeted[S]) -> tuple[int, ...]:
        """The tokens that the inner constraint forces: every completion holds them, so they fit."""
        return self.inner.forced(state.inner)[: state.left]

    def expected(self, state: Budgeted[S]) -> tuple[int, ...]:
        """The spelling that the inner constraint expects, where the limit is far."""
        return self.inner.expected(state.inner) if self._is_far(state) else ()

    def is_final(self, state: Budgeted[S]) -> bool:
        """Whether the text may end here."""
        return self.inner.is_final(state.inner)

    def closing(self, state: Budgeted[S], enough: int = 0) -> tuple[int, ...] | None:
        """The plan, searched for if necessary: any that fits will do."""
        if state.plan is None:
            state.plan = self.inner.closing(state.inner, max(state.left, enough))
            state.known = state.plan or ()
        return state.plan

    def text(self, state: Budgeted[S]) -> bytes:
        """The text of a state."""
        return self.inner.text(state.inner)

    def refusal(self, state: Budgeted[S]) -> str:
        """What the inner constraint says, or that the limit is near."""
        if self._is_far(state) or self._fits(state):
            return self.inner.refusal(state.inner)
        return f"no completion within the {state.left} tokens that are left of max_new_tokens={self.limit} was found"

    def _is_far(self, state: Budgeted[S]) -> bool:
        """Whether any token may follow without a look at what completes the text after it."""
        if state.left > state.check_at:
            return True
        plan = state.plan if state.plan is not None else self._rest(state)
        if plan is None or state.left <= len(plan) + self.room:  # a search may find a shorter one
            plan = self.closing(state)
        if plan is None and not self.inner.is_final(state.inner):
            state.check_at = state.left // 2
            return True
        spare = state.left - len(plan or ()) - self.room
        if spare > 0:
            state.check_at = state.left - (spare + 1) // 2
        return spare > 0

    def _rest(self, state: Budgeted[S]) -> tuple[int, ...] | None:
        """The shortest end of the known tokens that completes the text: a search takes a hundred times as long."""
        end = (min(self.vocabulary.eos),)
        for begin in range(len(state.known), -1, -1):
            rest = state.known[begin:]
            if self.inner.accepted(state.inner, rest + end) == len(rest) + 1:
                state.known = rest
                return rest
        return None

    def _is_tight(self, state: Budgeted[S]) -> bool:
        """Whether nothing can follow but the plan, in this or another spelling."""
        if self._is_far(state):
            return False
        plan = self.closing(state)
        return plan is None or state.left <= len(plan)

    def _along(self, state: Budgeted[S]) -> dict[int, tuple[int, ...]]:
        """The tokens that begin the plan's text and may follow, each with what is left of the plan."""
        if state.along is None:
            plan, found = state.plan or (), {}
            text = self.vocabulary.decode(plan)
            begins = {
                token: end for end in range(1, len(text) + 1) for token in self.vocabulary.ids.get(text[:end], ())
            }
            for token, end in begins.items():
                rest = plan[1:] if token == plan[0] else self.vocabulary.spell(text[end:])
                if len(rest) < state.left and self._completes(state, (token, *rest)):
                    found[token] = rest
            if plan and plan[0] not in begins and len(plan) <= state.left:  # a token without text
                found[plan[0]] = plan[1:]
            state.along = found
        return state.along

    def _fits(self, state: Budgeted[S]) -> bool:
        """Whether a completion within what is left is known."""
        plan = self.closing(state)
        return plan is not None and len(plan) <= state.left and state.left > 0

    def _plan_after(self, state: Budgeted[S], token: int) -> tuple[int, ...] | None:
        """A completion after ``token`` that fits; None where none is known."""
        if not self._fits(state):
            return None
        if self._is_tight(state):
            return self._along(state).get(token)
        if token not in state.plans:
            state.plans[token] = self._search(state, token)
        return state.plans[token]

    def _search(self, state: Budgeted[S], token: int) -> tuple[int, ...] | None:
        """The completion after ``token`` while the plan leaves a choice."""
        plan = state.plan
        assert plan is not None, "it fits"
        if plan[:1] == (token,):
            return plan[1:]
        if state.spelled is None:
            state.spelled = _Spelled(self.vocabulary, plan)
        ends = state.spelled.after(self.vocabulary.decode([token]))
        for rest in islice(ends, 1) if self.inner.loose else ends:  # a second layer finds another end faster itself
            if len(rest) < state.left and self._completes(state, (token, *rest)):
                return rest
        after = self.inner.advance(state.inner, token)
        found = None if after is None else self.inner.closing(after, state.left - 1)
        return found if found is not None and len(found) < state.left else None

    def _completes(self, state: Budgeted[S], tokens: tuple[int, ...]) -> bool:
        """Whether the text may end after `tokens`."""
        return self.inner.accepted(state.inner, (*tokens, min(self.vocabulary.eos))) == len(tokens) + 1
