"""Packing: which token rows one forward computes, where their KV goes, and what they attend to.

There is one scheduling unit: advance a node by some of its rows from what is computed. Prefill, chunk, decode, verify
and recomputation after a preemption are all this unit, and the budget counts rows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from treille.attention.plan import AttentionPlan, Block, Piece, seen_spans
from treille.cache.prefix import BLOCK
from treille.cache.segments import Rows
from treille.engine.variant import computed, drop_scratch, held, uncomputed, whole, without_context
from treille.tree import common_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from treille.cache.segments import Segment
    from treille.engine.job import Job, Pending
    from treille.engine.runner import ModelRunner
    from treille.engine.variant import Variant
    from treille.requests import Layers
    from treille.tree import Node

    Key = tuple[str, int]


WORTH_WAITING = 2 * BLOCK  # tokens; a prompt that shares fewer with one being computed is not held back

DECODE_ROWS = 64  # a request that needs at most this many rows goes before longer ones


class Entry:
    """Consecutive rows of one node in this forward: tokens `first … first + count - 1` of its path.

    Attributes:
        variant: how the model is run.
        rows: handle whose last `count` rows these are.
        above: the entry that computes the tokens just before, None if they were computed earlier.
        row: index of its first row in the forward.
    """

    __slots__ = ("above", "component", "count", "first", "job", "node", "row", "rows", "variant")

    def __init__(
        self, job: Job, node: Node, variant: Variant, first: int, count: int, rows: Rows, above: Entry | None
    ) -> None:
        self.job = job
        self.node = node
        self.variant = variant
        self.first = first
        self.count = count
        self.rows = rows
        self.above = above
        self.row = -1
        # A number, not the list of members: a cycle would keep nodes and their rows alive until a garbage collection.
        self.component: int = id(self) if above is None else above.component

    @property
    def complete(self) -> bool:
        """Whether the node is computed once these rows are."""
        return self.first + self.count == self.node.length


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one forward: `tokens` int64 `[R]` on the device, their plan, the layers that they go through."""

    tokens: torch.Tensor
    plan: AttentionPlan
    entries: tuple[Entry, ...]
    last_row: dict[Key, int]
    layers: Layers | None

    def row_of(self, node: Node, variant: Variant) -> int | None:
        """The row where a node ends, None if it does not end in this forward, or is another variant's there."""
        return self.last_row.get((variant.key, id(node)))

    @property
    def rows(self) -> int:
        """R."""
        return self.plan.row_count

    def give_back(self) -> None:
        """Let go of the rows: they were not computed."""
        for entry in self.entries:
            entry.rows.release()


def by_layers(pendings: Sequence[Pending]) -> list[tuple[Layers | None, list[Pending]]]:
    """The requests that can share a forward, by the layers that it runs; the whole model first."""
    groups: dict[Layers | None, list[Pending]] = {}
    for pending in pendings:
        groups.setdefault(layers_now(pending), []).append(pending)
    return sorted(groups.items(), key=lambda group: group[0] is not None)


def layers_now(pending: Pending) -> Layers | None:
    """The layers of the next forward that a request takes part in: all, while the context of its variant is missing."""
    variant = pending.variant
    if variant.layers is None:
        return None
    missing = without_context(uncomputed(_waiting(pending), variant), variant)
    return None if missing else variant.layers


def is_long(pending: Pending) -> bool:
    """Whether a request needs so many rows that it waits behind decodes."""
    rows = 0
    for node in uncomputed(_waiting(pending), pending.variant):
        rows += node.length - max(node.start, computed(node, pending.variant))
    return rows > DECODE_ROWS


def _waiting(pending: Pending) -> Sequence[Node]:
    return [pending.request.nodes[i] for i in pending.missing]


