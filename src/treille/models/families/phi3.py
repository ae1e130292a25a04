"""Phi-3, Phi-3.5 and Phi-4 (text): fused projections, LongRoPE, on some models a partial rotation."""

from treille.models.config import DecoderConfig
from treille.models.families.base import Family, Layout, plain_layers, read_decoder, read_sizes, rope_context
from treille.models.reader import ConfigReader
from treille.models.rope import merged_rope, read_rope_object


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Phi-3 configuration describes."""
    sizes = read_sizes(reader, needs_kv_heads=False)
    window = reader.optional_integer("sliding_window")
    rope = merged_rope(reader)
    # The first files call LongRoPE "su" or "yarn"; it is what their factors are for.
    kinds = {key: "longrope" for key in ("rope_type", "type") if rope.values.get(key) == "yarn"}
    rope = ConfigReader({**rope.values, **kinds}, rope.where)
    layers = plain_layers(
        sizes, read_rope_object(rope, rope_context(reader, sizes), theta=None), [window] * sizes.layers
    )
    return read_decoder(reader, sizes, "phi3", layers, tied=False)


LAYOUT = Layout(qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))
FAMILY = Family("phi3", ("Phi3ForCausalLM",), "phi3", read, LAYOUT)
