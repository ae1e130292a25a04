"""The operations of a decoder layer on the CPU kernels: the fast build of `TorchOps`.

The residual stream is float32 whatever the weights' dtype. Linear layers go to the kernels up to the row count where
torch is faster; attention of few rows goes to its kernel, and everything else is what `TorchOps` does.
"""

import torch
from torch import Tensor

from treille.attention.few_rows import FewRowsAttention
from treille.attention.plan import AttentionPlan
from treille.kernels.dispatch import most_rows
from treille.kernels.linear import Gate, PackedLinear, PackedNorm, Project, Residual
from treille.kernels.team import shared_team
from treille.models.config import Activation
from treille.models.ops import Attend, AttentionLayer, Experts, KVStore, Linear, Norm, TorchOps
from treille.models.rope import Rotary

MOST_BLOCK_ROWS = 64  # rows of one block; beyond, torch's products over whole pieces are faster than the kernel


def short_blocks(plan: AttentionPlan) -> bool:
    """Whether attention of this forward is the kernel's: any number of decodes and draft trees, but no long prompt."""
    return plan.derive("short_blocks", lambda: all(b.end - b.begin <= MOST_BLOCK_ROWS for b in plan.blocks))


class CpuOps:
    """`Ops` by the CPU kernels, with `TorchOps` for what they do not cover.

    Prepared forms of the weights are kept beside them, one per use; the weights themselves are not copied.

    Args:
        attend: The attention function for many rows.
        dtype: Of the weights, and of keys and values.
    """

    def __init__(self, attend: Attend, dtype: torch.dtype) -> None:
        self._torch = TorchOps(attend)
        self._dtype = dtype
        self._limit = most_rows(dtype)
        shared_team()  # before the engine lowers torch's thread count around small steps
        # Keyed by identity; the objects are kept with the value, so that an id is never reused.
        self._norms: dict[int, tuple[PackedNorm, Norm]] = {}
        self._projects: dict[tuple[int, int], tuple[Project, object]] = {}
        self._residuals: dict[tuple[int, int], tuple[Residual, object]] = {}
        self._gates: dict[tuple[int, int], tuple[Gate, object]] = {}
        self._attentions: dict[int, FewRowsAttention | None] = {}

    def stream(self, x: Tensor) -> Tensor:
        """As `Ops.stream`: float32."""
        return x.float()

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        """As `Ops.norm`, float32."""
        if x.shape[0] > self._limit:
            return self._torch.norm(x, norm)
        found = self._norms.get(id(norm))
        if found is None:
            found = self._norms[id(norm)] = (
                PackedNorm.of(norm.kind, norm.weight, norm.bias, norm.eps, norm.offset),
                norm,
            )
        return found[0](x)

    def project(self, x: Tensor, norm: Norm | None, linear: Linear) -> Tensor:
        """As `Ops.project`, float32."""
        if x.shape[0] > self._limit:
            return self._torch.project(x.to(self._dtype), norm, linear).float()
        key = (id(linear), id(norm))
        found = self._projects.get(key)
        if found is None:
            found = self._projects[key] = (Project(packed_linear(linear), packed_norm(norm)), (linear, norm))
        return found[0](x.float())

    def attend(self, qkv: Tensor, layer: AttentionLayer, by: Rotary | None, kv: KVStore, plan: AttentionPlan) -> Tensor:
        """As `Ops.attend`, float32."""
        if short_blocks(plan):
            if layer.index not in self._attentions:
                self._attentions[layer.index] = attention_kernel(layer)
            kernel = self._attentions[layer.index]
            if kernel is not None:
                cos, sin = (None, None) if by is None else (by.cos, by.sin)
                return kernel(qkv, cos, sin, kv.keys[layer.index], kv.values[layer.index], plan)
        return self._torch.attend(qkv, layer, by, kv, plan)

    def residual(self, y: Tensor, linear: Linear, norm: Norm | None, x: Tensor, multiplier: float) -> Tensor:
        """As `Ops.residual`, float32."""
        if y.shape[0] > self._limit:
            branch = self._torch.project(y.to(self._dtype), None, linear)
            return self._torch.add(x, branch.float(), norm, multiplier)
        key = (id(linear), id(norm))
        found = self._residuals.get(key)
        if found is None:
            found = self._residuals[key] = (Residual(packed_linear(linear), packed_norm(norm)), (linear, norm))
        return found[0](y, x, multiplier)

    def gate(self, x: Tensor, norm: Norm | None, linear: Linear, activation: Activation, gated: bool) -> Tensor:
        """As `Ops.gate`, float32."""
        if x.shape[0] > self._limit:
            return self._torch.gate(x.to(self._dtype), norm, linear, activation, gated).float()
        key = (id(linear), id(norm))
        found = self._gates.get(key)
        if found is None:
            gate = Gate(packed_linear(linear), packed_norm(norm), activation, gated=gated)
            found = self._gates[key] = (gate, (linear, norm))
        return found[0](x)

    def experts(
        self, x: Tensor, norm: Norm | None, experts: Experts, activation: Activation, multiplier: float
    ) -> Tensor:
        """As `Ops.experts`, float32."""
        return self._torch.experts(x.to(self._dtype), norm, experts, activation, multiplier).float()


def packed_linear(linear: Linear) -> PackedLinear:
    """A linear layer as the kernels read it."""
    return PackedLinear.of(linear.weight, linear.bias)


def packed_norm(norm: Norm | None) -> PackedNorm | None:
    """A norm as the kernels read it."""
    return None if norm is None else PackedNorm.of(norm.kind, norm.weight, norm.bias, norm.eps, norm.offset)


def attention_kernel(layer: AttentionLayer) -> FewRowsAttention | None:
    """The kernel of one layer's attention, None where it has a norm that is not RMS per head."""
    eps, offset = 1e-6, 0.0
    for norm in (layer.q_norm, layer.k_norm):
        if norm is not None:
            if norm.kind != "rms" or norm.bias is not None or norm.weight.shape != (layer.head_dim,):
                return None
            eps, offset = norm.eps, norm.offset
    return FewRowsAttention(
        heads=layer.heads,
        kv_heads=layer.kv_heads,
        width=layer.head_dim,
        scale=layer.scale,
        window=layer.window,
        softcap=layer.softcap,
        q_norm=None if layer.q_norm is None else layer.q_norm.weight,
        k_norm=None if layer.k_norm is None else layer.k_norm.weight,
        eps=eps,
        offset=offset,
    )
