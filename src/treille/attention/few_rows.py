"""Attention over a forest for few rows on the CPU (decoding, draft trees), by `treille.kernels.attention`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from treille.errors import ParameterError
from treille.kernels import attention as kernel
from treille.kernels.intrinsics import LANES
from treille.kernels.team import shared_team

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from treille.attention.plan import AttentionPlan

FORK_PRODUCTS = 800  # products of a query with a key, about 5 ns each: below, one thread is faster than a team
POOL_TYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job whose first words are set: what the layers of one forward share."""

    job: NDArray[np.int64]
    units: int  # of context
    short: bool  # the units together take less than about 4 microseconds
    kept: tuple[NDArray[Any], ...]  # what the job's addresses point to


class FewRowsAttention:
    """One layer's attention, from the fused projection to the heads' outputs.

    Args:
        heads: Hq.
        kv_heads: Hkv, a divisor of `heads`.
        width: D, the size of a head.
        scale: Factor on the scores.
        window: A row at position t sees the positions above ``t - window``; None sees all.
        softcap: c turns a score s into ``c * tanh(s / c)``; None leaves it.
        q_norm: [D] weight of the RMS norm of each query head, or None for no norm.
        k_norm: The same for keys.
        eps: Of both norms.
        offset: Added to both weights (1.0 for Gemma's ``1 + w``).

    Raises:
        ParameterError: The heads do not divide, or a norm is not per head.
    """

    def __init__(
        self,
        *,
        heads: int,
        kv_heads: int,
        width: int,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        q_norm: Tensor | None = None,
        k_norm: Tensor | None = None,
        eps: float = 1e-6,
        offset: float = 0.0,
    ) -> None:
        if heads % kv_heads != 0:
            raise ParameterError(f"heads={heads} is not a multiple of kv_heads={kv_heads}; give a multiple")
        for name, norm in (("q_norm", q_norm), ("k_norm", k_norm)):
            if norm is not None and tuple(norm.shape) != (width,):
                raise ParameterError(f"{name} has shape {tuple(norm.shape)}; a norm per head has ({width},)")
        self.heads, self.kv_heads, self.width, self.window = heads, kv_heads, width, window
        self._numbers = np.array([eps, scale, softcap or 0.0], np.float32)
        self._norms = [
            None if norm is None else (norm.detach().float() + offset).contiguous() for norm in (q_norm, k_norm)
        ]
        self._constants = (self._numbers.ctypes.data, *(0 if n is None else n.data_ptr() for n in self._norms))
        self.schedule_key = ("few_rows", heads, kv_heads, width, window)
        self._pool: tuple[Tensor | None, Tensor | None] = (None, None)
        self._team = shared_team()

    def schedule(self, plan: AttentionPlan) -> Schedule:
        """What the layers of one forward that have this layer's shape and window share."""
        return plan.derive(
            self.schedule_key, lambda: _schedule(plan, self.heads, self.kv_heads, self.width, self.window)
        )

    def new_job(self) -> NDArray[np.int64]:
        """A job of this layer whose constant words are set; for a program that fills in the rest."""
        job = np.zeros(kernel.WORDS, np.int64)
        job[kernel.NUMBERS : kernel.COS] = self._constants
        return job

    @staticmethod
    def bind(job: NDArray[np.int64], keys: Tensor, values: Tensor) -> None:
        """Point a job at a layer's pool."""
        job[kernel.SLOTS : kernel.NUMBERS] = (
            keys.shape[1], keys.data_ptr(), values.data_ptr(), keys.dtype == torch.float16,
        )  # fmt: skip

    def __call__(
        self, qkv: Tensor, cos: Tensor | None, sin: Tensor | None, keys: Tensor, values: Tensor, plan: AttentionPlan
    ) -> Tensor:
        """[R, Hq * D] float32; keys and values of the rows stand in the pool at ``plan.slots`` afterwards.

        Args:
            qkv: [R, (Hq + 2 Hkv) * D] float32: all queries, then all keys, then all values.
            cos: [R, N] float32, contiguous. Dimensions i and i + N of a head (i < N) are rotated as a pair; those from
                2 N on stay. None: no rotation.
            sin: [R, N] float32, contiguous.
            keys: [Hkv, S, D] the layer's pool, contiguous; float32, bfloat16 or float16.
            values: Like `keys`.
            plan: What each row sees.

        Raises:
            ParameterError: The pool's dtype or the layout of an argument is not as said above.
        """
        self._check(qkv, cos, sin, keys, values)
        schedule = self.schedule(plan)
        out = torch.empty(qkv.shape[0], self.heads * self.width)
        pairs, rotation = (
            (0, (0, 0)) if cos is None or sin is None else (cos.shape[1], (cos.data_ptr(), sin.data_ptr()))
        )
        schedule.job[kernel.PAIRS :] = (
            pairs,
            keys.shape[1],
            keys.data_ptr(),
            values.data_ptr(),
            keys.dtype == torch.float16,
            *self._constants,
            *rotation,
            qkv.data_ptr(),
            out.data_ptr(),
        )
        steps = kernel.steps(narrow=keys.dtype != torch.float32)
        with self._team.lock:
            awake = kernel.attend_rows(
                self._team.state, *steps, schedule.job.ctypes.data, len(qkv), schedule.units, schedule.short
            )
        if awake >= 0:
            self._team.ring(awake)
        return out

    def _check(self, qkv: Tensor, cos: Tensor | None, sin: Tensor | None, keys: Tensor, values: Tensor) -> None:
        """The kernel reads raw memory: what it assumes is refused here when it does not hold."""
        columns = (self.heads + 2 * self.kv_heads) * self.width
        if qkv.dtype != torch.float32 or qkv.shape[1] != columns or not qkv.is_contiguous() or qkv.is_cuda:
            raise ParameterError(f"qkv is {_describe(qkv)}; give contiguous float32 [R, {columns}] on the CPU")
        if keys is not self._pool[0] or values is not self._pool[1]:
            self._check_pool(keys, values)
            self._pool = (keys, values)
        if cos is None and sin is None:
            return
        if cos is None or sin is None:
            raise ParameterError("cos and sin go together: give both or neither")
        shape = cos.shape
        for table in (cos, sin):
            if table.dtype != torch.float32 or table.shape != shape or not table.is_contiguous():
                raise ParameterError(f"a rotary table is {_describe(table)}; give contiguous float32 [R, N]")
        if shape[0] != len(qkv) or 2 * shape[1] > self.width:
            raise ParameterError(f"rotary tables are {_describe(cos)}; give R = {len(qkv)} and 2 N <= {self.width}")

    def _check_pool(self, keys: Tensor, values: Tensor) -> None:
        """Once per pool: a layer sees the same two tensors in every forward."""
        shape = (self.kv_heads, keys.shape[1], self.width)
        for pool in (keys, values):
            known = pool.dtype in POOL_TYPES and pool.dtype == keys.dtype and pool.device.type == "cpu"
            if not known or pool.shape != shape or not pool.is_contiguous():
                raise ParameterError(f"the pool is {_describe(pool)}; give contiguous {shape}, float32 or a half type")


