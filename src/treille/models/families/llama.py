"""Llama 1, 2, 3 and the many checkpoints of that architecture (SmolLM 2, TinyLlama, Vicuna, ...)."""

from dataclasses import replace

from treille.models.config import DecoderConfig
from treille.models.families.base import Family, Layout, plain_layers, read_decoder, read_sizes, rope_context
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Llama configuration describes; Llama 1 and 2 leave out rope_theta (10000) and biases."""
    sizes = read_sizes(reader, needs_kv_heads=False)
    rope = read_rope(reader, rope_context(reader, sizes), theta=10_000.0)
    decoder = read_decoder(reader, sizes, "llama", plain_layers(sizes, rope), tied=False)
    bias = reader.flag("attention_bias", missing=False)
    return replace(decoder, qkv_bias=bias, out_bias=bias, mlp_bias=reader.flag("mlp_bias", missing=False))


FAMILY = Family("llama", ("LlamaForCausalLM",), "llama", read, Layout())
