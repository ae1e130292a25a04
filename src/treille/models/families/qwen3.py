"""Qwen 3 (dense): norms on each head's queries and keys, and a head dimension of its own."""

from dataclasses import replace

from treille.models.config import DecoderConfig
from treille.models.families.base import (
    Family,
    Layout,
    optional_windows,
    plain_layers,
    read_decoder,
    read_sizes,
    rope_context,
)
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Qwen 3 configuration describes."""
    sizes = read_sizes(reader, needs_head_dim=True)
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    layers = plain_layers(sizes, rope, optional_windows(reader, sizes))
    bias = reader.flag("attention_bias")
    decoder = read_decoder(reader, sizes, "qwen3", layers, tied=False)
    return replace(decoder, qk_norm="head", qkv_bias=bias, out_bias=bias)


FAMILY = Family("qwen3", ("Qwen3ForCausalLM",), "qwen3", read, Layout())
