"""What the family files share: the description of a family, and the reading of the keys that most of them have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from treille.models.config import Activation, DecoderConfig, LayerConfig, Rope
from treille.models.reader import ConfigReader
from treille.models.rope import RopeContext

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Names of a family's tensors, without the final ``.weight`` and ``.bias``; the defaults are Llama's.

    Attributes:
        bases: What stands before the names of the body; the first one under which the embedding is found is taken.
        embedding: Token embedding.
        positions: Learned positions.
        layer: Before the names of one layer; ``{}`` is the layer.
        final_norm: Before the output projection.
        heads: Names that the output projection may have; they stand outside the body.
        attention_norm: Before attention.
        post_attention_norm: After attention.
        mlp_norm: Before the MLP.
        post_mlp_norm: After the MLP.
        q_norm: Of the queries.
        k_norm: Of the keys.
        qkv: Three projections, or one that holds queries, keys and values one after the other.
        qkv_by_head: The one projection holds them head by head instead (GPT-NeoX).
        out: Output projection of attention.
        gate_up: Two projections, or one that holds both, gates first; or the only one when not gated.
        down: Output projection of the MLP.
        router: Router of the experts.
        expert: Before the names of one expert; ``{}`` is the expert.
        expert_gate_up: Two projections of one expert.
        expert_down: Output projection of one expert.
        transposed: Weights are stored [K, N] (GPT-2).
        ignorable: Patterns of tensors that no decoder needs, such as stored rotary frequencies and masks.
    """

    bases: tuple[str, ...] = ("model.",)
    embedding: str = "embed_tokens"
    positions: str | None = None
    layer: str = "layers.{}."
    final_norm: str = "norm"
    heads: tuple[str, ...] = ("lm_head",)
    attention_norm: str = "input_layernorm"
    post_attention_norm: str = ""
    mlp_norm: str = "post_attention_layernorm"
    post_mlp_norm: str = ""
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    qkv_by_head: bool = False
    out: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    router: str = "mlp.gate"
    expert: str = "mlp.experts.{}."
    expert_gate_up: tuple[str, str] = ("gate_proj", "up_proj")
    expert_down: str = "down_proj"
    transposed: bool = False
    ignorable: tuple[str, ...] = (r"rotary_emb\.inv_freq$",)


@dataclass(frozen=True, slots=True)
class Family:
    """One family of checkpoints.

    Attributes:
        name: Of the family file.
        architectures: Values of ``architectures[0]``.
        model_type: Value of ``model_type``, for a configuration without ``architectures``.
        read: From ``config.json`` to what is computed.
        layout: Names of the tensors.
    """

    name: str
    architectures: tuple[str, ...]
    model_type: str
    read: Callable[[ConfigReader], DecoderConfig]
    layout: Layout


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that every configuration names: layers, H, Hq, Hkv, D, and the number of positions."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    positions: int


def read_sizes(reader: ConfigReader, *, needs_kv_heads: bool = True, needs_head_dim: bool = False) -> Sizes:
    """The sizes under their usual keys.

    Args:
        reader: The configuration.
        needs_kv_heads: False where an absent ``num_key_value_heads`` means ``num_attention_heads``.
        needs_head_dim: False where an absent ``head_dim`` means ``hidden_size / num_attention_heads``.

    Raises:
        CheckpointError: A key is missing or the sizes do not fit together.
    """
    hidden, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    kv_heads = reader.integer("num_key_value_heads", missing=None if needs_kv_heads else heads)
    if heads % kv_heads:
        raise reader.refusal("num_key_value_heads", f"must divide num_attention_heads = {heads}")
    if not needs_head_dim and not reader.has("head_dim") and hidden % heads:
        raise reader.refusal("num_attention_heads", f"must divide hidden_size = {hidden}, as there is no head_dim")
    head_dim = reader.integer("head_dim", missing=None if needs_head_dim else hidden // heads)
    layers, positions = reader.integer("num_hidden_layers"), reader.integer("max_position_embeddings")
    return Sizes(layers, hidden, heads, kv_heads, head_dim, positions)


def rope_context(reader: ConfigReader, sizes: Sizes) -> RopeContext:
    """What the rotary rules need besides their own keys."""
    return RopeContext(sizes.head_dim, sizes.positions, reader.optional_integer("original_max_position_embeddings"))


def read_decoder(
    reader: ConfigReader,
    sizes: Sizes,
    family: str,
    layers: Sequence[LayerConfig],
    *,
    tied: bool,
    act: str = "hidden_act",
) -> DecoderConfig:
    """A Llama-like decoder; families replace what is different in theirs.

    Args:
        reader: The configuration.
        sizes: As read from it.
        family: Name of the family file.
        layers: One entry per layer.
        tied: What an absent ``tie_word_embeddings`` means in this family (`transformers` leaves out its defaults).
        act: Key of the activation.

    Raises:
        CheckpointError: A key is missing or has a value that is not supported.
    """
    return DecoderConfig(
        family=family,
        vocab_size=reader.integer("vocab_size"),
        hidden=sizes.hidden,
        intermediate=reader.integer("intermediate_size"),
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        layers=tuple(layers),
        context_length=sizes.positions,
        norm_eps=reader.positive("rms_norm_eps"),
        activation=reader.choice(act, ACTIVATIONS),
        tie_embeddings=reader.flag("tie_word_embeddings", missing=tied),
    )


def plain_layers(sizes: Sizes, rope: Rope | None, windows: Sequence[int | None] | None = None) -> list[LayerConfig]:
    """Layers that differ in their windows only, with scores scaled by ``1 / sqrt(D)``."""
    spans = windows or [None] * sizes.layers
    return [LayerConfig(rope=rope, scale=sizes.head_dim**-0.5, window=window) for window in spans]


def sliding_layers(reader: ConfigReader, sizes: Sizes, missing: Sequence[bool] | None) -> list[bool]:
    """For each layer whether it slides, from ``layer_types``.

    Args:
        reader: The configuration.
        sizes: As read from it.
        missing: What an absent ``layer_types`` means in this family; None where the key is required.

    Raises:
        CheckpointError: A layer's type is not supported, or their number is not the number of layers.
    """
    if missing is not None and not reader.has("layer_types"):
        return list(missing)
    types = reader.sequence("layer_types", str)
    if len(types) != sizes.layers or not set(types) <= {"sliding_attention", "full_attention"}:
        raise reader.refusal(
            "layer_types", f"must name sliding_attention or full_attention for each of {sizes.layers} layers"
        )
    return [kind == "sliding_attention" for kind in types]


def optional_windows(reader: ConfigReader, sizes: Sizes) -> list[int | None]:
    """The windows of families where ``use_sliding_window`` lets the layers from ``max_window_layers`` on slide."""
    # A window that is switched off is written in most of these files; the keys count as read.
    if not reader.flag("use_sliding_window", missing=False):
        reader.has("sliding_window")
        if any(sliding_layers(reader, sizes, [False] * sizes.layers)):
            raise reader.refusal("layer_types", "contradicts use_sliding_window = false")
        return [None] * sizes.layers
    window = reader.integer("sliding_window")
    if reader.has("layer_types"):
        slides = sliding_layers(reader, sizes, None)
    else:
        slides = [index >= reader.integer("max_window_layers") for index in range(sizes.layers)]
    return [window if slide else None for slide in slides]
