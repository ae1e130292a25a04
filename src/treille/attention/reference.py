"""Attention over a forest, as its definition reads: the specification of the fast implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from treille.attention.plan import ancestors

if TYPE_CHECKING:
    from torch import Tensor

    from treille.attention.plan import AttentionPlan


def visible(plan: AttentionPlan, window: int | None) -> list[list[int]]:
    """For each row, the slots it sees, by position; the last one is its own."""
    positions, slots = plan.host_positions(), [int(s) for s in plan.slots.tolist()]
    seen: list[dict[int, int]] = [{} for _ in positions]
    for piece in plan.pieces:
        for row in piece.rows:
            seen[row].update({piece.position + i: piece.start + i for i in range(piece.stop - piece.start)})
    for block in plan.blocks:
        for row in range(block.begin, block.end):
            seen[row].update({positions[other]: slots[other] for other in ancestors(block, row)})
    return [
        [at[position] for position in sorted(at) if window is None or position > positions[row] - window]
        for row, at in enumerate(seen)
    ]


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
    for row, slots in enumerate(visible(plan, window)):
        index = torch.tensor(slots, device=keys.device)
        row_keys = keys[:, index].float().repeat_interleave(groups, dim=0)  # [Hq, T, D]
        row_values = values[:, index].float().repeat_interleave(groups, dim=0)
        scores = torch.einsum("hd,htd->ht", q[row].float(), row_keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        out[row] = torch.einsum("ht,htd->hd", scores.softmax(-1), row_values).to(out.dtype)
    return out
