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

from treille.attention.plan import AttentionPlan, Block, Piece
from treille.cache.prefix import BLOCK
from treille.cache.segments import Rows
from treille.tree import common_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from treille.cache.segments import Segment
    from treille.engine.job import Job, Pending
    from treille.engine.runner import ModelRunner
    from treille.tree import Node


WORTH_WAITING = 2 * BLOCK  # tokens; a prompt that shares fewer with one being computed is not held back

DECODE_ROWS = 64  # a request that needs at most this many rows goes before longer ones


class Entry:
    """Consecutive rows of one node in this forward: tokens `first … first + count - 1` of its path.

    Attributes:
        rows: handle whose last `count` rows these are.
        above: the entry that computes the tokens just before, None if they were computed earlier.
        row: index of its first row in the forward.
    """

    __slots__ = ("above", "component", "count", "first", "job", "node", "row", "rows")

    def __init__(self, job: Job, node: Node, first: int, count: int, rows: Rows, above: Entry | None) -> None:
        self.job = job
        self.node = node
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
    """The rows of one forward: `tokens` int64 `[R]` on the device, their plan, and the row where each node ends."""

    tokens: torch.Tensor
    plan: AttentionPlan
    entries: tuple[Entry, ...]
    last_row: dict[int, int]

    @property
    def rows(self) -> int:
        """R."""
        return self.plan.row_count

    def give_back(self) -> None:
        """Let go of the rows: they were not computed."""
        for entry in self.entries:
            entry.rows.release()


def computed(node: Node, model: str) -> int:
    """Number of tokens of `node`'s path whose KV it holds itself; 0 if it holds none."""
    rows = node.kv.get(model)
    return rows.length if rows is not None and rows.alive else 0


def uncomputed(nodes: Iterable[Node], model: str) -> list[Node]:
    """The nodes on the paths of `nodes` that lack rows, ancestors first, each once."""
    order: list[Node] = []
    seen: set[int] = set()
    for node in nodes:
        above: Node | None = node
        line: list[Node] = []
        while above is not None and id(above) not in seen and computed(above, model) < above.length:
            seen.add(id(above))
            line.append(above)
            above = above.parent
        order.extend(reversed(line))
    return order


def is_long(pending: Pending, model: str) -> bool:
    """Whether a request needs so many rows that it waits behind decodes."""
    rows = 0
    for node in uncomputed([pending.request.nodes[i] for i in pending.missing], model):
        rows += node.length - max(node.start, computed(node, model))
    return rows > DECODE_ROWS


class Packer:
    """Collects entries until the budget of rows is spent, then lays them out as one forward."""

    def __init__(self, runner: ModelRunner, budget: int) -> None:
        self.runner = runner
        self.left = budget
        self.entries: dict[int, Entry] = {}
        self.rereads: dict[int, Entry] = {}
        self.jobs: set[Job] = set()

    def add(self, pending: Pending) -> None:
        """Add what `pending` still needs, as far as the budget goes.

        Raises:
            OutOfSlots: KV memory is full; what was added before stays.
        """
        model, job = self.runner.name, pending.task.job
        nodes = pending.request.nodes
        for node in uncomputed([nodes[i] for i in pending.missing], model):
            if self.left <= 0:
                return
            self._add_node(job, node)
        for i in sorted(pending.missing):
            node = nodes[i]
            known = id(node) in self.entries or id(node) in self.rereads
            if self.left > 0 and not known and computed(node, model) == node.length:
                self._add_reread(job, node)

    def _add_node(self, job: Job, node: Node) -> None:
        """Add rows of a node whose ancestors are computed, or complete in this forward."""
        if id(node) in self.entries:
            return
        model, parent = self.runner.name, node.parent
        above: Entry | None = None
        base: Rows | None = node.kv.get(model)
        if base is None or not base.alive:
            if parent is None:
                base = self.runner.cached_prefix(node)
                if self._wait_for_twin(node, 0 if base is None else base.length):
                    return
                job.stats.cached_rows += 0 if base is None else base.length
            else:
                above = self.entries.get(id(parent))
                if above is not None and not above.complete:
                    return
                base = parent.kv.get(model)
                if base is None or not base.alive or base.length < parent.length:
                    return
        first = 0 if base is None else base.length
        segment, at, count = self.runner.store.reserve(base, min(node.length - first, self.left))
        rows = Rows(segment, at + count, "node")
        job.handles.add(rows)
        node.kv[model] = rows
        self._keep(Entry(job, node, first, count, rows, above), self.entries)

    def _wait_for_twin(self, root: Node, known: int) -> bool:
        """Whether this forward computes a prompt that begins alike: better to take its rows in the next one."""
        if self.runner.prefix is None:
            return False
        twins = [e.node for e in self.entries.values() if e.node.parent is None]
        shared = max((common_length([root, twin]) for twin in twins), default=0)
        return min(shared, root.length - 1) // BLOCK * BLOCK - known >= WORTH_WAITING

    def _add_reread(self, job: Job, node: Node) -> None:
        """Compute the last token of a computed node again, in a scratch row, to read its distribution."""
        own: Rows = node.kv[self.runner.name]
        if own.stop > 1:
            before: Rows | None = Rows(own.segment, own.stop - 1, "node")
        else:
            fork = own.segment.parent
            before = None if fork is None else Rows(fork.segment, fork.stop, "node")
        segment, at, _ = self.runner.store.reserve(before, 1)
        entry = Entry(job, node, node.length - 1, 1, Rows(segment, at + 1, "node"), None)
        self._keep(entry, self.rereads)

    def _keep(self, entry: Entry, among: dict[int, Entry]) -> None:
        among[id(entry.node)] = entry
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
            blocks.append(Block(begin, row, _parents(component, begin)))
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
        last = {id(entry.node): entry.row + entry.count - 1 for entry in ordered if entry.complete}
        return Batch(device[0], plan, tuple(ordered), last)


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

    Segments are cut at the points where blocks fork off, so that every part is seen by all rows that list it.
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
        start = 0
        users.sort(key=lambda user: user[0])
        for i, (stop, _) in enumerate(users):
            if stop > start:
                rows_seen = _rows([block for _, block in users[i:]])
                pieces.append(Piece(segment.start + start, segment.start + stop, segment.origin + start, rows_seen))
                start = stop
    return tuple(pieces)


def _rows(blocks: list[Block]) -> range | tuple[int, ...]:
    if len(blocks) == 1:
        return range(blocks[0].begin, blocks[0].end)
    blocks.sort(key=lambda block: block.begin)
    if all(a.end == b.begin for a, b in itertools.pairwise(blocks)):
        return range(blocks[0].begin, blocks[-1].end)
    return tuple(row for block in blocks for row in range(block.begin, block.end))
