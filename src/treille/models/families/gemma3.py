"""Gemma 3, text: Gemma 2 with norms on queries and keys instead of soft caps, and a rotary embedding per layer type.

Of the checkpoints with images the text part is read; their vision tensors are left alone.
"""

from dataclasses import replace

from treille.models.config import DecoderConfig, LayerConfig, Rope
from treille.models.families.base import Family, Layout, Sizes, read_decoder, read_sizes, rope_context, sliding_layers
from treille.models.families.gemma2 import LAYOUT, gemma
from treille.models.reader import ConfigReader
from treille.models.rope import merged_rope, read_rope_object

# The checkpoints with images write only what differs from these values, which are the format's.
_TEXT_DEFAULTS = {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_GLOBAL_THETA, _LOCAL_THETA = 1_000_000.0, 10_000.0


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Gemma 3 text configuration describes."""
    sizes = read_sizes(reader, needs_head_dim=True)
    # Older files say every how many layers one is global; without either key it is every sixth.
    period = reader.integer("sliding_window_pattern", missing=reader.integer("_sliding_window_pattern", missing=6))
    slides = sliding_layers(reader, sizes, [(index + 1) % period != 0 for index in range(sizes.layers)])
    window = reader.integer("sliding_window")
    local_rope, global_rope = _ropes(reader, sizes)
    scale = reader.positive("query_pre_attn_scalar") ** -0.5
    layers = [
        LayerConfig(rope=local_rope if slide else global_rope, scale=scale, window=window if slide else None)
        for slide in slides
    ]
    decoder = gemma(reader, read_decoder(reader, sizes, "gemma3", layers, tied=True, act="hidden_activation"))
    return replace(decoder, qk_norm="head")


def read_multimodal(reader: ConfigReader) -> DecoderConfig:
    """The text decoder of a Gemma 3 checkpoint with images."""
    text = reader.section("text_config", _TEXT_DEFAULTS)
    decoder = read(text)
    text.refuse_unread()
    return decoder


def _ropes(reader: ConfigReader, sizes: Sizes) -> tuple[Rope, Rope]:
    """The rotary embeddings of sliding and of global layers; any scaling is the global ones'."""
    context = rope_context(reader, sizes)
    if reader.has("rope_parameters"):
        both = reader.section("rope_parameters")
        both.refuse_others({"sliding_attention", "full_attention"})
        return (
            read_rope_object(both.section("sliding_attention"), context, theta=_LOCAL_THETA),
            read_rope_object(both.section("full_attention"), context, theta=_GLOBAL_THETA),
        )
    theta = reader.positive("rope_local_base_freq", missing=_LOCAL_THETA)
    local_rope = read_rope_object(ConfigReader({"rope_theta": theta}, reader.where), context, theta=None)
    return local_rope, read_rope_object(merged_rope(reader), context, theta=_GLOBAL_THETA)


FAMILY = Family(
    "gemma3",
    ("Gemma3ForCausalLM",),
    "gemma3_text",
    read,
    replace(LAYOUT),
)
MULTIMODAL = Family(
    "gemma3",
    ("Gemma3ForConditionalGeneration",),
    "gemma3",
    read_multimodal,
    replace(
        LAYOUT,
        bases=("model.language_model.", "language_model.model."),
        heads=("lm_head", "language_model.lm_head"),
        ignorable=(*Layout().ignorable, r"^(model\.)?(vision_tower|multi_modal_projector)\."),
    ),
)
