"""The generic decoder: one class for every family that a family file can describe.

Letters: R rows, n rows whose logits are wanted, H hidden size, V vocabulary, P learned positions.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from treille.attention.plan import AttentionPlan
from treille.errors import ParameterError
from treille.models.config import DecoderConfig
from treille.models.ops import AttentionLayer, Experts, KVStore, Linear, Norm, Ops, norm_heads
from treille.models.rope import Rotary, rotary, rotate
from treille.requests import Layers

_ALL = Layers()


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the engine needs to know of a model.

    Attributes:
        vocab_size: V.
        hidden: H.
        layers: Number of layers, which is also the number of entries of the KV store.
        kv_heads: Key and value heads of every layer.
        head_dim: Dimension of every head.
        context_length: Longest sequence in tokens.
        last_boundary: The last layer boundary whose hidden states can be had.
        dtype: Of the weights, and of keys and values.
        device: Of the weights.
        layer_access: Whether forwards can leave out layers.
    """

    vocab_size: int
    hidden: int
    layers: int
    kv_heads: int
    head_dim: int
    context_length: int
    last_boundary: int
    dtype: torch.dtype
    device: torch.device
    layer_access: bool = False


class LanguageModel(Protocol):
    """What the engine calls: the generic decoder, and the adapter for models of `transformers`."""

    @property
    def shape(self) -> ModelShape:
        """Sizes, dtype and device."""
        ...

    def forward(self, tokens: Tensor, kv: KVStore, plan: AttentionPlan) -> Tensor:
        """[R, H]: hidden states after the final norm; writes the rows' keys and values to the plan's slots."""
        ...

    def forward_hidden(
        self, tokens: Tensor, kv: KVStore, plan: AttentionPlan, boundaries: Collection[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """`forward`, and the rows' hidden states at layer boundaries: b is before layer b, 0 the embeddings."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, V] float32 from hidden states [n, H] after the final norm."""
        ...


@dataclass(frozen=True, slots=True)
class Mlp:
    """The weights of an MLP: `gate_up` [2 * I, H] with the gates first, or [I, H] when not gated; `down` [H, I]."""

    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights; a norm that the family does not have is None.

    Attributes:
        attention_norm: Before attention.
        qkv: [(Hq + 2 * Hkv) * D, H]: queries, keys, values.
        attention: What lies between the projections.
        rope: Which of the decoder's rotary embeddings, or None.
        out: [H, Hq * D].
        post_attention_norm: After attention.
        mlp_norm: Before the MLP.
        mlp: An MLP or a mixture of experts.
        post_mlp_norm: After the MLP.
    """

    attention_norm: Norm | None
    qkv: Linear
    attention: AttentionLayer
    rope: int | None
    out: Linear
    post_attention_norm: Norm | None
    mlp_norm: Norm | None
    mlp: Mlp | Experts
    post_mlp_norm: Norm | None


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a decoder.

    Attributes:
        embedding: [V, H].
        positions: [P, H] learned positions, or None.
        layers: One entry per layer.
        final_norm: Before the output projection.
        head: [V, H]; shares memory with `embedding` when tied.
    """

    embedding: Tensor
    positions: Tensor | None
    layers: tuple[Layer, ...]
    final_norm: Norm
    head: Linear


class Stack(Protocol):
    """Ranges of layers in one go; gives what the decoder's loop over the same layers gives."""

    def takes(self, plan: AttentionPlan) -> bool:
        """Whether it runs this forward."""
        ...

    def run(
        self, start: int, stop: int, x: Tensor, rotaries: Sequence[Rotary], kv: KVStore, plan: AttentionPlan,
        layers: Layers,
    ) -> Tensor:  # fmt: skip
        """[R, H]: the residual stream after layers `start … stop - 1`, without what `layers` skips of them."""
        ...


class Decoder:
    """A decoder with its weights; keeps no state between forwards.

    Args:
        config: What it computes.
        weights: In one dtype, on one device.
        ops: The operations its layers are written with; the attribute may be replaced at any time.

    Attributes:
        stack: Runs ranges of layers in one go where it takes the forward; None: always operation by operation.
    """

    def __init__(self, config: DecoderConfig, weights: Weights, ops: Ops) -> None:
        self.config = config
        self.weights = weights
        self.ops = ops
        self.stack: Stack | None = None
        self.shape = ModelShape(
            vocab_size=config.vocab_size,
            hidden=config.hidden,
            layers=len(config.layers),
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            context_length=config.context_length,
            last_boundary=len(config.layers),
            dtype=weights.embedding.dtype,
            device=weights.embedding.device,
            layer_access=True,
        )
        device = weights.embedding.device
        self._ropes = [
            (torch.tensor(rope.frequencies, dtype=torch.float32, device=device), rope.magnitude)
            for rope in dict.fromkeys(layer.rope for layer in config.layers)
            if rope is not None
        ]
        multiplier = config.embedding_multiplier
        if config.round_embedding_multiplier:
            multiplier = torch.tensor(multiplier, dtype=self.shape.dtype).item()
        self._embedding_multiplier = multiplier

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """[R, H]: the input of layer 0.

        Args:
            tokens: [R] int64.
            positions: [R] int64.
        """
        x = F.embedding(tokens, self.weights.embedding)
        if self._embedding_multiplier != 1.0:
            x = x * self._embedding_multiplier
        if self.weights.positions is not None:
            x = x + F.embedding(positions, self.weights.positions)
        return x

    def forward(self, tokens: Tensor, kv: KVStore, plan: AttentionPlan) -> Tensor:
        """[R, H]: hidden states after the final norm; writes the rows' keys and values to the plan's slots.

        Args:
            tokens: [R] int64.
            kv: The keys and values that the plan's slots point into.
            plan: Positions, slots and contexts of the rows.
        """
        return self.forward_hidden(tokens, kv, plan, ())[0]

    def forward_hidden(
        self,
        tokens: Tensor,
        kv: KVStore,
        plan: AttentionPlan,
        boundaries: Collection[int],
        layers: Layers = _ALL,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """`forward`, and the rows' hidden states [R, H] at each of the layer boundaries.

        Args:
            tokens: [R] int64.
            kv: The keys and values that the plan's slots point into.
            plan: Positions, slots and contexts of the rows.
            boundaries: Within 0..L: b is the input of layer b, 0 the embeddings, L the input of the final norm.
            layers: What runs of the L layers; with an early exit the last boundary is where it stops.

        Raises:
            ParameterError: A boundary is outside 0..L, or beyond the exit.
        """
        last = self.shape.layers if layers.stop is None else layers.stop
        check_boundaries(boundaries, last)
        rotaries = [rotary(frequencies, magnitude, plan.positions) for frequencies, magnitude in self._ropes]
        kept: dict[int, Tensor] = {}
        x = self.ops.stream(self.embed(tokens, plan.positions))
        start = 0
        for boundary in sorted({*boundaries, last}):
            x = self._layers(start, boundary, x, rotaries, kv, plan, layers)
            start = boundary
            if boundary in boundaries:
                kept[boundary] = x.clone()  # the next layers may reuse this memory
        return self.finish(x), kept

    def finish(self, x: Tensor) -> Tensor:
        """[n, H]: the final norm of the residual stream, wherever it stops."""
        return self.ops.norm(x, self.weights.final_norm)

    def _layers(
        self, start: int, stop: int, x: Tensor, rotaries: Sequence[Rotary], kv: KVStore, plan: AttentionPlan,
        layers: Layers,
    ) -> Tensor:  # fmt: skip
        """The residual stream after layers `start … stop - 1`, without what `layers` skips of them."""
        if self.stack is not None and self.stack.takes(plan):
            return self.stack.run(start, stop, x, rotaries, kv, plan, layers)
        for layer in self.weights.layers[start:stop]:
            x = self._run(layer, x, None if layer.rope is None else rotaries[layer.rope], kv, plan, layers)
        return x

    def queries(self, layer: int, x: Tensor, positions: Tensor) -> Tensor:
        """[R, Hq, D] float32: a layer's queries, normed and rotated.

        Args:
            layer: Which.
            x: [R, H] the layer's input.
            positions: [R] int64.
        """
        part = self.weights.layers[layer]
        qkv = self.ops.project(x, part.attention_norm, part.qkv)
        q = qkv.view(x.shape[0], -1, part.attention.head_dim)[:, : part.attention.heads]
        q = norm_heads(q.float(), part.attention.q_norm)
        return q if part.rope is None else rotate(q, rotary(*self._ropes[part.rope], positions))

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, V] float32.

        Args:
            hidden: [n, H] after the final norm.
        """
        logits = self.ops.project(hidden, None, self.weights.head).float()
        if self.config.logit_divisor != 1.0:
            logits = logits / self.config.logit_divisor
        cap = self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _run(
        self, layer: Layer, x: Tensor, by: Rotary | None, kv: KVStore, plan: AttentionPlan, layers: Layers
    ) -> Tensor:
        """One layer, or those of its two halves that are not skipped."""
        ops, config, entering = self.ops, self.config, x
        multiplier = config.residual_multiplier
        if layer.attention.index not in layers.skip_attention:
            qkv = ops.project(x, layer.attention_norm, layer.qkv)
            context = ops.attend(qkv, layer.attention, by, kv, plan)
            x = ops.residual(context, layer.out, layer.post_attention_norm, x, multiplier)
        if layer.attention.index in layers.skip_mlp:
            return x
        if isinstance(layer.mlp, Experts):
            return ops.experts(x, layer.mlp_norm, layer.mlp, config.activation, multiplier)
        source = entering if config.parallel_residual else x
        inner = ops.gate(source, layer.mlp_norm, layer.mlp.gate_up, config.activation, config.gated)
        return ops.residual(inner, layer.mlp.down, layer.post_mlp_norm, x, multiplier)


def check_boundaries(boundaries: Collection[int], last: int) -> None:
    """Returns only if all boundaries are within 0..last.

    Raises:
        ParameterError: One is not.
    """
    for boundary in boundaries:
        if not 0 <= boundary <= last:
            raise ParameterError(f"layer boundary {boundary}: this model's boundaries are 0..{last}")
