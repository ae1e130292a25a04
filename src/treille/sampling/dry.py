"""DRY, "do not repeat yourself": a penalty on tokens that would continue an earlier passage.

From a pull request to text-generation-webui (2024); there is no paper. The rule is that of llama.cpp.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from treille.sampling.processors import Processor, flatten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from treille.sampling.path import Path

_LARGEST_LOG = 88.7228391
"""Natural logarithm of the largest float32: the exponent stops where the penalty would overflow."""
_LONGEST_TAIL = 20
"""Tokens of a breaker that are compared after its first; longer breakers match on this much."""


class Vocabulary(Protocol):
    """What processors need of a tokenizer: plain text in and out, no special tokens added."""

    vocabulary_size: int

    def encode(self, text: str) -> Sequence[int]:
        """The token ids of ``text``."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``."""


class Breakers:
    """Token sequences that a repeated passage may not cross.

    Args:
        sequences: each a non-empty sequence of token ids.
    """

    __slots__ = ("_heads_by_tail", "_single")

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        heads: dict[tuple[int, ...], set[int]] = {}
        for head, *tail in sequences:
            heads.setdefault(tuple(tail[:_LONGEST_TAIL]), set()).add(head)
        self._single = np.array(sorted(heads.pop((), set())), dtype=np.int64)
        self._heads_by_tail = {tail: np.array(sorted(ids), dtype=np.int64) for tail, ids in heads.items()}

    @staticmethod
    def sequences_of(strings: Iterable[str], vocabulary: Vocabulary) -> list[tuple[int, ...]]:
        """The token sequences of breakers given as text.

        Tokenizers merge a breaker with its neighbours, so every token whose text holds the breaker breaks alone, and
        one whose text ends with the breaker's beginning breaks when the tokens of the rest follow.
        """
        texts = [vocabulary.decode([token]) for token in range(vocabulary.vocabulary_size)]
        sequences: list[tuple[int, ...]] = []
        for breaker in strings:
            rests = {n: tuple(vocabulary.encode(breaker[n:])) for n in range(1, len(breaker))}
            for token, text in enumerate(texts):
                if breaker in text:
                    sequences.append((token,))
                else:
                    sequences.extend((token, *rest) for n, rest in rests.items() if text.endswith(breaker[:n]))
        return sequences

    def alone(self, tokens: "NDArray[np.int64]") -> "NDArray[np.bool_]":
        """Which of ``tokens`` are breakers by themselves."""
        return np.isin(tokens, self._single)

    def limit(self, window: "NDArray[np.int32]") -> int:
        """How many tokens stand after the latest breaker in ``window``; all of them without one.

        With several breakers at the same place the longest counts.
        """
        n = len(window)
        length = np.where(np.isin(window, self._single), 1, 0)
        for tail, heads in self._heads_by_tail.items():
            starts = n - len(tail)
            if starts <= 0:
                continue
            match = np.isin(window[:starts], heads)
            for offset, token in enumerate(tail, start=1):
                match &= window[offset : starts + offset] == token
            length[:starts] = np.maximum(length[:starts], np.where(match, 1 + len(tail), 0))
        places = np.flatnonzero(length)
        return n if len(places) == 0 else int(n - places[-1] - length[places[-1]])


def suffix_matches(window: "NDArray[np.int32]", limit: int) -> "NDArray[np.int64]":
    """Length of the common suffix of ``window[:i+1]`` and ``window``, at most ``limit``, int64 ``[n-1]``.

    A Z-function over the reversed window: linear in its length.
    """
    z = _compiled()(np.ascontiguousarray(window[::-1]))
    return np.minimum(z[:0:-1], limit)


def z_function(text: "NDArray[np.int32]") -> "NDArray[np.int64]":
    """Length of the longest common prefix of ``text`` and ``text[k:]`` for each k (0 for k = 0), int64 ``[n]``."""
    n = len(text)
    z = np.zeros(n, dtype=np.int64)
    left = right = 0  # text[left:right] equals text[0:right - left], the rightmost such stretch found so far
    for k in range(1, n):
        match = min(right - k, z[k - left]) if k < right else 0
        while k + match < n and text[match] == text[k + match]:
            match += 1
        z[k] = match
        if k + match > right:
            left, right = k, k + match
    return z


@cache
def _compiled() -> "Callable[[NDArray[np.int32]], NDArray[np.int64]]":
    """``z_function``, compiled at its first use: numba is slow to import and few requests use DRY."""
    import numba

    compiled: Callable[[NDArray[np.int32]], NDArray[np.int64]] = numba.njit(nogil=True)(z_function)
    return compiled


@dataclass(frozen=True, slots=True)
class Dry(Processor):
    """``l - multiplier * base ** (L - allowed_length)`` for tokens that extend a match of ``L >= allowed_length``.

    L is the longest earlier passage equal to the end of the text that the token followed; it may not cross the latest
    breaker. Tokens that are breakers by themselves are never penalised.

    Attributes:
        dry_multiplier: above 0.
        dry_base: at least 1.
        dry_allowed_length: tokens that may repeat freely.
        dry_penalty_last_n: tokens looked at, prompt included; ``None`` is all.
        breakers: a table that compares by identity.
    """

    name: ClassVar[str] = "dry"
    dry_multiplier: float
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int | None = None
    breakers: Breakers = field(default_factory=lambda: Breakers(()), repr=False)

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Lowers the logits of tokens that continue a repetition."""
        found = [self._matches(path.within("path", self.dry_penalty_last_n), logits.shape[-1]) for path in paths]
        rows, ids = flatten([ids for ids, _ in found], logits.device)
        exponents = flatten([lengths - self.dry_allowed_length for _, lengths in found], logits.device)[1]
        if self.dry_base > 1.000001:
            exponents = exponents.clamp(max=math.floor(_LARGEST_LOG / math.log(self.dry_base)))
        penalty = self.dry_multiplier * torch.pow(self.dry_base, exponents.double())
        return logits.index_put((rows, ids), logits[rows, ids] - penalty.float())

    def _matches(self, window: "NDArray[np.int32]", vocabulary: int) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
        """The tokens to penalise and their longest matches, each int64 ``[M]``."""
        nothing = np.empty(0, dtype=np.int64)
        if len(window) <= self.dry_allowed_length:
            return nothing, nothing
        limit = self.breakers.limit(window)
        if limit < self.dry_allowed_length:
            return nothing, nothing
        lengths = suffix_matches(window, limit)
        # A length of 0 is a match when nothing may repeat: every token that was followed then is penalised, as written.
        hit = lengths >= self.dry_allowed_length
        ids, places = np.unique(window[1:][hit].astype(np.int64), return_inverse=True)
        longest = np.zeros(len(ids), dtype=np.int64)
        np.maximum.at(longest, places, lengths[hit])
        wanted = (ids < vocabulary) & ~self.breakers.alone(ids)
        return ids[wanted], longest[wanted]
