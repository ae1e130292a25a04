"""Builds a decoder's weights from a checkpoint's tensors: checks every shape, and fuses projections that share input.

Letters: H hidden size, Hq query heads, Hkv key and value heads, D head dimension, I inner size, E experts,
V vocabulary, K inputs and N outputs of a linear layer.
"""

import torch
from torch import Tensor

from treille.errors import CheckpointError
from treille.models.config import DecoderConfig, ExpertsConfig
from treille.models.decoder import Layer, Mlp, Weights
from treille.models.families.base import Layout
from treille.models.ops import AttentionLayer, Experts, Linear, Norm
from treille.models.tensors import TensorSource


def build_weights(config: DecoderConfig, layout: Layout, source: TensorSource) -> Weights:
    """All weights of a decoder; every tensor of the checkpoint is accounted for.

    Raises:
        CheckpointError: A tensor is missing, has another shape or dtype, or is left over.
    """
    base = next((base for base in layout.bases if source.has(f"{base}{layout.embedding}.weight")), layout.bases[0])
    vocabulary = (config.vocab_size, config.hidden)
    embedding = source.take(f"{base}{layout.embedding}.weight", vocabulary)
    positions = None
    if config.learned_positions:
        positions = source.take(f"{base}{layout.positions}.weight", (config.context_length, config.hidden))
    builder = _LayerBuilder(config, layout, source, base)
    weights = Weights(
        embedding=embedding,
        positions=positions,
        layers=tuple(builder.layer(index) for index in range(len(config.layers))),
        final_norm=builder.norm(base + layout.final_norm, config.hidden),
        head=Linear(_head(config, layout, source, embedding)),
    )
    source.refuse_leftovers(layout.ignorable)
    return weights


def _head(config: DecoderConfig, layout: Layout, source: TensorSource, embedding: Tensor) -> Tensor:
    """The output projection; where it is tied and stored all the same, the two must be equal."""
    name = next((name for name in layout.heads if source.has(f"{name}.weight")), layout.heads[0]) + ".weight"
    if not config.tie_embeddings:
        return source.take(name, (config.vocab_size, config.hidden))
    if source.has(name) and not torch.equal(source.take(name, (config.vocab_size, config.hidden)), embedding):
        raise CheckpointError(
            f"{source.where}: tensor {name} differs from the embedding, but tie_word_embeddings is true; "
            "set it to false in config.json if the two are meant to differ"
        )
    return embedding


class _LayerBuilder:
    """Builds layers of one checkpoint."""

    def __init__(self, config: DecoderConfig, layout: Layout, source: TensorSource, base: str) -> None:
        self.config = config
        self.layout = layout
        self.source = source
        self.base = base
        ropes = dict.fromkeys(layer.rope for layer in config.layers if layer.rope is not None)
        self.rope_index = {rope: index for index, rope in enumerate(ropes)}

    def layer(self, index: int) -> Layer:
        """The weights of one layer."""
        config, layout = self.config, self.layout
        prefix = self.base + layout.layer.format(index)
        what = config.layers[index]
        width = config.heads * config.head_dim

        def norm(name: str, present: bool) -> Norm | None:
            return self.norm(prefix + name, config.hidden) if present else None

        return Layer(
            attention_norm=norm(layout.attention_norm, config.pre_norm),
            qkv=self._qkv(prefix),
            attention=self._attention(prefix, index),
            rope=None if what.rope is None else self.rope_index[what.rope],
            out=self._linear(prefix, (layout.out,), (config.hidden,), width, config.out_bias),
            post_attention_norm=norm(layout.post_attention_norm, config.post_norm),
            mlp_norm=norm(layout.mlp_norm, config.pre_norm),
            mlp=self._mlp(prefix) if what.experts is None else self._experts(prefix, what.experts),
            post_mlp_norm=norm(layout.post_mlp_norm, config.post_norm),
        )

    def norm(self, name: str, size: int) -> Norm:
        """A norm of `size` values; layer norms have a bias, RMS norms have none."""
        bias = self.source.take(f"{name}.bias", (size,)) if self.config.norm_kind == "layer" else None
        weight = self.source.take(f"{name}.weight", (size,))
        return Norm(self.config.norm_kind, weight, bias, self.config.norm_eps, self.config.norm_offset)

    def _attention(self, prefix: str, index: int) -> AttentionLayer:
        config = self.config
        what = config.layers[index]
        q_norm = k_norm = None
        if config.qk_norm is not None:
            whole = config.qk_norm == "projection"
            q_size, k_size = (config.head_dim * (count if whole else 1) for count in (config.heads, config.kv_heads))
            q_norm = self.norm(prefix + self.layout.q_norm, q_size)
            k_norm = self.norm(prefix + self.layout.k_norm, k_size)
        return AttentionLayer(
            index=index,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            scale=what.scale,
            window=what.window,
            softcap=config.attention_softcap,
            q_norm=q_norm,
            k_norm=k_norm,
        )

    def _qkv(self, prefix: str) -> Linear:
        config = self.config
        sizes = tuple(count * config.head_dim for count in (config.heads, config.kv_heads, config.kv_heads))
        fused = self._linear(prefix, self.layout.qkv, sizes, config.hidden, config.qkv_bias)
        if not self.layout.qkv_by_head:
            return fused

        def by_kind(stored: Tensor) -> Tensor:
            heads = stored.view(config.heads, 3, config.head_dim, -1)
            return heads.transpose(0, 1).reshape(stored.shape).contiguous()

        return Linear(by_kind(fused.weight), None if fused.bias is None else by_kind(fused.bias))

    def _mlp(self, prefix: str) -> Mlp:
        config, layout = self.config, self.layout
        outer = (config.intermediate,) * (2 if config.gated else 1)
        return Mlp(
            gate_up=self._linear(prefix, layout.gate_up, outer, config.hidden, config.mlp_bias),
            down=self._linear(prefix, (layout.down,), (config.hidden,), config.intermediate, config.mlp_bias),
        )

    def _experts(self, prefix: str, what: ExpertsConfig) -> Experts:
        hidden, outer = self.config.hidden, (what.intermediate, what.intermediate)
        names = [prefix + self.layout.expert.format(expert) for expert in range(what.count)]
        gate_up = [self._linear(name, self.layout.expert_gate_up, outer, hidden, bias=False).weight for name in names]
        down = [self.source.take(f"{name}{self.layout.expert_down}.weight", (hidden, outer[0])) for name in names]
        return Experts(
            router=self._linear(prefix, (self.layout.router,), (what.count,), hidden, bias=False),
            gate_up=torch.stack(gate_up),
            down=torch.stack(down),
            top_k=what.top_k,
            normalize=what.normalize,
        )

    def _linear(self, prefix: str, names: tuple[str, ...], sizes: tuple[int, ...], inner: int, bias: bool) -> Linear:
        """One linear layer of all names: [sum of sizes, inner]; one name may hold all sizes."""
        outer = sizes if len(names) == len(sizes) else (sum(sizes),)
        assert len(names) == len(outer)
        weights = [self._weight(f"{prefix}{name}.weight", n, inner) for name, n in zip(names, outer, strict=True)]
        biases = [self.source.take(f"{prefix}{name}.bias", (n,)) for name, n in zip(names, outer, strict=True) if bias]
        return Linear(_joined(weights), _joined(biases) if bias else None)

    def _weight(self, name: str, outer: int, inner: int) -> Tensor:
        if self.layout.transposed:
            return self.source.take(name, (inner, outer)).t().contiguous()
        return self.source.take(name, (outer, inner))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
