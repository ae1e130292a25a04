"""Segments: contiguous runs of slots that hold the KV of a stretch of some path, and the handles that keep them alive.

A context is a short chain of segments: a segment continues its parent from a fork point. `Rows` is a handle on all
rows of a path up to some token; nodes, cache entries and forked segments hold one each. A segment's rows live as long
as some handle reaches them: when the furthest handle goes, the segment shrinks; when the last one goes, its slots are
free.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from treille.cache.slots import KVMemory, SlotAllocator
from treille.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator

Holder: TypeAlias = Literal["node", "cache", "fork"]

GROWTH = 64  # slots a segment asks for beyond its need, so that a decode rarely leaves its run
FOLD = 64  # a fork of at most this many rows is copied back into its parent's run once its siblings are gone


class Rows:
    """A handle on the KV rows of a path: everything up to row `stop` of `segment` and all of its ancestors' rows.

    `depth` is the number of layers that all of these rows hold at least; 0: every layer that their model computes.
    """

    __slots__ = ("__weakref__", "_segment", "_stop", "depth", "holder")

    def __init__(self, segment: Segment, stop: int, holder: Holder, depth: int = 0) -> None:
        self._segment: Segment | None = segment
        self._stop = stop
        self.depth = depth
        self.holder: Holder = holder
        segment.add(stop, holder)

    def _resolve(self) -> Segment | None:
        segment = self._segment
        while segment is not None and segment.folded is not None:
            self._stop += segment.folded_at
            segment = self._segment = segment.folded
        return segment

    @property
    def alive(self) -> bool:
        """False once released (a preempted run's nodes keep their handles, but no rows)."""
        return self._segment is not None

    @property
    def segment(self) -> Segment:
        """The segment of the last row."""
        segment = self._resolve()
        if segment is None:
            raise InternalError("KV rows were used after their release")
        return segment

    @property
    def stop(self) -> int:
        """Number of rows of `segment` this handle covers."""
        self._resolve()
        return self._stop

    @property
    def length(self) -> int:
        """Number of tokens covered, from the root."""
        return self.segment.origin + self.stop

    def first(self, length: int) -> Rows | None:
        """A node's handle on the first `length` of the tokens covered, None if that is none of them."""
        if not length:
            return None
        for segment, stop in self.segment.pieces(self.stop):
            if segment.origin + stop >= length:
                return Rows(segment, length - segment.origin, "node", self.depth)
        raise InternalError(f"{self.length} rows are fewer than {length}")

    def release(self) -> None:
        """Let go of the rows; further calls do nothing."""
        segment = self._resolve()
        if segment is not None:
            self._segment = None
            segment.remove(self._stop, self.holder)

    def __del__(self) -> None:
        # The last reference may go in any thread and in the middle of anything, so this only leaves a note.
        if self._segment is not None:
            self._segment.store.dropped.append((self._segment, self._stop, self.holder))


class Segment:
    """A run of slots `[start, start + capacity)`, of which the first `used` hold rows.

    Attributes:
        origin: absolute position of its first row.
        parent: handle on the fork point, None for the first segment of a context.
        scratch: whether its rows are a cheaper variant's, which never become part of a run of exact ones.
        lineage: `(segment, rows)` of every ancestor, from the root.
        folded: the segment its rows were moved to, at `folded_at`.
        generation: a number that no other segment of its store ever has.
    """

    __slots__ = (
        "_counts",
        "_stops",
        "capacity",
        "folded",
        "folded_at",
        "generation",
        "lineage",
        "origin",
        "parent",
        "scratch",
        "start",
        "store",
        "used",
    )

    def __init__(self, store: SegmentStore, start: int, capacity: int, parent: Rows | None, *, scratch: bool) -> None:
        self.store = store
        self.scratch = scratch
        self.start = start
        self.capacity = capacity
        self.used = 0
        self.parent = parent
        self.origin = 0 if parent is None else parent.length
        self.lineage: tuple[tuple[Segment, int], ...] = (
            () if parent is None else (*parent.segment.lineage, (parent.segment, parent.stop))
        )
        self.folded: Segment | None = None
        self.folded_at = 0
        self.generation = store.next_generation()
        self._stops: list[int] = []
        self._counts: dict[int, dict[Holder, int]] = {}

    def add(self, stop: int, holder: Holder) -> None:
        """Count a handle that covers `stop` rows."""
        assert 0 < stop <= self.capacity
        counts = self._counts.get(stop)
        if counts is None:
            counts = self._counts[stop] = {"node": 0, "cache": 0, "fork": 0}
            if self._stops and stop < self._stops[-1]:
                insort(self._stops, stop)
            else:
                self._stops.append(stop)
                self.used = stop
        counts[holder] += 1

    def remove(self, stop: int, holder: Holder) -> None:
        """Drop a handle; rows that no handle covers any more are free for the next one, the last frees the segment."""
        counts = self._counts[stop]
        counts[holder] -= 1
        if any(counts.values()):
            return
        del self._counts[stop]
        while self._stops and self._stops[-1] not in self._counts:
            self._stops.pop()
        self.used = self._stops[-1] if self._stops else 0
        if not self._counts:
            self.store.free(self)

    def furthest(self, holder: Holder) -> int:
        """The most rows that a handle of this kind covers, 0 without one."""
        return max((stop for stop, counts in self._counts.items() if counts[holder]), default=0)

    @property
    def forks(self) -> int:
        """Number of segments that continue this one."""
        return sum(counts["fork"] for counts in self._counts.values())

    def pieces(self, stop: int) -> Iterator[tuple[Segment, int]]:
        """The chain `(segment, rows)` from the root down to this segment's first `stop` rows."""
        yield from self.lineage
        yield self, stop

    def fold_into(self, parent: Segment, at: int) -> None:
        """Hand all handles over to `parent`, whose rows from `at` on now hold this segment's."""
        for stop, counts in sorted(self._counts.items()):
            for holder, count in counts.items():
                for _ in range(count):
                    parent.add(at + stop, holder)
        self.folded, self.folded_at = parent, at


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where the slots are; the four always sum to `total`."""

    free: int
    evictable: int
    protected: int
    scratch: int
    total: int

    def check(self) -> None:
        """Raise InternalError unless every slot is accounted for once."""
        if self.free + self.evictable + self.protected + self.scratch != self.total or min(
            self.free, self.evictable, self.protected, self.scratch
        ) < 0:  # fmt: skip
            raise InternalError(f"KV slots do not add up: {self}")


class SegmentStore:
    """All segments of one model's KV memory."""

    def __init__(self, memory: KVMemory, *, debug: bool = False) -> None:
        self.memory = memory
        self.allocator = SlotAllocator(memory.slots)
        self.debug = debug
        self.live: dict[int, Segment] = {}
        self._dying: list[Segment] = []
        self._generations = 0
        self.dropped: deque[tuple[Segment, int, Holder]] = deque()
        # In debug mode every slot carries the generation of the segment it belongs to, 0 while it is free.
        self.owner = np.zeros(memory.slots if debug else 0, np.int64)

    def next_generation(self) -> int:
        """A number for a new segment."""
        self._generations += 1
        return self._generations

    def check_owner(self, segment: Segment, stop: int) -> None:
        """Raise InternalError unless the first `stop` slots of `segment` are its own (debug mode)."""
        if (self.owner[segment.start : segment.start + stop] != segment.generation).any():
            raise InternalError(f"slots of segment {segment.generation} were freed while a path still reads them")

    def collect(self) -> None:
        """Let go of the rows of handles that nobody refers to any more; done before slots are given or counted."""
        while self.dropped:
            segment, stop, holder = self.dropped.popleft()
            while segment.folded is not None:
                stop += segment.folded_at
                segment = segment.folded
            segment.remove(stop, holder)

    def reserve(self, rows: Rows | None, count: int, *, scratch: bool = False) -> tuple[Segment, int, int]:
        """Room for `count` more rows after `rows`: `(segment, first row, rows granted)`, at least one.

        Continues the segment in place where nobody else did, folds a short orphaned fork back into its parent, and
        opens a new segment otherwise. Scratch and exact rows never share a segment, so that the exact ones, which come
        later, still stand in one run. The caller takes `Rows` on what it was granted.

        Raises:
            OutOfSlots: nothing is free.
        """
        self.collect()
        if rows is not None:
            self._fold(rows)
            segment, at = rows.segment, rows.stop
            if at == segment.used and segment.scratch == scratch:
                room = segment.capacity - at
                if room < count:
                    room += self._grow(segment, count - room)
                if room > 0:
                    return segment, at, min(room, count)
        long = not scratch and (rows is None or rows.stop == rows.segment.used)
        extra = GROWTH if long else FOLD // 4
        start, stop = self.allocator.allocate(count + extra)
        parent = None if rows is None else Rows(rows.segment, rows.stop, "fork")
        segment = Segment(self, start, stop - start, parent, scratch=scratch)
        self.live[start] = segment
        self._own(segment)
        return segment, 0, min(count, stop - start)

    def _grow(self, segment: Segment, count: int) -> int:
        grown = self.allocator.grow(segment.start + segment.capacity, max(count, GROWTH, segment.capacity // 2))
        segment.capacity += grown
        self._own(segment)
        return grown

    def _own(self, segment: Segment) -> None:
        if self.debug:
            self.owner[segment.start : segment.start + segment.capacity] = segment.generation

    def trim(self) -> bool:
        """Take back what segments hold beyond their rows, for when memory is short; False if there was nothing."""
        self.collect()
        before = self.allocator.free
        for segment in self.live.values():
            spare, stop = segment.start + segment.used, segment.start + segment.capacity
            if spare < stop:
                segment.capacity = segment.used
                self._release(spare, stop)
        return self.allocator.free > before

    def _fold(self, rows: Rows) -> None:
        """Move a short fork into its parent's run if it is the only continuation left there."""
        segment = rows.segment
        while (above := segment.parent) is not None and segment.used <= FOLD and not segment.forks:
            parent, at = above.segment, above.stop
            if parent.used != at or parent.scratch != segment.scratch:
                return
            if parent.capacity < at + segment.used:
                self._grow(parent, at + segment.used - parent.capacity)
                if parent.capacity < at + segment.used:
                    return
            self.memory.move(segment.start, parent.start + at, segment.used)
            segment.fold_into(parent, at)
            segment.parent = None
            above.release()
            self._give_back(segment)
            segment = parent

    def free(self, segment: Segment) -> None:
        """Give a dead segment's slots back and let go of its fork point."""
        self._dying.append(segment)
        if len(self._dying) > 1:
            return  # the loop below, further up the stack, reaches it: a chain of forks may be longer than the stack
        while self._dying:
            dead = self._dying[0]
            self._give_back(dead)
            if dead.parent is not None:
                dead.parent.release()
            del self._dying[0]

    def _give_back(self, segment: Segment) -> None:
        del self.live[segment.start]
        self._release(segment.start, segment.start + segment.capacity)

    def _release(self, start: int, stop: int) -> None:
        if self.debug:
            self.memory.poison(start, stop)
            self.owner[start:stop] = 0
        self.allocator.release(start, stop)

    def accounts(self) -> Accounts:
        """Where the slots are now. Walks all segments: for debugging, tests and metrics."""
        self.collect()
        marked = {segment: segment.furthest("node") for segment in self.live.values()}
        for segment in sorted(self.live.values(), key=lambda s: -len(s.lineage)):
            if marked[segment] and segment.parent is not None:
                above = segment.parent.segment
                marked[above] = max(marked[above], segment.parent.stop)
        protected = sum(marked.values())
        used = sum(segment.used for segment in self.live.values())
        capacity = sum(segment.capacity for segment in self.live.values())
        free = self.allocator.free
        return Accounts(free, used - protected, protected, capacity - used, self.memory.slots)
