"""Attention over a forest for many rows, in plain torch on any device.

Nothing is padded, copied or gathered per context: each piece is a slice of the pool, and one product per piece serves
all rows that see it, also of different requests (cascade attention). The partial results of a row over its pieces, its
ancestors and itself are merged as they come, by their running maximum and sum (online softmax, Milakov and Gimelshein,
arXiv 1805.02867; the merge of shared prefixes follows Hydragen, arXiv 2402.05099).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from treille.attention.plan import AttentionPlan, Block, Piece

QUERY_TILE = 256  # rows
KEY_TILE = 1024  # slots; bounds the scores held at once to Hq * 256 * 1024


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece clipped to what the window leaves of it."""

    start: int
    stop: int
    rows: slice | Tensor
    hidden: Tensor | None  # [rows, slots] bool, True where a row's window has passed a slot; None: every row sees all


@dataclass(frozen=True, slots=True)
class _Schedule:
    """What all layers of one forward with the same window have in common."""

    alone: tuple[Block, ...]  # causal blocks without any piece: torch's own fused attention serves them whole
    chains: tuple[Block, ...]
    trees: tuple[tuple[Block, Tensor], ...]  # with [T, T] bool, True where a row does not see another, nor itself
    pieces: tuple[_Piece, ...]
    complete: bool  # `alone` covers every row


