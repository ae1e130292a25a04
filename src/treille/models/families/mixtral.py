"""Mixtral: a Mistral with a mixture of experts in every layer."""

from dataclasses import replace

from treille.models.config import DecoderConfig, ExpertsConfig
from treille.models.families.base import Family, Layout, plain_layers, read_decoder, read_sizes, rope_context
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Mixtral configuration describes."""
    sizes = read_sizes(reader)
    window = reader.optional_integer("sliding_window")
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    experts = ExpertsConfig(
        count=reader.integer("num_local_experts"),
        top_k=reader.integer("num_experts_per_tok"),
        normalize=True,
        intermediate=reader.integer("intermediate_size"),
    )
    if experts.top_k > experts.count:
        raise reader.refusal("num_experts_per_tok", f"must not exceed num_local_experts = {experts.count}")
    layers = [replace(layer, experts=experts) for layer in plain_layers(sizes, rope, [window] * sizes.layers)]
    return read_decoder(reader, sizes, "mixtral", layers, tied=False)


LAYOUT = Layout(
    router="block_sparse_moe.gate",
    expert="block_sparse_moe.experts.{}.",
    expert_gate_up=("w1", "w3"),
    expert_down="w2",
)
FAMILY = Family("mixtral", ("MixtralForCausalLM",), "mixtral", read, LAYOUT)
