"""Rows of logits: what a constraint forbids, and the best token and log-sum of what is left."""

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treille.kernels.elementwise import FASTMATH, exponential
from treille.kernels.team import CACHE

_NONE, _ALL, _BITS = np.int32(0), np.int32(-1), 32
_FORBIDDEN, _ZERO = np.float32(-np.inf), np.float32(0.0)
_BLOCK = 256  # values whose exponentials are summed in float32; the sums of blocks are added in float64
_MAXIMUM = frozenset({"nnan", "nsz", "reassoc"})


@njit(cache=CACHE, error_model="numpy")
def forbid(values: NDArray[Any], words: NDArray[Any], rows: NDArray[Any]) -> None:
    """Set what is not allowed to minus infinity, in place; a seventh of the time of unpacking the bits.

    Args:
        values: ``[N, V]`` float32 logits.
        words: ``[M, ceil(V / 32)]`` int32 masks, bit ``t & 31`` of word ``t >> 5``.
        rows: ``[N]`` int64, the mask of each row of logits.
    """
    count, width = values.shape
    for i in range(count):
        row, mask = values[i], words[rows[i]]
        for at in range(mask.size):
            word, begin = mask[at], at * _BITS
            end = min(begin + _BITS, width)
            if word == _NONE:
                for j in range(begin, end):
                    row[j] = _FORBIDDEN
            elif word != _ALL:
                for j in range(begin, end):
                    row[j] = row[j] if (word >> (j - begin)) & 1 else _FORBIDDEN


@njit(cache=CACHE, fastmath=set(_MAXIMUM), error_model="numpy")
def _largest(row: NDArray[Any]) -> Any:
    largest = _FORBIDDEN
    for value in row:
        largest = value if value > largest else largest  # noqa: FURB136 - LLVM vectorises this
    return largest


@njit(cache=CACHE, error_model="numpy")
def _exponentials(row: NDArray[Any], shift: Any, out: NDArray[Any]) -> None:
    for i in range(row.size):
        out[i] = exponential(row[i] - shift)


@njit(cache=CACHE, fastmath=set(FASTMATH), error_model="numpy")
def _sum(values: NDArray[Any], count: int) -> Any:
    total = _ZERO
    for i in range(count):
        total += values[i]
    return total


@njit(cache=CACHE, error_model="numpy")
def summarise(values: NDArray[Any], best: NDArray[Any], norms: NDArray[Any]) -> None:
    """The best token of each row and its log Σ exp, in one call.

    Args:
        values: ``[N, V]`` float32 logits.
        best: ``[N]`` int64, filled: the most probable token, the lowest on ties; 0 where a row has none.
        norms: ``[N]`` float32, filled; not a number where a row has no token.
    """
    count, width = values.shape
    exponentials = np.empty(_BLOCK, np.float32)
    for i in range(count):
        row = values[i]
        largest = _largest(row)
        at = 0
        while at < width - 1 and row[at] != largest:
            at += 1
        best[i] = at
        total = 0.0
        for begin in range(0, width, _BLOCK):
            block = row[begin : begin + _BLOCK]
            _exponentials(block, largest, exponentials)
            total += _sum(exponentials, block.size)
        norms[i] = largest + math.log(total)


def prepare() -> None:
    """Compile the kernels of this file, or read them from disk, before the first forward waits for it."""
    values = np.zeros((1, 1), np.float32)
    summarise(values, np.zeros(1, np.int64), np.zeros(1, np.float32))
    forbid(values, np.zeros((1, 1), np.int32), np.zeros(1, np.int64))