class _Running:
    """Online softmax over R rows; every row starts with itself, so the maximum is finite from the beginning."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None) -> None:
        rows, heads, width = q.shape
        kv_heads = k.shape[1]
        self.groups, self.softcap = heads // kv_heads, softcap
        # [Hkv, R, G, D]: the rows of a block, with their grouped heads folded in, are then one slice of memory.
        self.q = (q.float() * scale).view(rows, kv_heads, self.groups, width).transpose(0, 1).contiguous()
        self.top = self._cap((self.q * k.float().transpose(0, 1).unsqueeze(2)).sum(-1))  # [Hkv, R, G]
        self.sum = torch.ones_like(self.top)
        self.out = torch.empty_like(self.q).copy_(v.transpose(0, 1).unsqueeze(2))  # a copy: it is updated in place

    def _cap(self, scores: Tensor) -> Tensor:
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)

    def see(self, rows: slice | Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> None:
        """Adds slots to what `rows` have seen.

        Args:
            rows: A slice, or int64 row indices, n in number.
            keys: [Hkv, T, D] float32.
            values: [Hkv, T, D] float32.
            hidden: [n, T] bool, True where a row does not see a slot.
        """
        q, top, total, out = self.q[:, rows], self.top[:, rows], self.sum[:, rows], self.out[:, rows]
        kv_heads, count, groups, width = q.shape
        scores = self._cap(torch.bmm(q.reshape(kv_heads, -1, width), keys.transpose(1, 2)))
        scores = scores.view(kv_heads, count, groups, -1)
        if hidden is not None:
            scores.masked_fill_(hidden.unsqueeze(1), -torch.inf)
        new_top = torch.maximum(top, scores.amax(-1))
        weights = scores.sub_(new_top.unsqueeze(-1)).exp_()
        kept = torch.exp(top - new_top)
        seen = torch.bmm(weights.view(kv_heads, count * groups, -1), values).view_as(out)
        self.out[:, rows] = out * kept.unsqueeze(-1) + seen
        self.sum[:, rows] = total * kept + weights.sum(-1)
        self.top[:, rows] = new_top

    def result(self) -> Tensor:
        """[R, Hq, D] float32."""
        return (self.out / self.sum.unsqueeze(-1)).transpose(0, 1).flatten(1, 2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """The result of `reference.attend`, by products over whole pieces.

    Args and result are those of `treille.attention.reference.attend`. Beyond its output it allocates float32 copies of
    one tile of the pool and the scores of one tile.
    """
    schedule = plan.derive(
        ("merged", window, softcap is None), lambda: _schedule(plan, window, capped=softcap is not None)
    )
    out = torch.empty_like(q)
    if not schedule.complete:
        running = _Running(q, k, v, scale, softcap)
        for piece in schedule.pieces:
            _see_piece(running, piece, keys, values)
        for block in schedule.chains:
            _see_chain(running, block, k, v, window)
        for block, hidden in schedule.trees:
            mine = slice(block.begin, block.end)
            running.see(mine, k[mine].float().transpose(0, 1), v[mine].float().transpose(0, 1), hidden)
        out.copy_(running.result())
    for block in schedule.alone:
        mine = slice(block.begin, block.end)
        q_heads, k_heads, v_heads = (x[mine].transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(
            q_heads, k_heads, v_heads, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        out[mine] = attended.squeeze(0).transpose(0, 1)
    return out


def _see_piece(running: _Running, piece: _Piece, keys: Tensor, values: Tensor) -> None:
    """All rows of the piece see it, tile by tile; a tile becomes float32 once for all of them."""
    for start in range(piece.start, piece.stop, KEY_TILE):
        stop = min(start + KEY_TILE, piece.stop)
        tile_keys, tile_values = keys[:, start:stop].float(), values[:, start:stop].float()
        for rows, part in _row_tiles(piece.rows):
            hidden = None if piece.hidden is None else piece.hidden[part, start - piece.start : stop - piece.start]
            running.see(rows, tile_keys, tile_values, hidden)


def _row_tiles(rows: slice | Tensor) -> Iterator[tuple[slice | Tensor, slice]]:
    """At most `QUERY_TILE` rows at a time, and where they stand within `rows`."""
    count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
    for begin in range(0, count, QUERY_TILE):
        part = slice(begin, min(begin + QUERY_TILE, count))
        tile = slice(rows.start + part.start, rows.start + part.stop) if isinstance(rows, slice) else rows[part]
        yield tile, part


def _see_chain(running: _Running, block: Block, k: Tensor, v: Tensor, window: int | None) -> None:
    """Each row of a causal block sees the rows of the block before it; itself it has seen already."""
    for begin in range(block.begin, block.end, QUERY_TILE):
        end = min(begin + QUERY_TILE, block.end)
        first = block.begin if window is None else max(block.begin, begin - window + 1)
        for start in range(first, end, KEY_TILE):
            stop = min(start + KEY_TILE, end)
            age = torch.arange(begin, end, device=k.device).unsqueeze(1) - torch.arange(start, stop, device=k.device)
            hidden = age < 1 if window is None else (age < 1) | (age >= window)
            tile_keys, tile_values = k[start:stop].float().transpose(0, 1), v[start:stop].float().transpose(0, 1)
            running.see(slice(begin, end), tile_keys, tile_values, hidden)


def _schedule(plan: AttentionPlan, window: int | None, *, capped: bool) -> _Schedule:
    """Sorts the blocks by how they are served, and clips the pieces to the window."""
    with_piece = np.zeros(plan.row_count, dtype=bool)
    for piece in plan.pieces:
        with_piece[list(piece.rows)] = True
    alone, chains, trees = [], [], []
    for block in plan.blocks:
        size = block.end - block.begin
        if block.parents is not None and size > 1:
            trees.append((block, _hidden_in_tree(plan, block, window)))
        elif not capped and (window is None or size <= window) and not with_piece[block.begin : block.end].any():
            alone.append(block)
        elif size > 1:
            chains.append(block)
    pieces = (_clip(plan, piece, window) for piece in plan.pieces)
    complete = sum(block.end - block.begin for block in alone) == plan.row_count
    return _Schedule(tuple(alone), tuple(chains), tuple(trees), tuple(p for p in pieces if p is not None), complete)


def _clip(plan: AttentionPlan, piece: Piece, window: int | None) -> _Piece | None:
    """The part of the piece that at least one row's window reaches; None where there is no such part."""
    device = plan.positions.device
    first, last = min(piece.rows), max(piece.rows)
    rows: slice | Tensor = slice(first, last + 1)
    if piece.rows != range(first, last + 1) and tuple(piece.rows) != tuple(range(first, last + 1)):
        rows = torch.tensor(tuple(piece.rows), device=device)
    if window is None:
        return _Piece(piece.start, piece.stop, rows, None)
    positions = plan.host_positions()
    oldest = [positions[row] - window + 1 for row in piece.rows]  # the first position each row still sees
    start = piece.start + max(0, min(oldest) - piece.position)
    if start >= piece.stop:
        return None
    first_position = piece.position + start - piece.start
    hidden = None
    if max(oldest) > first_position:
        at = torch.arange(first_position, first_position + piece.stop - start, device=device)
        hidden = at < plan.positions[rows].unsqueeze(1) - window + 1
    return _Piece(start, piece.stop, rows, hidden)


def _hidden_in_tree(plan: AttentionPlan, block: Block, window: int | None) -> Tensor:
    """[T, T] bool on the device, True where a row of the block does not see another; itself it has seen already."""
    assert block.parents is not None
    size = block.end - block.begin
    hidden = np.ones((size, size), dtype=bool)
    for index, parent in enumerate(block.parents):
        if parent >= 0:
            hidden[index] = hidden[parent]
            hidden[index, parent] = False
    mask = torch.from_numpy(hidden).to(plan.positions.device)
    if window is not None:
        positions = plan.positions[block.begin : block.end]
        mask |= positions.unsqueeze(1) - positions >= window
    return mask
