"""Qwen 3 with a mixture of experts in all layers, or in those that the configuration names."""

from dataclasses import replace

from treille.models.config import DecoderConfig, ExpertsConfig
from treille.models.families.base import Family, Layout, plain_layers, read_decoder, read_sizes, rope_context
from treille.models.reader import ConfigReader
from treille.models.rope import read_rope


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a Qwen 3 MoE configuration describes."""
    sizes = read_sizes(reader)
    rope = read_rope(reader, rope_context(reader, sizes), theta=None)
    reader.has("sliding_window")  # it is written in these files also where it is switched off
    window = reader.integer("sliding_window") if reader.flag("use_sliding_window", missing=False) else None
    experts = _experts(reader)
    step = reader.integer("decoder_sparse_step")
    dense = set(reader.sequence("mlp_only_layers", int)) if reader.has("mlp_only_layers") else set()
    layers = [
        replace(layer, experts=None if index in dense or (index + 1) % step else experts)
        for index, layer in enumerate(plain_layers(sizes, rope, [window] * sizes.layers))
    ]
    bias = reader.flag("attention_bias")
    decoder = read_decoder(reader, sizes, "qwen3_moe", layers, tied=False)
    return replace(decoder, qk_norm="head", qkv_bias=bias, out_bias=bias)


def _experts(reader: ConfigReader) -> ExpertsConfig:
    # `transformers` 5 writes num_local_experts for what the released files call num_experts.
    key = "num_local_experts" if reader.has("num_local_experts") else "num_experts"
    experts = ExpertsConfig(
        count=reader.integer(key),
        top_k=reader.integer("num_experts_per_tok"),
        normalize=reader.flag("norm_topk_prob"),
        intermediate=reader.integer("moe_intermediate_size"),
    )
    if experts.top_k > experts.count:
        raise reader.refusal("num_experts_per_tok", f"must not exceed {key} = {experts.count}")
    return experts


FAMILY = Family("qwen3_moe", ("Qwen3MoeForCausalLM",), "qwen3_moe", read, Layout())
