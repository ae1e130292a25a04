"""The operations that a decoder layer is written with, and their specification in plain torch.

Letters: R rows, H hidden size, Hq query heads, Hkv key and value heads, D head dimension, I inner size of the MLP,
E experts, S slots, K inputs and N outputs of a linear layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from treille.attention.plan import AttentionPlan
from treille.models.config import Activation, NormKind
from treille.models.rope import Rotary, rotate


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight.T + bias``: weight [N, K], bias [N] or None."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm over the last dimension.

    Attributes:
        kind: "rms" or "layer".
        weight: [K].
        bias: [K] or None.
        eps: Added to the mean square (rms) or the variance (layer).
        offset: Added to the weight (1.0 in Gemma, which stores the difference from one).
    """

    kind: NormKind
    weight: Tensor
    bias: Tensor | None
    eps: float
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One layer's attention, without its projections.

    Attributes:
        index: The layer, which is also where its keys and values are in the store.
        heads: Hq.
        kv_heads: Hkv.
        head_dim: D.
        scale: Factor of the scores.
        window: Sliding window in positions, or None.
        softcap: c in ``c * tanh(scores / c)``, or None.
        q_norm: Norm of the queries: of each head where its weight is [D], of all heads together where it is [Hq * D].
        k_norm: The same for the keys.
    """

    index: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    q_norm: Norm | None = None
    k_norm: Norm | None = None


@dataclass(frozen=True, slots=True)
class Experts:
    """The weights of a mixture of gated experts without biases.

    Attributes:
        router: weight [E, H].
        gate_up: [E, 2 * I, H], the gates first.
        down: [E, H, I].
        top_k: Experts per row.
        normalize: Whether the chosen experts' weights are scaled to sum to one.
    """

    router: Linear
    gate_up: Tensor
    down: Tensor
    top_k: int
    normalize: bool


class KVStore(Protocol):
    """Keys and values by layer, each [Hkv, S, D] in the model's dtype; the engine's pool is one."""

    @property
    def keys(self) -> Sequence[Tensor]:
        """One [Hkv, S, D] per layer; keys are stored after rotation."""
        ...

    @property
    def values(self) -> Sequence[Tensor]:
        """One [Hkv, S, D] per layer."""
        ...


class Attend(Protocol):
    """Attention of the rows of a forward to their contexts; see `treille.attention.reference.attend`."""

    def __call__(
        self,
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
        """[R, Hq, D] in q's dtype; k and v are in the store already, at the plan's slots."""
        ...


class Ops(Protocol):
    """What a decoder layer needs; a build for one device may fuse each of them."""

    def stream(self, x: Tensor) -> Tensor:
        """[R, H]: the embeddings in the dtype of the residual stream."""
        ...

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        """[R, H]: ``norm(x)``."""
        ...

    def project(self, x: Tensor, norm: Norm | None, linear: Linear) -> Tensor:
        """[R, N]: ``linear(norm(x))``."""
        ...

    def attend(self, qkv: Tensor, layer: AttentionLayer, by: Rotary | None, kv: KVStore, plan: AttentionPlan) -> Tensor:
        """[R, Hq * D]: q and k normed and rotated, k and v written to the store, attention."""
        ...

    def residual(self, y: Tensor, linear: Linear, norm: Norm | None, x: Tensor, multiplier: float) -> Tensor:
        """[R, H]: ``x + multiplier * norm(linear(y))``."""
        ...

    def gate(self, x: Tensor, norm: Norm | None, linear: Linear, activation: Activation, gated: bool) -> Tensor:
        """[R, I]: ``act(gate) * up`` of ``gate, up = linear(norm(x))``, or ``act(linear(norm(x)))`` when not gated."""
        ...

    def experts(
        self, x: Tensor, norm: Norm | None, experts: Experts, activation: Activation, multiplier: float
    ) -> Tensor:
        """[R, H]: ``x + multiplier * (weighted sum of the chosen experts of norm(x))``."""
        ...


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


def normalize(x: Tensor, norm: Norm) -> Tensor:
    """The norm of x over its last dimension, computed in float32, in x's dtype."""
    weight = norm.weight.float() + norm.offset if norm.offset else norm.weight.float()
    shape = weight.shape
    if norm.kind == "rms":
        wide = F.rms_norm(x.float(), shape, weight, norm.eps)
        if norm.bias is not None:
            wide = wide + norm.bias.float()
    else:
        wide = F.layer_norm(x.float(), shape, weight, None if norm.bias is None else norm.bias.float(), norm.eps)
    return wide.to(x.dtype)


