"""OLMo 2: norms after attention and MLP only, and on whole query and key projections."""

from dataclasses import replace

from treille.models.config import DecoderConfig
from treille.models.families.base import Family, Layout, plain_layers, read_decoder, read_sizes, rope_context
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that an OLMo 2 configuration describes."""
    sizes = read_sizes(reader, needs_kv_heads=False)
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    bias = reader.flag("attention_bias")
    decoder = read_decoder(reader, sizes, "olmo2", plain_layers(sizes, rope), tied=False)
    return replace(decoder, pre_norm=False, post_norm=True, qk_norm="projection", qkv_bias=bias, out_bias=bias)


LAYOUT = Layout(post_attention_norm="post_attention_layernorm", post_mlp_norm="post_feedforward_layernorm")
FAMILY = Family("olmo2", ("Olmo2ForCausalLM",), "olmo2", read, LAYOUT)
