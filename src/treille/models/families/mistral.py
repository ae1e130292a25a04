"""Mistral 7B and its successors of the same architecture: a Llama whose layers may all slide."""

from treille.models.config import DecoderConfig
from treille.models.families.base import (
    Family,
    Layout,
    plain_layers,
    read_decoder,
    read_sizes,
    rope_context,
    sliding_layers,
)
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Mistral configuration describes."""
    sizes = read_sizes(reader)
    window = reader.optional_integer("sliding_window")
    slides = [window is not None] * sizes.layers
    if sliding_layers(reader, sizes, slides) != slides:
        raise reader.refusal("layer_types", "must be the same for all layers, as sliding_window says")
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    return read_decoder(reader, sizes, "mistral", plain_layers(sizes, rope, [window] * sizes.layers), tied=False)


FAMILY = Family("mistral", ("MistralForCausalLM",), "mistral", read, Layout())
