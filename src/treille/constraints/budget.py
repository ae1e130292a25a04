"""Closing in time: a constrained text ends inside its language before the token limit.

Far from the limit every allowed token may follow. Near it a state has a *plan*, tokens that complete its text within
what is left, and a token may follow only where the plan, or what the token leaves of it, still completes the text in
time. The plan's own next token always may, so once there is a plan the text can be completed at every later step.

Card "token masks", step 12, with the shortest completion replaced by a short one, because no recognizer here gives the
shortest. What is promised: near the limit, where a completion is known, no token follows after which the text could not
be completed. What is not: near the limit tokens are left out that a longer search would let through; far from it plans
are looked for only now and then (when half of the room is used up), so a text whose completions grow by more than one
token per token can miss its limit, which is an empty mask, thus an error; and where the search finds no completion at
all, nothing is held back, and the text may be cut, which its finish reason tells.
"""

from collections.abc import Sequence
from typing import Any, Generic
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from treille.constraints.base import Constraint, S, count_accepted
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError

_CANDIDATES = 64
"""Tokens that are tried near the limit, besides those that spell the plan; lowest ids first."""
_LEAST_ROOM, _MOST_ROOM = 8, 64
"""Bounds of the room, in tokens, that a plan must leave for the limit to be far; between them: the first plan."""


_PLANS: WeakKeyDictionary[Any, tuple[int, ...] | None] = WeakKeyDictionary()
"""Completions of the empty text by constraint: the search may take longer than a short answer."""


def _first_plan(constraint: Constraint[S], root: S) -> tuple[int, ...] | None:
    """A completion of the empty text, searched for once per constraint."""
    if constraint not in _PLANS:
        _PLANS[constraint] = constraint.closing(root)
    return _PLANS[constraint]


class Budgeted(Generic[S]):
    """A state with the number of tokens that may still follow; immutable, but for what it remembers.

    Attributes:
        inner: the state of the constraint.
        left: tokens that may still follow; an end-of-sequence token needs no room.
        check_at: as long as more tokens are left, the limit is far.
        plan: tokens that complete the text, if they have been looked for.
        known: tokens that completed the text here or further up; what is left of them often completes it still.
        fitting: near the limit, the tokens that may follow, each with a plan for after it.
    """

    __slots__ = ("check_at", "fitting", "inner", "known", "left", "plan")

    def __init__(
        self, inner: S, left: int, check_at: int, plan: tuple[int, ...] | None, known: tuple[int, ...] = ()
    ) -> None:
        self.inner = inner
        self.left = left
        self.check_at = check_at
        self.plan = plan
        self.known = known if plan is None else plan
        self.fitting: dict[int, tuple[int, ...]] | None = None


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
        plan = self._fitting(state).get(token)
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
            if not self._is_far(state):
                ends = out[row] & self.vocabulary.eos_mask
                out[row] = self.vocabulary.mask_of(self._fitting(state)) | ends

    def accepted(self, state: Budgeted[S], tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, are allowed."""
        if len(tokens) == 1 and self._is_far(state):  # the same, without a state for after it
            return self.inner.accepted(state.inner, tokens)
        return count_accepted(self, state, tokens)

    def sure(self, state: Budgeted[S]) -> NDArray[np.bool_] | None:
        """Those of the inner constraint: near the limit the mask leaves the tokens that fit."""
        return self.inner.sure(state.inner)

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

    def closing(self, state: Budgeted[S]) -> tuple[int, ...] | None:
        """The plan, searched for if necessary."""
        if state.plan is None:
            state.plan = self.inner.closing(state.inner)
            state.known = state.plan or ()
        return state.plan

    def text(self, state: Budgeted[S]) -> bytes:
        """The text of a state."""
        return self.inner.text(state.inner)

    def refusal(self, state: Budgeted[S]) -> str:
        """What the inner constraint says, or that the limit is near."""
        if self._is_far(state) or self._fitting(state):
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

    def _fitting(self, state: Budgeted[S]) -> dict[int, tuple[int, ...]]:
        """The tokens after which a completion is known that fits, each with that completion."""
        if state.fitting is None:
            state.fitting = dict(self._search(state))
        return state.fitting

    def _search(self, state: Budgeted[S]) -> list[tuple[int, tuple[int, ...]]]:
        plan = self.closing(state)
        if plan is None or len(plan) > state.left or not state.left:
            return []
        text = self.vocabulary.decode(plan)
        mask = np.empty((1, self.vocabulary.words), np.int32)
        self.inner.masks([state.inner], mask)
        found = [(plan[0], plan[1:])] if plan else []
        tried = 0
        for token in map(int, self.vocabulary.tokens_of(mask[0])):
            if token in self.vocabulary.eos or token in plan[:1]:
                continue
            piece = self.vocabulary.decode([token])
            if piece and text.startswith(piece):
                rest = self.vocabulary.spell(text[len(piece) :])
            elif tried < _CANDIDATES:
                rest = plan
                tried += 1
            else:
                continue
            if len(rest) < state.left and self._completes(state, (token, *rest)):
                found.append((token, rest))
        return found

    def _completes(self, state: Budgeted[S], tokens: tuple[int, ...]) -> bool:
        """Whether the text may end after `tokens`."""
        return self.inner.accepted(state.inner, (*tokens, min(self.vocabulary.eos))) == len(tokens) + 1
