"""Two layers: a mask that allows too much, and an incremental validator that refuses the rest token by token.

The mask keeps the search small, the validator makes it right: a token may follow if both let it. The mask alone does
not say so, which makes the constraint *loose*: every token is checked, and where no token passes, the text came to a
dead end, which is left by taking tokens back.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from treille.constraints.closing import Step, dive, shortest_closing, spell_steps
from treille.constraints.guidance import GuidanceConstraint, Guide, MatcherProbe, State
from treille.constraints.json import Program, Violation
from treille.constraints.json import State as Document
from treille.constraints.json.likely import likely_next
from treille.constraints.vocabulary import Vocabulary

_SOLID = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^\s"]+', re.DOTALL)
"""What of a document is not white space between its parts."""
_LONGEST = 128
"""Bytes of a completion that is searched for widely."""
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
"""What stands for itself in a string."""


class Layers(NamedTuple):
    """A state: that of the mask, and that of the document.

    Attributes:
        mask: what llguidance knows of the text.
        document: what the validator knows of it.
        before: bytes that still have to come before the document begins.
        ended: whether an end-of-sequence token has followed.
    """

    mask: State
    document: Document
    before: int = 0
    ended: bool = False


class LayeredConstraint:
    """The documents that a mask and a validator both allow.

    Args:
        mask: A constraint that allows at least the documents.
        program: What the validator runs.
        before: Number of bytes of the text that stand before the document.
        unenforced: What neither of the two enforces, because the user allowed that.
    """

    loose = True

    def __init__(
        self, mask: GuidanceConstraint, program: Program, before: int = 0, unenforced: tuple[str, ...] = ()
    ) -> None:
        self.mask = mask
        self.vocabulary = mask.vocabulary
        self.program = program
        self.before = before
        self.unenforced = unenforced

    def start(self) -> Layers:
        """The state of the empty text."""
        return Layers(self.mask.start(), self.program.start(), self.before)

    def advance(self, state: Layers, token: int) -> Layers | None:
        """The state after ``token``, or None where one of the layers does not allow it.

        Raises:
            DecodingError: llguidance reached one of its limits.
        """
        if state.ended:
            return None
        if token in self.vocabulary.eos:
            mask = self.mask.advance(state.mask, token) if self.is_final(state) else None
            return None if mask is None else state._replace(mask=mask, ended=True)
        # The validator first: it is what refuses most of what the mask allows, and it forks nothing.
        document = self._feed(state, token)
        if isinstance(document, Violation):
            return None
        mask = self.mask.advance(state.mask, token)
        if mask is None:
            return None
        return Layers(mask, document, max(0, state.before - len(self._piece(token))))

    def masks(self, states: Sequence[Layers], out: NDArray[np.int32]) -> None:
        """One mask per state in `out`, int32 ``[N, ceil(W / 32)]``: of what may follow, and of more.

        Raises:
            DecodingError: llguidance reached one of its limits.
        """
        self.mask.masks([state.mask for state in states], out)
        for row, state in enumerate(states):
            if not self.is_final(state):
                out[row] &= ~self.vocabulary.eos_mask

    def accepted(self, state: Layers, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, are allowed."""
        if state.ended:
            return 0
        # The validator first, as in `advance`, where a token is all there is.
        if len(tokens) == 1 and tokens[0] not in self.vocabulary.eos:
            return 0 if self._refuses(state, tokens[0]) else self.mask.accepted(state.mask, tokens)
        fed = 0
        allowed = self.mask.accepted(state.mask, tokens)
        for token in takewhile(lambda token: token not in self.vocabulary.eos, tokens[:allowed]):
            document = self._feed(state, token)
            if isinstance(document, Violation):
                return fed
            state = Layers(state.mask, document, max(0, state.before - len(self._piece(token))))
            fed += 1
        return fed + (fed < allowed and not state.before and state.document.complete)

    def vague(self, state: Layers) -> int:  # noqa: ARG002 - the protocol's signature
        """Of all."""
        return self.vocabulary.width

    def sure(self, state: Layers) -> NDArray[np.bool_] | None:
        """Inside a string of which the validator only counts the characters: what stands for itself and fits."""
        room = 0 if state.ended or state.before else state.document.room
        if not room:
            return None
        sizes = _characters(self.vocabulary)
        return (sizes > 0) & (sizes <= room)

    def essence(self, text: bytes) -> bytes:
        """The text without the white space between its parts; a number that has ended keeps a mark of that."""
        solid = b"".join(_SOLID.findall(text, self.before))
        ended = solid[-1:].isdigit() and text[-1:].isspace()
        return text[: self.before] + solid + b" " * ended

    def forced(self, state: Layers) -> tuple[int, ...]:
        """The tokens that the mask forces, up to one that the validator refuses: there, nothing may follow."""
        tokens = () if state.ended else self.mask.forced(state.mask)
        return tokens[: self.accepted(state, tokens)]

    def expected(self, state: Layers) -> tuple[int, ...]:
        """What the mask expects."""
        return () if state.ended else self.mask.expected(state.mask)

    def is_final(self, state: Layers) -> bool:
        """Whether the text may end here."""
        return state.ended or (not state.before and state.document.complete and self.mask.is_final(state.mask))

    def closing(self, state: Layers, enough: int = 0) -> tuple[int, ...] | None:  # noqa: ARG002 - the protocol's signature
        """Few tokens that complete the text in both layers; None where the search found none."""
        if self.is_final(state):
            return ()
        probe = _Probe(self.mask.probe(state.mask), state.document, state.before)
        steps = dive(probe) or shortest_closing(probe, longest=_LONGEST)
        tokens = None if steps is None else spell_steps(self.mask, state.mask, steps)
        return tokens if tokens is not None and self.accepted(state, tokens) == len(tokens) else None

    def text(self, state: Layers) -> bytes:
        """The text of a state."""
        return self.mask.text(state.mask)

    def refusal(self, state: Layers) -> str:
        """What the validator says of the first token of the mask, and which keywords are still open."""
        words = np.zeros((1, self.vocabulary.words), np.int32)
        self.masks([state], words)
        for token in map(int, self.vocabulary.tokens_of(words[0])):
            if token not in self.vocabulary.eos and isinstance(found := self._feed(state, token), Violation):
                return str(found)
        return ", ".join(state.document.open)

    def _piece(self, token: int) -> bytes:
        tokens = self.vocabulary.tokens
        return tokens[token] if 0 <= token < len(tokens) else b""

    def _refuses(self, state: Layers, token: int) -> bool:
        """Whether the validator refuses a token."""
        if not state.before and token < self.vocabulary.width and _characters(self.vocabulary)[token]:
            taken = state.document.takes(self._piece(token).decode())
            if taken is not None:
                return not taken
        return isinstance(self._feed(state, token), Violation)

    def _feed(self, state: Layers, token: int) -> Document | Violation:
        """The document after a token."""
        return state.document.feed(self._piece(token)[state.before :])


