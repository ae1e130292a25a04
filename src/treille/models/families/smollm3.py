"""SmolLM 3: a Llama in which some layers have no positions."""

from dataclasses import replace

from treille.models.config import DecoderConfig
from treille.models.families.base import (
    Family,
    Layout,
    Sizes,
    plain_layers,
    read_decoder,
    read_sizes,
    rope_context,
    sliding_layers,
)
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a SmolLM 3 configuration describes."""
    sizes = read_sizes(reader)
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    rotated = _rotated(reader, sizes)
    windows = _windows(reader, sizes, rotated)
    layers = [
        replace(layer, rope=rope if has_rope else None)
        for layer, has_rope in zip(plain_layers(sizes, rope, windows), rotated, strict=True)
    ]
    bias = reader.flag("attention_bias", missing=False)
    decoder = read_decoder(reader, sizes, "smollm3", layers, tied=True)
    return replace(decoder, qkv_bias=bias, out_bias=bias, mlp_bias=reader.flag("mlp_bias", missing=False))


def _rotated(reader: ConfigReader, sizes: Sizes) -> list[bool]:
    """For each layer whether it is rotated: 1 in ``no_rope_layers`` means that it is."""
    if not reader.has("no_rope_layers"):
        interval = reader.integer("no_rope_layer_interval")
        return [(index + 1) % interval != 0 for index in range(sizes.layers)]
    flags = reader.sequence("no_rope_layers", int)
    if len(flags) < sizes.layers or not set(flags) <= {0, 1}:
        raise reader.refusal("no_rope_layers", f"must hold 0 or 1 for each of {sizes.layers} layers")
    return [flag == 1 for flag in flags[: sizes.layers]]


def _windows(reader: ConfigReader, sizes: Sizes, rotated: list[bool]) -> list[int | None]:
    """The windows, if ``use_sliding_window``: of the layers in ``layer_types``, else of those that are not rotated."""
    window = reader.optional_integer("sliding_window")
    if not reader.flag("use_sliding_window", missing=False) or window is None:
        return [None] * sizes.layers
    slides = sliding_layers(reader, sizes, [not has_rope for has_rope in rotated])
    return [window if slide else None for slide in slides]


FAMILY = Family("smollm3", ("SmolLM3ForCausalLM",), "smollm3", read, Layout())