def _describe(tensor: Tensor) -> str:
    layout = "contiguous" if tensor.is_contiguous() else "strided"
    return f"{layout} {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"


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
    """The result of `reference.attend`, by the kernel for few rows.

    Args and result are those of `treille.attention.reference.attend`; CPU only. A layer that wants norm, rotation and
    attention in one call uses `FewRowsAttention`.
    """
    rows, heads, width = q.shape
    layer = FewRowsAttention(heads=heads, kv_heads=k.shape[1], width=width, scale=scale, window=window, softcap=softcap)
    qkv = torch.cat([x.reshape(rows, -1).float() for x in (q, k, v)], dim=1)
    return layer(qkv, None, None, keys, values, plan).view(rows, heads, width).to(q.dtype)


def _schedule(plan: AttentionPlan, heads: int, kv_heads: int, width: int, window: int | None) -> Schedule:
    """Cuts the context into units of work and lays out the scratch memory."""
    count = plan.row_count
    pieces = sorted(plan.pieces, key=lambda piece: piece.position) if len(plan.pieces) > 1 else plan.pieces
    bounds = np.array([(p.start, p.stop, p.position) for p in pieces], np.int64).reshape(-1, 3)
    ends = np.array([0, *itertools.accumulate(len(p.rows) for p in pieces)], np.int64)
    seeing = np.array([row for p in pieces for row in p.rows], np.int64)
    positions = plan.positions.numpy()
    items, seen, offsets, parts, products = kernel.split_context(bounds, ends, seeing, positions, window or 0)
    wide = -(-width // LANES) * LANES
    queries, fresh = count * heads * wide, 2 * count * kv_heads * width
    floats = np.empty(queries + fresh + len(seen) * heads * (wide + 2), np.float32)
    tree = _tree(plan, window)
    scratch = address_of(floats)
    job = np.zeros(kernel.WORDS, np.int64)
    job[: kernel.PAIRS] = (
        count, heads, kv_heads, width, len(items), len(seen),
        address_of(tree), address_of(items), address_of(seen), address_of(offsets), address_of(parts),
        scratch, scratch + 4 * queries, scratch + 4 * (queries + fresh),
    )  # fmt: skip
    kept = (tree, items, seen, offsets, parts, floats)
    return Schedule(job, len(items) * kv_heads, products * heads < FORK_PRODUCTS, kept)


def address_of(array: NDArray[Any]) -> int:
    """Where an array's data is; several times faster than `array.ctypes.data`, which makes an object."""
    return int(array.__array_interface__["data"][0])


def _tree(plan: AttentionPlan, window: int | None) -> NDArray[np.int64]:
    """[R, 3]: slot, parent's row or -1, and how many rows of its block a row sees, itself included."""
    parents: list[int] = []
    depths: list[int] = []
    for block in plan.blocks:
        if block.parents is None:
            parents += (-1, *range(block.begin, block.end - 1))
            depths += range(1, block.end - block.begin + 1)
            continue
        for parent in block.parents:
            above = parent + block.begin if parent >= 0 else -1
            parents.append(above)
            depths.append(depths[above] + 1 if parent >= 0 else 1)
    tree = np.empty((plan.row_count, 3), np.int64)
    tree[:, 0], tree[:, 1], tree[:, 2] = plan.slots.numpy(), parents, depths
    if window is not None:
        np.minimum(tree[:, 2], window, out=tree[:, 2])
    return tree
