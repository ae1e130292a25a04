"""One of many texts, by a trie: a sorted list in which a prefix is a range, so that nothing is built beforehand.

The masks are exact and computed here, not by llguidance, whose compile time grows with the square of the list.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from treille.constraints.base import Exact, Tokenization, count_accepted
from treille.constraints.choices import distinct
from treille.constraints.lark import check_unicode
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError

_REMEMBERED = 4096
"""The continuations of so many states are kept per constraint."""
T = TypeVar("T", bytes, tuple[int, ...])


class Range(NamedTuple):
    """A state: the entries ``[begin, end)`` of the sorted list, all of which share their first `depth` symbols."""

    begin: int
    end: int
    depth: int
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Trie:
    """One of many texts; see `trie`."""

    texts: tuple[str, ...]

    def compile(self, vocabulary: Vocabulary, tokenization: Tokenization = "any") -> "TrieConstraint[Any]":
        """The constraint for a vocabulary.

        Raises:
            ParameterError: One of the texts cannot be spelled.
        """
        entries = [text.encode() for text in self.texts]
        if tokenization == "any":
            single = {text for text in vocabulary.ids if len(text) == 1}
            if any(bytes([byte]) not in single for byte in set(b"".join(entries))):
                for entry in entries:  # not obvious that they can be spelled: `spell` refuses those that cannot
                    vocabulary.spell(entry)
            return _Bytes(vocabulary, entries)
        if tokenization == "canonical":
            return _Tokens(vocabulary, map(vocabulary.spell, entries))
        raise ParameterError(f"tokenization={tokenization!r}: known are {', '.join(get_args(Tokenization))}")

    def prefixed(self, prefix: str) -> "Trie":
        """The texts with `prefix` before each."""
        return Trie(tuple(prefix + text for text in self.texts))

    def check(self, text: str) -> None:
        """Nothing: there are no other means to tell."""

    def parse(self, text: str) -> str:
        """The text itself."""
        return text


def trie(texts: Iterable[str]) -> Trie:
    """Exactly one of `texts`, of which there may be hundreds of thousands.

    With ``tokenization="canonical"`` each text has one spelling, the tokenizer's; with ``"any"`` all spellings are
    allowed.

    Args:
        texts: At least one; repetitions count once.

    Raises:
        ParameterError: There is none, or one is not text.
    """
    kept = distinct(texts, "trie")
    for text in kept:
        check_unicode(text, "trie")
    return Trie(kept)


class TrieConstraint(Exact, ABC, Generic[T]):
    """A finite language as a sorted list of entries: bytes, or tokens.

    Args:
        vocabulary: Its tokens.
        entries: The texts.
    """

    def __init__(self, vocabulary: Vocabulary, entries: Iterable[T]) -> None:
        self.vocabulary = vocabulary
        self.entries: list[T] = sorted(entries)
        self._sizes = np.array([len(entry) for entry in self.entries])
        self._after = lru_cache(_REMEMBERED)(lambda state: dict(self._continue(state)))

    def start(self) -> Range:
        """The whole list."""
        return Range(0, len(self.entries), 0)

    def advance(self, state: Range, token: int) -> Range | None:
        """The entries that go on with ``token``, or None where there is none."""
        if state.ended:
            return None
        if token in self.vocabulary.eos:
            return state._replace(ended=True) if self.is_final(state) else None
        symbols = self.symbols(token)
        return self.narrow(state, symbols) if symbols else None

    def masks(self, states: Sequence[Range], out: NDArray[np.int32]) -> None:
        """One mask per state in `out`, int32 ``[N, ceil(W / 32)]``."""
        for row, state in enumerate(states):
            out[row] = 0 if state.ended else self._mask(state)

    def accepted(self, state: Range, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, are allowed."""
        return count_accepted(self, state, tokens)

    def forced(self, state: Range) -> tuple[int, ...]:
        """The tokens that must follow: as long as there is one, and the text may not end."""
        tokens: list[int] = []
        while not self.is_final(state) and len(after := self._after(state)) == 1:
            ((token, state),) = after.items()
            tokens.append(token)
        return tuple(tokens)

    def is_final(self, state: Range) -> bool:
        """Whether the first, thus shortest, entry is complete."""
        return state.ended or len(self.entries[state.begin]) == state.depth

    def closing(self, state: Range, enough: int = 0) -> tuple[int, ...] | None:  # noqa: ARG002 - the protocol's signature
        """The spelling of the shortest entry's rest."""
        if self.is_final(state):
            return ()
        shortest = state.begin + int(np.argmin(self._sizes[state.begin : state.end]))
        return self.spelling(self.entries[shortest][state.depth :])

    def text(self, state: Range) -> bytes:
        """The text of a state."""
        return self.spelled(self.entries[state.begin][: state.depth])

    def narrow(self, state: Range, symbols: T) -> Range | None:
        """The entries that go on with `symbols`, or None."""
        depth, stop = state.depth, state.depth + len(symbols)

        def part(entry: T) -> T:
            return entry[depth:stop]

        begin = bisect_left(self.entries, symbols, state.begin, state.end, key=part)
        end = bisect_right(self.entries, symbols, begin, state.end, key=part)
        return Range(begin, end, stop) if begin < end else None

    @abstractmethod
    def symbols(self, token: int) -> T:
        """What a token contributes to an entry; nothing where it has no text."""

    @abstractmethod
    def spelling(self, symbols: T) -> tuple[int, ...]:
        """Tokens that contribute `symbols`."""

    @abstractmethod
    def spelled(self, symbols: T) -> bytes:
        """The bytes of `symbols`."""

    @abstractmethod
    def _continue(self, state: Range) -> Iterator[tuple[int, Range]]:
        """All tokens that may follow, with the states after them."""

    def _mask(self, state: Range) -> NDArray[np.int32]:
        mask = self.vocabulary.mask_of(self._after(state))
        return mask | self.vocabulary.eos_mask if self.is_final(state) else mask