@lru_cache(8)
def _characters(vocabulary: Vocabulary) -> NDArray[np.int32]:
    """How many characters each token adds to a string, int32 ``[W]``; 0 for what is not whole characters."""
    sizes = np.zeros(vocabulary.width, np.int32)
    for token, piece in enumerate(vocabulary.tokens):
        text = piece.decode("utf-8", "replace")
        if _PLAIN.fullmatch(text) and text.encode() == piece:
            sizes[token] = len(text)
    return sizes


class _Probe:
    """A text in both layers, for the search of a completion."""

    def __init__(self, mask: MatcherProbe, document: Document, before: int) -> None:
        self._mask = mask
        self._document = document
        self._before = before

    def final(self) -> bool:
        """Whether the text may end here."""
        return not self._before and self._document.complete and self._mask.final()

    def forced(self) -> bytes:
        """Bytes that the mask forces."""
        return self._mask.forced()

    def possible(self) -> bytes:
        """Bytes that the mask allows; the validator is asked when one of them is taken."""
        return self._mask.possible()

    def likely(self) -> tuple[bytes, ...]:
        """What the validator knows to lead on."""
        return () if self._before else likely_next(self._document)

    def then(self, step: Step) -> "_Probe | None":
        """The text with `step` appended, None where one of the layers refuses it."""
        if isinstance(step, int):
            return None
        document = self._document.feed(step[self._before :])
        mask = None if isinstance(document, Violation) else self._mask.then(step)
        if mask is None or isinstance(document, Violation):
            return None
        return _Probe(mask, document, max(0, self._before - len(step)))


def guide_of(program: Callable[[], Program | None], before: int) -> Guide:
    """A guide to completions of documents: the validator knows what is missing, where the mask must be searched.

    Args:
        program: The validator; asked for when the first completion is.
        before: Number of bytes of a text that stand before its document.
    """

    def guide(text: bytes, mask: MatcherProbe) -> tuple[Step, ...] | None:
        validator = program()
        document = None if validator is None else validator.start().feed(text[before:])
        if document is None or isinstance(document, Violation):
            return None
        return dive(_Probe(mask, document, max(0, before - len(text))))

    return guide


def dead_from_the_start(constraint: LayeredConstraint) -> str:
    """Why no token at all may begin a text; empty if one may."""
    state: Any = constraint.start()
    words = np.zeros((1, constraint.vocabulary.words), np.int32)
    constraint.masks([state], words)
    tokens = map(int, constraint.vocabulary.tokens_of(words[0]))
    if any(constraint.accepted(state, (token,)) for token in tokens):
        return ""
    return constraint.refusal(state) or "no token of the vocabulary may begin a text"
