"""Handles beside a plain model of them: for every handle the list of values that its rows must hold."""

from itertools import pairwise

import torch

from treille.cache.segments import Rows, SegmentStore
from treille.cache.slots import KVMemory, OutOfSlots


class Shadow:
    """A segment store in debug mode, and what every live handle should read."""

    def __init__(self, slots):
        self.memory = KVMemory(1, 1, 1, slots, torch.float64, torch.device("cpu"))
        self.memory.poison(0, slots)
        self.store = SegmentStore(self.memory, debug=True)
        self.live = []  # (handle, values)
        self.written = 0

    def extend(self, index, count):
        """A new handle with up to `count` more rows than the handle at `index` (None: a root). False: out of slots."""
        base, values = (None, ()) if index is None else self.live[index]
        try:
            segment, at, granted = self.store.reserve(base, count)
        except OutOfSlots:
            return False
        assert 1 <= granted <= count
        rows = Rows(segment, at + granted, "node")
        new = tuple(float(self.written + i) for i in range(1, granted + 1))
        self.written += granted
        start = segment.start + at
        self.memory.data[0, :, 0, start : start + granted, 0] = torch.tensor(new, dtype=torch.float64)
        self.live.append((rows, values + new))
        return True

    def shorten(self, index, back):
        """A second handle, on fewer rows of the path: what the prefix cache and rereads take."""
        rows, values = self.live[index]
        length = max(1, rows.length - back)
        for segment, stop in rows.segment.pieces(rows.stop):
            if segment.origin + stop >= length:
                self.live.append((Rows(segment, length - segment.origin, "cache"), values[:length]))
                return

    def drop(self, index):
        """Forget a handle; reference counting releases it."""
        del self.live[index]

    def release(self, index):
        """Release a handle's rows although it is still held, as a preemption does."""
        rows, _ = self.live.pop(index)
        rows.release()
        rows.release()
        assert not rows.alive

    def read(self, rows):
        """The values in the slots of a handle."""
        found, length = [], 0
        for segment, stop in rows.segment.pieces(rows.stop):
            assert segment.origin == length
            self.store.check_owner(segment, stop)
            found += self.memory.data[0, 0, 0, segment.start : segment.start + stop, 0].tolist()
            length += stop
        return tuple(found)

    def check(self):
        """Every handle reads its own values, no slot belongs to two segments, and the accounts add up."""
        for rows, values in self.live:
            assert rows.length == len(values)
            assert self.read(rows) == values
        spans = sorted((s.start, s.start + s.capacity) for s in self.store.live.values())
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        self.store.accounts().check()
        reached = {}
        for rows, _ in self.live:
            for segment, stop in rows.segment.pieces(rows.stop):
                reached[segment] = max(reached.get(segment, 0), stop)
        assert {s for s in self.store.live.values() if s.used} == set(reached)
        assert all(segment.used == stop for segment, stop in reached.items())