class TorchOps:
    """The operations in plain torch, for any number of rows, dtype and device: the specification of the other builds.

    Args:
        attend: The attention function.
    """

    def __init__(self, attend: Attend) -> None:
        self._attend = attend

    def stream(self, x: Tensor) -> Tensor:
        """As `Ops.stream`: the model's dtype."""
        return x

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        """As `Ops.norm`."""
        return normalize(x, norm)

    def project(self, x: Tensor, norm: Norm | None, linear: Linear) -> Tensor:
        """As `Ops.project`."""
        return F.linear(x if norm is None else normalize(x, norm), linear.weight, linear.bias)

    def attend(self, qkv: Tensor, layer: AttentionLayer, by: Rotary | None, kv: KVStore, plan: AttentionPlan) -> Tensor:
        """As `Ops.attend`."""
        heads = qkv.view(qkv.shape[0], -1, layer.head_dim)
        q = heads[:, : layer.heads]
        k, v = heads[:, layer.heads : layer.heads + layer.kv_heads], heads[:, layer.heads + layer.kv_heads :]
        q, k = norm_heads(q, layer.q_norm), norm_heads(k, layer.k_norm)
        if by is not None:
            q, k = rotate(q, by), rotate(k, by)
        keys, values = kv.keys[layer.index], kv.values[layer.index]
        k, v = k.to(keys.dtype), v.to(values.dtype)  # rows see each other as later forwards will see them
        keys.index_copy_(1, plan.slots, k.transpose(0, 1))
        values.index_copy_(1, plan.slots, v.transpose(0, 1))
        k, v = k.to(q.dtype), v.to(q.dtype)
        out = self._attend(q, k, v, keys, values, plan, scale=layer.scale, window=layer.window, softcap=layer.softcap)
        return out.reshape(out.shape[0], -1)

    def residual(self, y: Tensor, linear: Linear, norm: Norm | None, x: Tensor, multiplier: float) -> Tensor:
        """As `Ops.residual`."""
        return self.add(x, self.project(y, None, linear), norm, multiplier)

    def add(self, x: Tensor, y: Tensor, norm: Norm | None, multiplier: float) -> Tensor:
        """[R, H]: ``x + multiplier * norm(y)``."""
        return _add(x, y if norm is None else normalize(y, norm), multiplier)

    def gate(self, x: Tensor, norm: Norm | None, linear: Linear, activation: Activation, gated: bool) -> Tensor:
        """As `Ops.gate`."""
        return _activate(self.project(x, norm, linear), activation, gated)

    def experts(
        self, x: Tensor, norm: Norm | None, experts: Experts, activation: Activation, multiplier: float
    ) -> Tensor:
        """As `Ops.experts`."""
        y = x if norm is None else normalize(x, norm)
        shares = F.linear(y, experts.router.weight, experts.router.bias).softmax(-1, dtype=torch.float32)
        shares, chosen = shares.topk(experts.top_k, dim=-1)
        if experts.normalize:
            shares = shares / shares.sum(-1, keepdim=True)
        mixed = torch.zeros(y.shape, dtype=torch.float32, device=y.device)
        for expert in torch.unique(chosen).tolist():
            rows, rank = torch.where(chosen == expert)
            inner = _activate(F.linear(y[rows], experts.gate_up[expert]), activation, gated=True)
            share = shares[rows, rank].unsqueeze(1)
            mixed.index_add_(0, rows, F.linear(inner, experts.down[expert]).float() * share)
        return _add(x, mixed.to(x.dtype), multiplier)


def norm_heads(x: Tensor, norm: Norm | None) -> Tensor:
    """[R, heads, D] normed in groups of as many values as the norm has weights: a head, or all heads."""
    return x if norm is None else normalize(x.reshape(x.shape[0], -1, norm.weight.shape[0]), norm).view(x.shape)


def _activate(y: Tensor, activation: Activation, gated: bool) -> Tensor:
    if not gated:
        return _ACTIVATIONS[activation](y)
    gate, up = y.chunk(2, dim=-1)
    return _ACTIVATIONS[activation](gate) * up


def _add(x: Tensor, y: Tensor, multiplier: float) -> Tensor:
    return x + y if multiplier == 1.0 else x + y * multiplier