class Packer:
    """Collects entries until the budget of rows is spent, then lays them out as one forward.

    Args:
        runner: the model.
        budget: rows at the most.
        layers: what of its layers this forward runs, None for all.
    """

    def __init__(self, runner: ModelRunner, budget: int, layers: Layers | None = None) -> None:
        self.runner = runner
        self.left = budget
        self.layers = layers
        self.entries: dict[Key, Entry] = {}
        self.rereads: dict[Key, Entry] = {}
        self.jobs: set[Job] = set()
        self.held_back = False

    def add(self, pending: Pending) -> None:
        """Add what `pending` still needs, as far as the budget goes.

        Raises:
            OutOfSlots: KV memory is full; what was added before stays.
        """
        variant, job = pending.variant, pending.task.job
        order = uncomputed(_waiting(pending), variant)
        context = without_context(order, variant)
        if context and self.layers is None:
            order, limit, variant = context, variant.since, whole(variant.model)
        elif context or variant.layers != self.layers:
            self.held_back = True  # what it stands on was lost, or found, while this forward was packed: the next one
            return
        else:
            limit = max(node.length for node in pending.request.nodes)
        for node in order:
            if self.left <= 0:
                return
            self._add_node(job, node, variant, min(node.length, limit))
        if not context:
            self._read_again(pending)

    def _read_again(self, pending: Pending) -> None:
        for i in sorted(pending.missing):
            node = pending.request.nodes[i]
            key = pending.variant.key, id(node)
            known = key in self.entries or key in self.rereads
            if self.left > 0 and not known and computed(node, pending.variant) == node.length:
                self._add_reread(pending.task.job, node, pending.variant)

    def _add_node(self, job: Job, node: Node, variant: Variant, stop: int) -> None:
        """Add rows of a node, up to token `stop`, whose ancestors are computed, or complete in this forward."""
        if (variant.key, id(node)) in self.entries or self._context_is_here(node, variant):
            return
        above: Entry | None = None
        base, first = held(node, variant)
        if base is None:
            parent = node.parent
            if parent is None:
                base, first = self._cached_prefix(job, node, variant)
                if base is not None and first >= stop:  # all the context that a variant asked for
                    self._hold(job, node, variant, base)
                    self.held_back = True
                    return
                if variant.whole and self._wait_for_twin(node, first):
                    return
            else:
                above = self.entries.get((variant.key, id(parent)))
                if above is not None and not above.complete:
                    return
                base, first = held(parent, variant)
                if base is None or first < parent.length:
                    return
        if base is not None and first < base.length:
            base = base.first(first)
        segment, at, count = self.runner.store.reserve(base, min(stop - first, self.left), scratch=not variant.whole)
        rows = Rows(segment, at + count, "node", variant.depth)
        self._hold(job, node, variant, rows)
        entry = Entry(job, node, variant, first, count, rows, above)
        if variant.whole and entry.complete and len(node.kv) > 1:
            drop_scratch(node, variant.model)
        self._keep(entry, self.entries)

    @staticmethod
    def _hold(job: Job, node: Node, variant: Variant, rows: Rows) -> None:
        """The node holds these rows; a preemption of its job releases them."""
        job.handles.add(rows)
        node.kv[variant.key] = rows

    def _context_is_here(self, node: Node, variant: Variant) -> bool:
        """Whether this very forward computes what a variant stands on, so that it comes with the next one."""
        if variant.whole or not any((variant.model, id(n)) in self.entries for n in (node, node.parent)):
            return False
        self.held_back = True
        return True

    def _cached_prefix(self, job: Job, root: Node, variant: Variant) -> tuple[Rows | None, int]:
        """What the prefix cache knows of a root: exact rows, which serve the model and where it stops early."""
        found = self.runner.cached_prefix(root) if variant.whole or variant.depth else None
        if found is None:
            return None, 0
        job.stats.cached_rows += found.length
        return found, found.length

    def _wait_for_twin(self, root: Node, known: int) -> bool:
        """Whether this forward computes a prompt that begins alike: better to take its rows in the next one."""
        if self.runner.prefix is None:
            return False
        twins = [e.node for e in self.entries.values() if e.node.parent is None and e.variant.whole]
        shared = max((common_length([root, twin]) for twin in twins), default=0)
        return min(shared, root.length - 1) // BLOCK * BLOCK - known >= WORTH_WAITING

    def _add_reread(self, job: Job, node: Node, variant: Variant) -> None:
        """Compute the last token of a computed node again, in a scratch row, to read its distribution."""
        own, _ = held(node, variant)
        assert own is not None, "it is computed"
        segment, at, _ = self.runner.store.reserve(own.first(node.length - 1), 1, scratch=True)
        rows = Rows(segment, at + 1, "node", variant.depth)
        if variant.whole and len(node.kv) > 1:
            drop_scratch(node, variant.model)
        self._keep(Entry(job, node, variant, node.length - 1, 1, rows, None), self.rereads)

    def _keep(self, entry: Entry, among: dict[Key, Entry]) -> None:
        among[entry.variant.key, id(entry.node)] = entry
        self.jobs.add(entry.job)
        self.left -= entry.count

    def build(self) -> Batch:
        """Lay out the rows: connected entries next to each other, ancestors first."""
        components: dict[int, list[Entry]] = {}
        for entry in itertools.chain(self.entries.values(), self.rereads.values()):
            components.setdefault(entry.component, []).append(entry)
        ordered: list[Entry] = []
        blocks: list[Block] = []
        row = 0
        for component in components.values():
            begin = row
            for entry in component:
                entry.row = row
                row += entry.count
            ordered.extend(component)
            blocks.append(Block(begin, row, _parents(component, begin), component[0].variant.spans))
        host = np.empty((3, row), np.int64)
        for entry in ordered:
            span = slice(entry.row, entry.row + entry.count)
            host[0, span] = entry.node.path[entry.first : entry.first + entry.count]
            if entry.count == 1:
                host[1, entry.row] = entry.first
                host[2, entry.row] = entry.rows.segment.start + entry.rows.stop - 1
            else:
                host[1, span] = np.arange(entry.first, entry.first + entry.count)
                stop = entry.rows.segment.start + entry.rows.stop
                host[2, span] = np.arange(stop - entry.count, stop)
        device = torch.from_numpy(host).to(self.runner.device)
        if self.runner.debug:
            for component in components.values():
                rows = component[0].rows
                for segment, stop in rows.segment.pieces(rows.stop):
                    self.runner.store.check_owner(segment, stop)
        plan = AttentionPlan(device[1], device[2], _pieces(list(components.values()), blocks), tuple(blocks))
        last = {(e.variant.key, id(e.node)): e.row + e.count - 1 for e in ordered if e.complete}
        return Batch(device[0], plan, tuple(ordered), last, self.layers)


