"""What the rows of one forward attend to, without masks and without padding.

One forward computes R rows (one token each) of many requests. A row's context has two parts:

- *pieces*: runs of slots that earlier forwards filled. A piece is seen whole by every row that lists it, so a prefix
  that many requests share is one piece, read once for all of them.
- *its block*: the rows of this forward that belong to the same request. They see each other by ancestry only.

Together they are exactly the positions ``0..positions[row]``, each once, or those of them that the block's view leaves;
`check` says so in debug mode.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from treille.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """Slots computed in earlier forwards, contiguous in position, all of them visible to all of `rows`.

    Attributes:
        start: First slot.
        stop: One past the last slot.
        position: Absolute position of the slot `start`; slot ``start + i`` holds position ``position + i``.
        rows: Indices of the rows of this forward that see the piece.
    """

    start: int
    stop: int
    position: int
    rows: tuple[int, ...] | range


@dataclass(frozen=True, slots=True)
class Block:
    """Rows ``[begin, end)`` of this forward that belong together and see each other by ancestry only.

    Attributes:
        begin: First row.
        end: One past the last row.
        parents: None for a causal chain, where row i sees ``begin..i``; else for each row the index within the block of
            its parent, or -1 where the parent was computed in an earlier forward. Parents come before their children.
        view: None where the rows see their whole context; else the spans of positions ``[begin, end)`` of the context
            that they see, ascending, the last one open (its end beyond every position).
    """

    begin: int
    end: int
    parents: tuple[int, ...] | None
    view: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The context of each row of one forward, and the slots the rows are written to.

    Attributes:
        positions: [R] int64 on the model's device; absolute position of each row, from 0.
        slots: [R] int64 on the model's device; the slot that each row's key and value are written to.
        pieces: Context from earlier forwards.
        blocks: Context from this forward; a partition of ``range(R)``, in order.
    """

    positions: Tensor
    slots: Tensor
    pieces: tuple[Piece, ...]
    blocks: tuple[Block, ...]
    _derived: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def row_count(self) -> int:
        """R, the number of rows of this forward."""
        return self.blocks[-1].end if self.blocks else 0

    def derive(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value of ``build()``, computed once per forward however many layers ask for it.

        Args:
            key: Names the value; implementations put their own name first.
            build: Called the first time that `key` is asked for.
        """
        if key not in self._derived:
            self._derived[key] = build()
        return cast("T", self._derived[key])

    def host_positions(self) -> list[int]:
        """`positions` as Python integers; on an accelerator the first call of a forward waits for the device."""
        return self.derive("host_positions", lambda: [int(p) for p in self.positions.tolist()])


def ancestors(block: Block, row: int) -> Iterator[int]:
    """Row indices of this forward that `row` sees within its block: itself first, then up to the root."""
    if block.parents is None:
        yield from range(row, block.begin - 1, -1)
        return
    index = row - block.begin
    while index >= 0:
        yield block.begin + index
        index = block.parents[index]


def check(plan: AttentionPlan, slot_count: int | None = None) -> None:
    """Returns only if every row sees its positions (all, or its view's), each once, and writes a slot nobody reads.

    For debug mode and tests: the work is proportional to rows times the pieces and ancestors each row sees.

    Args:
        plan: The plan to check.
        slot_count: Number of slots of the pool, to check the bounds as well.

    Raises:
        InternalError: The plan breaks the contract; the message names the row, piece or block.
    """
    positions, slots = plan.host_positions(), [int(s) for s in plan.slots.tolist()]
    _check_shapes(plan, positions, slots, slot_count)
    _check_blocks(plan, positions)
    spans: list[list[tuple[int, int]]] = [[] for _ in positions]
    for piece in plan.pieces:
        for row in piece.rows:
            spans[row].append((piece.position, piece.position + piece.stop - piece.start))
    for block in plan.blocks:
        for row in range(block.begin, block.end):
            root = list(ancestors(block, row))[-1]
            _check_coverage(row, sorted(spans[row]), seen_spans(block.view, positions[root]))


def _check_shapes(plan: AttentionPlan, positions: list[int], slots: list[int], slot_count: int | None) -> None:
    """Counts, bounds and distinctness of slots and rows."""
    rows = plan.row_count
    if not len(positions) == len(slots) == rows:
        raise InternalError(f"plan: {len(positions)} positions and {len(slots)} slots for {rows} rows")
    if len(set(slots)) != rows:
        raise InternalError("plan: two rows write the same slot")
    bound = max(slots, default=0) + 1 if slot_count is None else slot_count
    if any(not 0 <= slot < bound for slot in slots):
        raise InternalError(f"plan: a row writes outside the pool of {bound} slots")
    for piece in plan.pieces:
        if not 0 <= piece.start < piece.stop or (slot_count is not None and piece.stop > slot_count):
            raise InternalError(f"plan: slots [{piece.start}, {piece.stop}) are empty or outside the pool")
        if any(not 0 <= row < rows for row in piece.rows) or len(set(piece.rows)) != len(piece.rows):
            raise InternalError(f"plan: slots [{piece.start}, {piece.stop}) list a row twice or beyond {rows}")
        if any(piece.start <= slot < piece.stop for slot in slots):
            raise InternalError(f"plan: slots [{piece.start}, {piece.stop}) are read and written in one forward")


def _check_blocks(plan: AttentionPlan, positions: list[int]) -> None:
    """Blocks partition the rows, parents come first, and a child stands one position after its parent."""
    end = 0
    for block in plan.blocks:
        size = block.end - block.begin
        if block.begin != end or size < 1 or (block.parents is not None and len(block.parents) != size):
            raise InternalError(f"plan: block [{block.begin}, {block.end}) breaks the partition at row {end}")
        end = block.end
        for index in range(size):
            parent = index - 1 if block.parents is None else block.parents[index]
            if not -1 <= parent < index:
                raise InternalError(f"plan: row {block.begin + index} has parent {parent} within its block")
            if parent >= 0 and positions[block.begin + index] != positions[block.begin + parent] + 1:
                raise InternalError(f"plan: row {block.begin + index} does not stand one position after its parent")


def seen_spans(view: tuple[tuple[int, int], ...] | None, length: int) -> list[tuple[int, int]]:
    """The spans of the positions ``0..length - 1`` that a view leaves; neighbouring ones are joined."""
    joined: list[tuple[int, int]] = []
    for begin, end in ((0, length),) if view is None else view:
        stop = min(end, length)
        if begin >= stop:
            continue
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((begin, stop))
    return joined


def _check_coverage(row: int, spans: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """The spans of positions make up the expected ones, without gap or overlap."""
    joined: list[tuple[int, int]] = []
    for begin, end in spans:
        if joined and begin < joined[-1][1]:
            raise InternalError(f"plan: row {row} sees position {begin} twice")
        if joined and begin == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    if joined != expected:
        raise InternalError(f"plan: row {row} sees the positions {joined} of its context, but should see {expected}")