class _Bytes(TrieConstraint[bytes]):
    """All spellings of the texts."""

    def symbols(self, token: int) -> bytes:
        """The bytes of a token."""
        return self.vocabulary.tokens[token] if 0 <= token < len(self.vocabulary.tokens) else b""

    def spelling(self, symbols: bytes) -> tuple[int, ...]:
        """The tokenizer's spelling."""
        return self.vocabulary.spell(symbols)

    def spelled(self, symbols: bytes) -> bytes:
        """The bytes themselves."""
        return symbols

    def _continue(self, state: Range) -> Iterator[tuple[int, Range]]:
        # Both sides are sorted: go down the bytes that entries and tokens have in common.
        waiting = [(b"", state)]
        while waiting:
            text, at = waiting.pop()
            for token in self.vocabulary.ids.get(text, ()):
                yield token, at
            for byte in self._next_bytes(at):
                longer = text + byte
                if self.vocabulary.starts_some(longer):
                    following = self.narrow(at, byte)
                    assert following is not None
                    waiting.append((longer, following))

    def _next_bytes(self, state: Range) -> Iterator[bytes]:
        """The distinct bytes with which the entries go on."""
        begin = state.begin + (len(self.entries[state.begin]) == state.depth)
        while begin < state.end:
            byte = self.entries[begin][state.depth : state.depth + 1]
            yield byte
            following = self.narrow(state, byte)
            assert following is not None
            begin = following.end


class _Tokens(TrieConstraint[tuple[int, ...]]):
    """The tokenizer's own spelling of each text."""

    def symbols(self, token: int) -> tuple[int, ...]:
        """The token."""
        return (token,)

    def spelling(self, symbols: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens themselves."""
        return symbols

    def spelled(self, symbols: tuple[int, ...]) -> bytes:
        """The bytes of the tokens."""
        return self.vocabulary.decode(symbols)

    def _continue(self, state: Range) -> Iterator[tuple[int, Range]]:
        begin = state.begin + (len(self.entries[state.begin]) == state.depth)
        while begin < state.end:
            token = self.entries[begin][state.depth]
            following = self.narrow(state, (token,))
            assert following is not None
            yield token, following
            begin = following.end
