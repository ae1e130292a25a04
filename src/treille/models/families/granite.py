"""Granite 3 (dense): a Llama with four multipliers."""

from dataclasses import replace

from treille.models.config import DecoderConfig
from treille.models.families.base import Family, Layout, plain_layers, read_decoder, read_sizes, rope_context
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Granite configuration describes."""
    sizes = read_sizes(reader)
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    scale = reader.positive("attention_multiplier")
    layers = [replace(layer, scale=scale) for layer in plain_layers(sizes, rope)]
    bias = reader.flag("attention_bias")
    return replace(
        read_decoder(reader, sizes, "granite", layers, tied=False),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=reader.flag("mlp_bias", missing=False),
        embedding_multiplier=reader.positive("embedding_multiplier"),
        residual_multiplier=reader.positive("residual_multiplier"),
        logit_divisor=reader.positive("logits_scaling"),
    )


FAMILY = Family("granite", ("GraniteForCausalLM",), "granite", read, Layout())
