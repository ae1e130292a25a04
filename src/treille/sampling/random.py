"""Randomness that is a function of its key, and inverse-CDF sampling.

Every draw is a value of Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) at a counter made of (position, purpose, draw) under a key made of (seed, stream). Nothing is consumed, so a
draw depends neither on how many draws came before it nor on what else is in the batch.
"""

from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from treille.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_VECTOR = 1 << 31
"""Top bit of the counter's last word: set for vectors of noise, so that they never meet the scalar draws."""

Words = tuple[int, int, int, int]
RoundKeys = tuple[tuple[int, int], ...]


def round_keys(key: tuple[int, int]) -> RoundKeys:
    """The ten round keys of a 64-bit Philox key, given as two 32-bit words."""
    return tuple(((key[0] + r * _WEYL[0]) & _MASK, (key[1] + r * _WEYL[1]) & _MASK) for r in range(_ROUNDS))


def philox(counter: Words, keys: RoundKeys) -> Words:
    """Four 32-bit words: Philox4x32-10 of ``counter`` under ``keys``."""
    a, b, c, d = counter
    m0, m1 = _MULTIPLIERS
    for k0, k1 in keys:
        low, high = m0 * a, m1 * c
        a, b, c, d = (high >> 32) ^ b ^ k0, high & _MASK, (low >> 32) ^ d ^ k1, low & _MASK
    return a, b, c, d


def philox_blocks(blocks: int, rest: tuple[int, int, int], keys: RoundKeys) -> "NDArray[np.uint64]":
    """``[blocks, 4]`` words (uint64 holding 32 bits): row ``i`` is ``philox((i, *rest), keys)``."""
    mask, shift = np.uint64(_MASK), np.uint64(32)
    m0, m1 = (np.uint64(m) for m in _MULTIPLIERS)
    a = np.arange(blocks, dtype=np.uint64)
    b, c, d = (np.full(blocks, word, dtype=np.uint64) for word in rest)
    for k0, k1 in keys:
        low, high = m0 * a, m1 * c
        a, b = (high >> shift) ^ b ^ np.uint64(k0), high & mask
        c, d = (low >> shift) ^ d ^ np.uint64(k1), low & mask
    return np.stack((a, b, c, d), axis=1)


@lru_cache(maxsize=1024)
def _purpose_word(purpose: str) -> int:
    """32 bits that stand for a purpose in the counter."""
    return int.from_bytes(blake2b(purpose.encode(), digest_size=4).digest(), "little")


class Random:
    """Draws that are a function of (seed, stream, position, purpose, draw number) alone.

    ``uniform``, ``bernoulli``, ``categorical`` and ``gumbel`` with different keys are independent for all practical
    purposes; with the same key they return the same value, whenever they are called. Strategies call ``bernoulli`` and
    ``categorical``; a subclass that overrides these two sees every discrete choice.

    Args:
        seed: any integer.
        stream: the branch of the request; ``branch(i)`` appends ``i``.
    """

    __slots__ = ("_keys", "seed", "stream")

    def __init__(self, seed: int, stream: tuple[int, ...] = ()) -> None:
        self.seed = int(seed)
        self.stream = tuple(stream)
        digest = blake2b(repr((self.seed, self.stream)).encode(), digest_size=8).digest()
        self._keys = round_keys((int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.seed}, stream={self.stream})"

    def branch(self, index: int) -> Self:
        """A new stream under this one, independent of it and of its other branches."""
        return type(self)(self.seed, (*self.stream, int(index)))

    def uniform(self, position: int, purpose: str, draw: int = 0) -> float:
        """A float64 in [0, 1) with 53 random bits."""
        high, low, _, _ = philox((0, position & _MASK, _purpose_word(purpose), draw & (_VECTOR - 1)), self._keys)
        return ((high << 21) | (low >> 11)) * 2.0**-53

    def bernoulli(self, p: float | Fraction, position: int, purpose: str, draw: int = 0) -> bool:
        """True with probability ``p`` (``p <= 0``: never, ``p >= 1``: always); the comparison is exact."""
        return self.uniform(position, purpose, draw) < p

    def categorical(
        self, weights: "Sequence[float | Fraction] | NDArray[Any]", position: int, purpose: str, draw: int = 0
    ) -> int:
        """An index with probability proportional to its weight; never one of weight zero.

        Raises:
            InternalError: a weight is negative or not a number, or all are zero.
        """
        uniform = self.uniform(position, purpose, draw)
        if isinstance(weights, np.ndarray) and weights.dtype == np.float64:
            return _index_of(weights, uniform)
        total = sum(weights, start=Fraction(0))
        if not total > 0 or min(weights) < 0:
            raise InternalError(f"weights must be >= 0 with a positive sum, but are {list(weights)[:8]} …")
        target = Fraction(uniform) * total if isinstance(total, Fraction) else uniform * total
        reached: float | Fraction = Fraction(0)
        last = 0
        for index, weight in enumerate(weights):
            reached += weight
            if weight > 0:
                last = index
                if target < reached:
                    return index
        return last  # rounding of a float sum left the target at its upper end

    def gumbel(self, position: int, purpose: str, size: int) -> "NDArray[np.float64]":
        """Standard Gumbel noise float64 ``[size]``, one value per token id.

        Entry ``t`` depends on the token id ``t`` but not on ``size``: ``argmax(logp + gumbel)`` is a draw from ``p``
        that any drafter can repeat (rule V6 of the verification rules).
        """
        words = philox_blocks((size + 1) // 2, (position & _MASK, _purpose_word(purpose), _VECTOR), self._keys)
        bits = ((words[:, 0::2] << np.uint64(21)) | (words[:, 1::2] >> np.uint64(11))).reshape(-1)[:size]
        uniforms = (bits.astype(np.float64) + 0.5) * 2.0**-53  # inside (0, 1): both logarithms are finite
        return -np.log(-np.log(uniforms))


def _index_of(weights: "NDArray[np.float64]", uniform: float) -> int:
    """The index whose part of the weights' sum holds `uniform`: what the loop over a list finds, for long rows.

    Raises:
        InternalError: as `Random.categorical`.
    """
    reached = weights.cumsum()
    total = reached[-1]
    if not total > 0 or weights.min() < 0:
        raise InternalError(f"weights must be >= 0 with a positive sum, but are {weights[:8].tolist()} …")
    index = int(reached.searchsorted(uniform * total, side="right"))
    # The product may round up to the total; the last index with weight is the first that reaches it.
    return min(index, int(reached.searchsorted(total)))


def sample_rows(logits: Tensor, uniforms: Tensor) -> Tensor:
    """One token per row by inverse CDF: int64 ``[N]``; never a token of probability zero.

    The CDF runs over ascending token ids, in float64. A row's token depends on its own logits and uniform only.

    Args:
        logits: float32 ``[N, V]``, processed; ``-inf`` is probability zero. At least one finite value per row, no NaN.
        uniforms: float64 ``[N]`` in [0, 1).
    """
    weights = logits.double()
    weights = (weights - weights.amax(dim=-1, keepdim=True)).exp_()
    cdf = weights.cumsum(dim=-1)
    total = cdf[:, -1:].contiguous()
    # The first id whose CDF exceeds the target: a token without mass does not raise the CDF, so it is never first.
    token = torch.searchsorted(cdf, uniforms.to(cdf)[:, None] * total, right=True)
    # u * total may round up to total; the last token with mass is the first that reaches the total.
    last = torch.searchsorted(cdf, total)
    return torch.minimum(token, last).squeeze(-1)
