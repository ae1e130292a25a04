"""What a decoder computes, in the words of this package and without any family's file format.

Letters: V vocabulary, H hidden size, Hq query heads, Hkv key and value heads, D head dimension, I inner size of the
MLP, E experts.
"""

from dataclasses import dataclass, replace
from typing import Literal

from treille.errors import ParameterError

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
NormKind = Literal["rms", "layer"]


@dataclass(frozen=True, slots=True)
class Rope:
    """A rotary embedding, reduced to what the rotation needs; dimension i is paired with dimension i + rotated / 2.

    Attributes:
        kind: The Hugging Face ``rope_type`` that the frequencies come from, for display.
        theta: Base of the unscaled frequencies.
        frequencies: [rotated / 2] radians per position, scaling applied; float32 values. The dimensions of a head
            after the first ``2 * len(frequencies)`` are not rotated.
        magnitude: Factor of the rotated part (YaRN's and LongRoPE's attention factor).
        long_frequencies: LongRoPE's second set, for a context longer than `short_length`; empty for the other kinds.
        short_length: LongRoPE's original length in tokens, up to which `frequencies` hold; 0 for the other kinds.
    """

    kind: str
    theta: float
    frequencies: tuple[float, ...]
    magnitude: float = 1.0
    long_frequencies: tuple[float, ...] = ()
    short_length: int = 0


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """A mixture of experts in the place of one layer's MLP.

    Attributes:
        count: E.
        top_k: Experts per row.
        normalize: Whether the weights of the chosen experts are scaled to sum to one.
        intermediate: I of each expert.
    """

    count: int
    top_k: int
    normalize: bool
    intermediate: int


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What may differ from layer to layer.

    Attributes:
        rope: Rotary embedding, or None for a layer without positions.
        scale: Factor of the attention scores.
        window: Sliding window W in positions: a row at position t sees positions > t - W. None: the whole context.
        experts: The mixture of experts, or None for a plain MLP.
    """

    rope: Rope | None
    scale: float
    window: int | None = None
    experts: ExpertsConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The mathematics of one decoder.

    Attributes:
        family: Name of the family file that the checkpoint was read by.
        vocab_size: V.
        hidden: H.
        intermediate: I of the layers without experts.
        heads: Hq.
        kv_heads: Hkv, a divisor of `heads`.
        head_dim: D.
        layers: One entry per layer.
        context_length: Longest sequence in tokens that the positions are defined for.
        norm_kind: Kind of all norms.
        norm_eps: Epsilon of all norms.
        norm_offset: Added to the norms' weights (1.0 in Gemma).
        pre_norm: A norm before attention and MLP.
        post_norm: A norm after attention and MLP, before the residual sum.
        qk_norm: Norm of queries and keys: of each head, of the whole projection, or none.
        qkv_bias: Bias of the query, key and value projection.
        out_bias: Bias of the attention's output projection.
        mlp_bias: Bias of the MLP's projections.
        gated: ``act(gate) * up`` instead of ``act(up)``.
        activation: The MLP's nonlinearity.
        parallel_residual: Attention and MLP read the same residual stream.
        learned_positions: A learned position embedding is added to the token embedding.
        tie_embeddings: The output projection is the token embedding.
        embedding_multiplier: Factor of the token embedding.
        round_embedding_multiplier: Whether that factor is first rounded to the model's dtype (Gemma).
        residual_multiplier: Factor of what attention and MLP add to the residual stream.
        attention_softcap: c in ``c * tanh(scores / c)``.
        logit_divisor: The logits are divided by it.
        logit_softcap: c in ``c * tanh(logits / c)``, after the division.
    """

    family: str
    vocab_size: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: tuple[LayerConfig, ...]
    context_length: int
    norm_kind: NormKind = "rms"
    norm_eps: float
    norm_offset: float = 0.0
    pre_norm: bool = True
    post_norm: bool = False
    qk_norm: Literal["head", "projection"] | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    gated: bool = True
    activation: Activation
    parallel_residual: bool = False
    learned_positions: bool = False
    tie_embeddings: bool
    embedding_multiplier: float = 1.0
    round_embedding_multiplier: bool = False
    residual_multiplier: float = 1.0
    attention_softcap: float | None = None
    logit_divisor: float = 1.0
    logit_softcap: float | None = None

    def with_context(self, length: int | None) -> "DecoderConfig":
        """The same decoder for sequences of up to `length` tokens; by default the longest that one rotation serves.

        Under LongRoPE the rotation of every token depends on whether the sequence is longer than the original length,
        so a cache that grows over it would have to be rebuilt. The choice is made here instead, once: up to the
        original length the short set is used, and the results are those of `transformers`; a longer context uses the
        long set for all rows, also of short prompts.

        Args:
            length: Tokens; None for the original length under LongRoPE, else for all positions.

        Raises:
            ParameterError: `length` is not within 1..`context_length`.
        """
        short = min(
            (layer.rope.short_length for layer in self.layers if layer.rope and layer.rope.short_length), default=0
        )
        chosen = (min(short, self.context_length) if short else self.context_length) if length is None else length
        if not 1 <= chosen <= self.context_length:
            raise ParameterError(
                f"context_length = {length}: the checkpoint's positions end at {self.context_length}; "
                f"choose from 1..{self.context_length}"
            )
        if not short or chosen <= short:
            return replace(self, context_length=chosen)
        layers = tuple(replace(layer, rope=layer.rope and _long(layer.rope)) for layer in self.layers)
        return replace(self, context_length=chosen, layers=layers)


def _long(rope: Rope) -> Rope:
    """The rotation beyond the original length."""
    return replace(rope, frequencies=rope.long_frequencies or rope.frequencies)
