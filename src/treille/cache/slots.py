"""KV memory: one tensor of slots per model, and the allocator of contiguous runs of slots."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import torch

from treille.errors import InternalError

if TYPE_CHECKING:
    from torch import Tensor


class OutOfSlots(Exception):  # a signal to evict or preempt, never shown to users
    """No run of free slots is left."""


class KVMemory:
    """Keys and values of all layers: `data` is `[L, 2, Hkv, S, D]`; `keys[l]`, `values[l]` are its views `[Hkv, S, D]`.

    Keys are stored after rotary embedding. Untouched slots cost no physical memory on CPU.
    """

    def __init__(
        self, layers: int, kv_heads: int, head_dim: int, slots: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.data = torch.empty(layers, 2, kv_heads, slots, head_dim, dtype=dtype, device=device)
        self.keys: list[Tensor] = [self.data[layer, 0] for layer in range(layers)]
        self.values: list[Tensor] = [self.data[layer, 1] for layer in range(layers)]
        self.slots = slots

    @staticmethod
    def bytes_per_slot(layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        """Bytes that one token's keys and values take."""
        return layers * 2 * kv_heads * head_dim * dtype.itemsize

    def move(self, source: int, target: int, count: int) -> None:
        """Copy the rows of `count` slots; the two runs must not overlap."""
        assert abs(source - target) >= count, "overlapping move"
        self.data[..., target : target + count, :] = self.data[..., source : source + count, :]

    def poison(self, start: int, stop: int) -> None:
        """Fill freed slots with NaN, so that reading them shows."""
        self.data[..., start:stop, :] = torch.nan


class SlotAllocator:
    """Contiguous runs of `total` slots, first fit; neighbouring free runs are merged."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._starts = [0]
        self._stops = [total]

    def allocate(self, count: int, least: int = 1) -> tuple[int, int]:
        """A free run `(start, stop)` of `count` slots, or the longest one there is if that has at least `least`.

        Raises:
            OutOfSlots: no run has `least` slots.
        """
        best = -1
        for i, (start, stop) in enumerate(zip(self._starts, self._stops, strict=True)):
            if stop - start >= count:
                best = i
                break
            if stop - start >= least and (best < 0 or stop - start > self._stops[best] - self._starts[best]):
                best = i
        if best < 0:
            raise OutOfSlots
        return self._take(best, min(count, self._stops[best] - self._starts[best]))

    def grow(self, stop: int, count: int) -> int:
        """How many of `count` slots right after `stop` were free; they are taken."""
        i = bisect_left(self._starts, stop)
        if i == len(self._starts) or self._starts[i] != stop:
            return 0
        start, taken = self._take(i, min(count, self._stops[i] - stop))
        return taken - start

    def _take(self, i: int, count: int) -> tuple[int, int]:
        start = self._starts[i]
        if start + count == self._stops[i]:
            del self._starts[i], self._stops[i]
        else:
            self._starts[i] = start + count
        self.free -= count
        return start, start + count

    def release(self, start: int, stop: int) -> None:
        """Give a run back.

        Raises:
            InternalError: part of it is free already.
        """
        i = bisect_left(self._starts, start)
        if (i < len(self._starts) and self._starts[i] < stop) or (i > 0 and self._stops[i - 1] > start):
            raise InternalError(f"slots [{start}, {stop}) were freed twice")
        self.free += stop - start
        joins_right = i < len(self._starts) and self._starts[i] == stop
        joins_left = i > 0 and self._stops[i - 1] == start
        if joins_left and joins_right:
            self._stops[i - 1] = self._stops[i]
            del self._starts[i], self._stops[i]
        elif joins_left:
            self._stops[i - 1] = stop
        elif joins_right:
            self._starts[i] = start
        else:
            self._starts.insert(i, start)
            self._stops.insert(i, stop)
