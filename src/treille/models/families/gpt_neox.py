"""GPT-NeoX (Pythia): parallel residual, partial rotation, layer norms with biases, a plain MLP."""

from treille.models.config import DecoderConfig
from treille.models.families.base import ACTIVATIONS, Family, Layout, Sizes, plain_layers, rope_context
from treille.models.reader import ConfigReader
from treille.models.rope import merged_rope, read_rope_object


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a GPT-NeoX configuration describes; files before `attention_bias` have the biases."""
    hidden, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    if hidden % heads:
        raise reader.refusal("num_attention_heads", f"must divide hidden_size = {hidden}")
    positions = reader.integer("max_position_embeddings")
    sizes = Sizes(reader.integer("num_hidden_layers"), hidden, heads, heads, hidden // heads, positions)
    rope = merged_rope(reader, theta_key="rotary_emb_base", partial_key="rotary_pct")
    for key in ("rope_theta", "partial_rotary_factor"):
        if not rope.has(key):
            raise reader.refusal(
                key, "is missing; the architecture needs it, or the older rotary_emb_base and rotary_pct"
            )
    bias = reader.flag("attention_bias", missing=True)
    return DecoderConfig(
        family="gpt_neox",
        vocab_size=reader.integer("vocab_size"),
        hidden=hidden,
        intermediate=reader.integer("intermediate_size"),
        heads=heads,
        kv_heads=heads,
        head_dim=sizes.head_dim,
        layers=tuple(plain_layers(sizes, read_rope_object(rope, rope_context(reader, sizes), theta=None))),
        context_length=positions,
        norm_kind="layer",
        norm_eps=reader.positive("layer_norm_eps"),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=True,
        gated=False,
        activation=reader.choice("hidden_act", ACTIVATIONS),
        parallel_residual=reader.flag("use_parallel_residual"),
        tie_embeddings=reader.flag("tie_word_embeddings", missing=False),
    )


LAYOUT = Layout(
    bases=("gpt_neox.",),
    embedding="embed_in",
    final_norm="final_layer_norm",
    heads=("embed_out", "lm_head"),
    qkv=("attention.query_key_value",),
    qkv_by_head=True,
    out="attention.dense",
    gate_up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
    ignorable=(r"rotary_emb\.inv_freq$", r"\.attention\.(bias|masked_bias)$"),
)
FAMILY = Family("gpt_neox", ("GPTNeoXForCausalLM",), "gpt_neox", read, LAYOUT)