def _parents(component: list[Entry], begin: int) -> tuple[int, ...] | None:
    """Parent rows within a block, None for a plain chain."""
    if all(entry.above is component[i] for i, entry in enumerate(component[1:])):
        return None
    parents: list[int] = []
    for entry in component:
        parents.append(-1 if entry.above is None else entry.above.row + entry.above.count - 1 - begin)
        parents.extend(range(entry.row - begin, entry.row - begin + entry.count - 1))
    return tuple(parents)


def _pieces(components: list[list[Entry]], blocks: list[Block]) -> tuple[Piece, ...]:
    """The context of each block from earlier forwards; what several blocks share is one piece.

    Segments are cut at the points where blocks fork off and where views begin and end, so that every part is seen by
    all rows that list it.
    """
    seen: dict[int, tuple[Segment, list[tuple[int, Block]]]] = {}
    for component, block in zip(components, blocks, strict=True):
        rows = component[0].rows
        segment, before = rows.segment, rows.stop - component[0].count
        for part, stop in segment.lineage:
            seen.setdefault(id(part), (part, []))[1].append((stop, block))
        if before:
            seen.setdefault(id(segment), (segment, []))[1].append((before, block))
    pieces: list[Piece] = []
    for segment, users in seen.values():
        if any(block.view is not None for _, block in users):
            pieces.extend(_viewed(segment, users))
            continue
        start = 0
        users.sort(key=lambda user: user[0])
        for i, (stop, _) in enumerate(users):
            if stop > start:
                rows_seen = _rows([block for _, block in users[i:]])
                pieces.append(Piece(segment.start + start, segment.start + stop, segment.origin + start, rows_seen))
                start = stop
    return tuple(pieces)


def _viewed(segment: Segment, users: list[tuple[int, Block]]) -> Iterator[Piece]:
    """The pieces of one segment where some blocks see parts of it only: a sweep over the ends of what each sees."""
    edges: dict[int, list[Block]] = {}  # a block that stands in an edge's list begins or ends to see there
    for stop, block in users:
        for begin, end in seen_spans(block.view, segment.origin + stop):
            if end > segment.origin:
                edges.setdefault(max(begin - segment.origin, 0), []).append(block)
                edges.setdefault(end - segment.origin, []).append(block)
    active: dict[int, Block] = {}
    for start, stop in itertools.pairwise(sorted(edges)):
        for block in edges[start]:
            if active.pop(block.begin, None) is None:
                active[block.begin] = block
        if active:
            rows = _rows(list(active.values()))
            yield Piece(segment.start + start, segment.start + stop, segment.origin + start, rows)


def _rows(blocks: list[Block]) -> range | tuple[int, ...]:
    if len(blocks) == 1:
        return range(blocks[0].begin, blocks[0].end)
    blocks.sort(key=lambda block: block.begin)
    if all(a.end == b.begin for a, b in itertools.pairwise(blocks)):
        return range(blocks[0].begin, blocks[-1].end)
    return tuple(row for block in blocks for row in range(block.begin, block.end))
