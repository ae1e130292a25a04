"""Gemma 2: norms before and after, soft caps, every second layer slides, embeddings scaled by sqrt(H)."""

import math
from dataclasses import replace

from treille.models.config import DecoderConfig, LayerConfig
from treille.models.families.base import Family, Layout, read_decoder, read_sizes, rope_context, sliding_layers
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope

LAYOUT = Layout(
    post_attention_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
)


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Gemma 2 configuration describes; files before `layer_types` let even layers slide."""
    sizes = read_sizes(reader, needs_head_dim=True)
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    slides = sliding_layers(reader, sizes, [index % 2 == 0 for index in range(sizes.layers)])
    window = reader.integer("sliding_window")
    scale = reader.positive("query_pre_attn_scalar") ** -0.5
    layers = [LayerConfig(rope=rope, scale=scale, window=window if slide else None) for slide in slides]
    decoder = gemma(reader, read_decoder(reader, sizes, "gemma2", layers, tied=True, act="hidden_activation"))
    return replace(decoder, attention_softcap=reader.optional_positive("attn_logit_softcapping"))


def gemma(reader: ConfigReader, decoder: DecoderConfig) -> DecoderConfig:
    """What all Gemma decoders from the second on have in common."""
    bias = reader.flag("attention_bias", missing=False)
    # Files of the first releases have both keys; the library reads hidden_activation.
    return replace(
        decoder,
        norm_offset=1.0,
        post_norm=True,
        qkv_bias=bias,
        out_bias=bias,
        embedding_multiplier=math.sqrt(decoder.hidden),
        round_embedding_multiplier=True,
        logit_softcap=reader.optional_positive("final_logit_softcapping"),
    )


FAMILY = Family("gemma2", ("Gemma2ForCausalLM",), "gemma2", read, LAYOUT)
