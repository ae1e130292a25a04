"""Tokens as bytes: the table that constraints are compiled for, and spelling bytes with tokens."""

import bisect
import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol

import llguidance
import numpy as np
from numpy.typing import NDArray

from treille.errors import ParameterError

_NO_SPECIAL: Mapping[int, str] = MappingProxyType({})
# A character that no merge touches: what a tokenizer puts before a text (SentencePiece: a space) lands before it.
_SENTINEL = "\x02"
_SPECIAL_MARK = b"\xff"
"""llguidance marks special tokens with this byte, which no UTF-8 text contains."""


class TokenTable(Protocol):
    """What a vocabulary needs of a tokenizer."""

    backend: Any
    special_ids: frozenset[int]

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token inside a text."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Token id to bytes, for one tokenizer and one width of the logits.

    Two vocabularies are equal only if they are the same object: what is compiled for one is kept by its identity.

    Attributes:
        tokens: bytes per id; ``b""`` for special tokens and ids that do not exist.
        eos: all ids that end a text, from the generation config; at least one.
        width: width of the logits, at least ``len(tokens)``; the ids beyond are padding and never allowed.
        encode: the tokenizer's own spelling of a text, without special tokens. None: longest match from the left.
        special: names of special tokens by id, which sources may mention.

    Raises:
        ParameterError: No end-of-sequence id, or one that is not below `width`, or more tokens than `width`.
    """

    tokens: tuple[bytes, ...]
    eos: frozenset[int]
    width: int
    encode: Callable[[str], Sequence[int]] | None = None
    special: Mapping[int, str] = field(default_factory=lambda: _NO_SPECIAL)

    def __post_init__(self) -> None:
        if len(self.tokens) > self.width:
            raise ParameterError(f"vocabulary: {len(self.tokens)} tokens, but logits of width {self.width}")
        if not self.eos:
            raise ParameterError(
                "constraint: no end-of-sequence token, so a constrained text could never end; set eos_token_id"
            )
        if wrong := sorted(token for token in self.eos if not 0 <= token < self.width):
            raise ParameterError(f"eos_token_id={wrong[0]}: the logits have width {self.width}")

    @staticmethod
    def of(tokenizer: TokenTable, eos: Iterable[int], width: int | None = None) -> "Vocabulary":
        """The vocabulary of a tokenizer.

        Args:
            tokenizer: Such as `treille.models.tokenizer.Tokenizer`.
            eos: All end-of-sequence ids.
            width: Width of the model's logits; None: the number of tokens.

        Raises:
            ParameterError: As the class says, or the tokenizer's kind of decoder is not known.
        """
        ends = frozenset(eos)
        names = {token: name for name, token in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
        textless = tokenizer.special_ids | ends
        # Ids between the last token and the width, and gaps, have no text either.
        tokens = tuple(
            tokenizer.token_bytes(token) if token in names and token not in textless else b""
            for token in range(max(names, default=-1) + 1)
        )
        return Vocabulary(
            tokens,
            ends,
            len(tokens) if width is None else width,
            lambda text: tokenizer.encode(text, add_special_tokens=False),
            MappingProxyType({token: names[token] for token in sorted(textless & names.keys())}),
        )

    @property
    def words(self) -> int:
        """Number of int32 words of a mask."""
        return -(-self.width // 32)

    @cached_property
    def eos_mask(self) -> NDArray[np.int32]:
        """The mask that allows the end-of-sequence ids only, int32 ``[ceil(W / 32)]``; read-only."""
        mask = self.mask_of(self.eos)
        mask.flags.writeable = False
        return mask

    @cached_property
    def ids(self) -> Mapping[bytes, tuple[int, ...]]:
        """All ids of each token text; several where tokens have equal bytes."""
        found: dict[bytes, tuple[int, ...]] = {}
        for token, text in enumerate(self.tokens):
            if text:
                found[text] = (*found.get(text, ()), token)
        return found

    @cached_property
    def single_bytes(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The ids of tokens that are one byte, one per byte, ascending by byte, int64; and these bytes, uint8."""
        bytes_ = [byte for byte in range(256) if bytes([byte]) in self.ids]
        return np.array([self.ids[bytes([byte])][0] for byte in bytes_], np.int64), np.array(bytes_, np.uint8)

    @cached_property
    def ordered(self) -> tuple[bytes, ...]:
        """The distinct token texts in byte order."""
        return tuple(sorted(self.ids))

    @cached_property
    def longest(self) -> int:
        """Number of bytes of the longest token."""
        return max(map(len, self.tokens), default=0)

    @property
    def guidance_tokens(self) -> list[bytes]:
        """The token texts as llguidance takes them: one per id below `width`, special tokens by name."""
        # Bytes with the mark are no text; without this they would be taken for special tokens.
        tokens = [b"" if token.startswith(_SPECIAL_MARK) else token for token in self.tokens]
        tokens += [b""] * (self.width - len(tokens))
        for token, name in self.special.items():
            tokens[token] = name.encode()
        return tokens

    @cached_property
    def environment(self) -> llguidance.LLTokenizer:
        """The vocabulary as llguidance takes it: a trie of its tokens (128k tokens: some 100 ms, so it is kept)."""
        return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Table(self)), eos_token=sorted(self.eos))

    def mask_of(self, tokens: Iterable[int]) -> NDArray[np.int32]:
        """The mask that allows exactly `tokens`, int32 ``[ceil(W / 32)]``."""
        bits = np.zeros(32 * self.words, np.uint8)
        bits[list(tokens)] = 1
        return np.packbits(bits, bitorder="little").view("<i4").astype(np.int32, copy=False)

    def tokens_of(self, mask: NDArray[np.int32]) -> NDArray[np.int64]:
        """The ids that a mask allows, ascending, int64."""
        bits = np.unpackbits(np.ascontiguousarray(mask, "<i4").view(np.uint8), bitorder="little")
        return np.flatnonzero(bits)

    def starting_with(self, prefix: bytes) -> tuple[bytes, ...]:
        """The token texts that begin with `prefix`, in byte order."""
        begin = bisect.bisect_left(self.ordered, prefix)
        stop = begin
        while stop < len(self.ordered) and self.ordered[stop].startswith(prefix):
            stop += 1
        return self.ordered[begin:stop]

    def starts_some(self, prefix: bytes) -> bool:
        """Whether some token's text begins with `prefix`."""
        at = bisect.bisect_left(self.ordered, prefix)
        return at < len(self.ordered) and self.ordered[at].startswith(prefix)

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The bytes of tokens, one after the other."""
        return b"".join(self.tokens[token] for token in tokens if token < len(self.tokens))

    def spell(self, text: bytes) -> tuple[int, ...]:
        """Tokens whose bytes are exactly `text`: the tokenizer's spelling of its whole characters, then longest match.

        Raises:
            ParameterError: Some byte of `text` is in no token.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            whole = decoder.decode(text)
        except UnicodeDecodeError:
            return self._longest_match(text)
        characters = whole.encode()
        return self._encode(whole, characters) + self._longest_match(text[len(characters) :])

    def _encode(self, text: str, expected: bytes) -> tuple[int, ...]:
        """The tokenizer's spelling of `text`, or the longest match where the tokenizer would change the bytes."""
        if self.encode is not None and text:
            tokens = tuple(self.encode(text))
            if self.decode(tokens) == expected:
                return tokens
            before = tuple(self.encode(_SENTINEL))
            tokens = tuple(self.encode(_SENTINEL + text))
            if tokens[: len(before)] == before and self.decode(tokens[len(before) :]) == expected:
                return tokens[len(before) :]
        return self._longest_match(expected)

    def _longest_match(self, text: bytes) -> tuple[int, ...]:
        """Tokens that spell `text`, each the longest that fits."""
        tokens: list[int] = []
        at = 0
        while at < len(text):
            sizes = range(min(self.longest, len(text) - at), 0, -1)
            size = next((size for size in sizes if text[at : at + size] in self.ids), 0)
            if not size:
                raise ParameterError(f"no token of the vocabulary begins like {text[at : at + 8]!r}")
            tokens.append(self.ids[text[at : at + size]][0])
            at += size
        return tuple(tokens)


class _Table:
    """A vocabulary with the attributes that llguidance reads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = vocabulary.guidance_tokens
        self.special_token_ids = sorted(vocabulary.special)
        self.eos_token_id = min(vocabulary.eos)
        self.bos_token_id = None
        self._spell = vocabulary.spell

    def __call__(self, text: bytes) -> list[int]:
        return list(self._spell(text))
