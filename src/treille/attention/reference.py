"""Attention over a forest, as its definition reads: the specification of the fast implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from treille.attention.plan import ancestors

if TYPE_CHECKING:
    from torch import Tensor

    from treille.attention.plan import AttentionPlan


def visible(plan: AttentionPlan, row: int, window: int | None = None) -> list[int]:
    """The slots that a row sees, by position; the last one is its own."""
    positions = plan.host_positions()
    slots = plan.derive("host_slots", plan.slots.tolist)
    seen: dict[int, int] = {}
    for piece in plan.pieces:
        if row in piece.rows:
            seen.update({piece.position + i: piece.start + i for i in range(piece.stop - piece.start)})
    block = next(block for block in plan.blocks if block.begin <= row < block.end)
    seen.update({positions[other]: slots[other] for other in ancestors(block, row)})
    return [seen[position] for position in sorted(seen) if window is None or position > positions[row] - window]


def weights(
    q: Tensor,
    keys: Tensor,
    plan: AttentionPlan,
    row: int,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """[Hq, T] float32: how much a row attends to each of the positions 0 … T - 1 up to its own.

    Args:
        q: [Hq, D] the row's rotated queries.
        keys: [Hkv, S, D] the layer's pool.
        plan: What each row sees.
        row: Which row.
        scale: As for `attend`.
        window: As for `attend`; positions beyond it have weight 0.
        softcap: As for `attend`.
    """
    index = torch.tensor(visible(plan, row), device=keys.device)
    row_keys = keys[:, index].float().repeat_interleave(q.shape[0] // keys.shape[0], dim=0)  # [Hq, T, D]
    scores = torch.einsum("hd,htd->ht", q.float(), row_keys) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if window is not None:
        scores[:, : max(0, scores.shape[1] - window)] = -torch.inf
    return scores.softmax(-1)


def attend(
    q: Tensor,
    k: Tensor,  # noqa: ARG001  # the pool holds the same rows; the other implementations read them here
    v: Tensor,  # noqa: ARG001
    keys: Tensor,
    values: Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Softmax attention of every row over exactly the slots that its plan makes visible.

    Args:
        q: [R, Hq, D] rotated queries.
        k: [R, Hkv, D] rotated keys of the rows, already written to `keys` at ``plan.slots``.
        v: [R, Hkv, D] values of the rows, already written to `values`.
        keys: [Hkv, S, D] the layer's pool.
        values: [Hkv, S, D] the layer's pool.
        plan: What each row sees.
        scale: Factor on the scores.
        window: A row at position t sees the positions above ``t - window``; None sees all.
        softcap: c turns a score s into ``c * tanh(s / c)`` (Gemma 2, arXiv 2408.00118, section 2); None leaves it.

    Returns:
        [R, Hq, D] in the dtype of `q`; sums are in float32.
    """
    groups = q.shape[1] // keys.shape[0]
    out = torch.empty_like(q)
    for row in range(plan.row_count):
        index = torch.tensor(visible(plan, row, window), device=keys.device)
        row_values = values[:, index].float().repeat_interleave(groups, dim=0)
        row_weights = weights(q[row], keys, plan, row, scale=scale, window=window, softcap=softcap)[:, -len(index) :]
        out[row] = torch.einsum("ht,htd->hd", row_weights, row_values).to(out.dtype)
    return out
