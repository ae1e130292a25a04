"""Token healing: a completion prompt that ends inside a token is cut back, and its end becomes a required beginning.

A prompt such as ``"http:"`` ends with tokens that the model has rarely seen there, because ``"://"`` is one token. The
tokens that a longer token could replace are removed, and the output must begin with their text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from treille.constraints.base import Exact, Tokenization, count_accepted
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError


class Healed(NamedTuple):
    """A prompt that was cut back.

    Attributes:
        kept: the tokens of the prompt that stay.
        prefix: the text of the others; the output must begin with it.
    """

    kept: tuple[int, ...]
    prefix: str


def heal(prompt: Sequence[int], vocabulary: Vocabulary) -> Healed:
    """The prompt without the tokens that a longer token could replace, and their text.

    The longest end of the prompt that some token properly begins with is found, and the tokens that it touches are
    removed, with those before them that hold a part of the same character. Special tokens and the first token stay.

    Args:
        prompt: Token ids.
        vocabulary: Of the tokens.
    """
    first, tail = len(prompt), b""
    while first > 1 and len(tail) < vocabulary.longest and (piece := vocabulary.decode([prompt[first - 1]])):
        first, tail = first - 1, piece + tail
    sizes = range(min(len(tail), vocabulary.longest - 1), 0, -1)
    size = next((size for size in sizes if _properly_begins(tail[-size:], vocabulary)), 0)
    cut, removed = len(prompt), b""
    while cut > first and (len(removed) < size or not _is_text(removed)):
        cut -= 1
        removed = vocabulary.decode([prompt[cut]]) + removed
    if not _is_text(removed):  # the prompt itself begins inside a character
        return Healed(tuple(prompt), "")
    return Healed(tuple(prompt[:cut]), removed.decode())


def _properly_begins(text: bytes, vocabulary: Vocabulary) -> bool:
    """Whether some token begins with `text` and is longer."""
    return any(len(token) > len(text) for token in vocabulary.starting_with(text)[:2])


def _is_text(text: bytes) -> bool:
    """Whether `text` is whole characters."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Beginning:
    """Free text that begins with a prefix: what healing requires of an output that nothing else constrains.

    Attributes:
        prefix: how the text begins.
    """

    prefix: str

    def compile(self, vocabulary: Vocabulary, tokenization: Tokenization = "any") -> "BeginningConstraint":
        """The constraint for a vocabulary.

        Raises:
            ParameterError: The tokenization is not ``any``: healing exists to allow other spellings.
        """
        if tokenization != "any":
            raise ParameterError(f"tokenization={tokenization!r}: a healed prompt may be spelled in any way; use 'any'")
        return BeginningConstraint(vocabulary, self.prefix.encode())

    def prefixed(self, prefix: str) -> "Beginning":
        """The texts that begin with both prefixes."""
        return Beginning(prefix + self.prefix)

    def check(self, text: str) -> None:
        """Nothing: there are no other means to tell."""

    def parse(self, text: str) -> str:
        """The text after the prefix."""
        return text.removeprefix(self.prefix)


class Reached(NamedTuple):
    """A state: how many bytes of the prefix the text has; all of them: it is free."""

    size: int
    ended: bool = False


class BeginningConstraint(Exact):
    """Free text that begins with a prefix.

    Args:
        vocabulary: Its tokens.
        prefix: How the text begins.
    """

    def __init__(self, vocabulary: Vocabulary, prefix: bytes) -> None:
        self.vocabulary = vocabulary
        self.prefix = prefix
        # What is free is what would be without a constraint: special tokens may follow too.
        self._free = vocabulary.mask_of(range(len(vocabulary.tokens))) | vocabulary.eos_mask

    def start(self) -> Reached:
        """The empty text."""
        return Reached(0)

    def advance(self, state: Reached, token: int) -> Reached | None:
        """The state after ``token``, or None where it is not allowed."""
        if state.ended or not 0 <= token < self.vocabulary.width:
            return None
        rest = self.prefix[state.size :]
        if token in self.vocabulary.eos:
            return None if rest else Reached(state.size, ended=True)
        if token >= len(self.vocabulary.tokens):
            return None
        piece = self.vocabulary.tokens[token]
        if piece.startswith(rest):
            return Reached(len(self.prefix))
        return Reached(state.size + len(piece)) if piece and rest.startswith(piece) else None

    def masks(self, states: Sequence[Reached], out: NDArray[np.int32]) -> None:
        """One mask per state in `out`, int32 ``[N, ceil(W / 32)]``."""
        for row, state in enumerate(states):
            if state.ended:
                out[row] = 0
            else:
                out[row] = self.vocabulary.mask_of(self._beginning(state)) if not self.is_final(state) else self._free

    def accepted(self, state: Reached, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, are allowed."""
        return count_accepted(self, state, tokens)

    def forced(self, state: Reached) -> tuple[int, ...]:
        """The tokens that must follow."""
        tokens: list[int] = []
        while not self.is_final(state) and len(allowed := self._beginning(state)) == 1:
            tokens += allowed
            following = self.advance(state, allowed[0])
            assert following is not None
            state = following
        return tuple(tokens)

    def is_final(self, state: Reached) -> bool:
        """Whether the prefix is complete."""
        return state.ended or state.size == len(self.prefix)

    def closing(self, state: Reached, enough: int = 0) -> tuple[int, ...] | None:  # noqa: ARG002 - the protocol's signature
        """The tokenizer's spelling of what is missing of the prefix."""
        return self.vocabulary.spell(self.prefix[state.size :])

    def text(self, state: Reached) -> bytes:
        """The part of the prefix that the text has; what is free is not kept."""
        return self.prefix[: state.size]

    def _beginning(self, state: Reached) -> list[int]:
        """The tokens that may follow inside the prefix."""
        rest = self.prefix[state.size :]
        shorter = [rest[:size] for size in range(1, len(rest))]
        return [
            token
            for text in (*shorter, *self.vocabulary.starting_with(rest))
            for token in self.vocabulary.ids.get(text, ())
        ]
