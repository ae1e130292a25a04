"""Qwen 1.5, 2 and 2.5: a Llama with biases on queries, keys and values."""

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
    """The decoder that a Qwen 2 configuration describes."""
    sizes = read_sizes(reader)
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    layers = plain_layers(sizes, rope, optional_windows(reader, sizes))
    return replace(read_decoder(reader, sizes, "qwen2", layers, tied=False), qkv_bias=True)


FAMILY = Family("qwen2", ("Qwen2ForCausalLM",), "qwen2", read, Layout())
