"""GPT-2: learned positions, layer norms with biases, a plain MLP, weights stored transposed."""

from treille.models.config import DecoderConfig, LayerConfig
from treille.models.families.base import ACTIVATIONS, Family, Layout
from treille.models.reader import ConfigReader


def read(reader: ConfigReader) -> DecoderConfig:
    """The decoder that a GPT-2 configuration describes.

    The keys that the first files leave out (tying, scaling by layer) have had one meaning since. The key
    ``reorder_and_upcast_attn`` asks for float32 in attention, which is always the case here.
    """
    hidden, heads, count = reader.integer("n_embd"), reader.integer("n_head"), reader.integer("n_layer")
    if hidden % heads:
        raise reader.refusal("n_head", f"must divide n_embd = {hidden}")
    scale = (hidden // heads) ** -0.5 if reader.flag("scale_attn_weights", missing=True) else 1.0
    by_layer = reader.flag("scale_attn_by_inverse_layer_idx", missing=False)
    layers = [LayerConfig(rope=None, scale=scale / (index + 1 if by_layer else 1)) for index in range(count)]
    return DecoderConfig(
        family="gpt2",
        vocab_size=reader.integer("vocab_size"),
        hidden=hidden,
        intermediate=reader.integer("n_inner", missing=4 * hidden),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        layers=tuple(layers),
        context_length=reader.integer("n_positions"),
        norm_kind="layer",
        norm_eps=reader.positive("layer_norm_epsilon"),
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        gated=False,
        activation=reader.choice("activation_function", ACTIVATIONS),
        learned_positions=True,
        tie_embeddings=reader.flag("tie_word_embeddings", missing=True),
    )


LAYOUT = Layout(
    bases=("transformer.", ""),
    embedding="wte",
    positions="wpe",
    layer="h.{}.",
    final_norm="ln_f",
    attention_norm="ln_1",
    mlp_norm="ln_2",
    qkv=("attn.c_attn",),
    out="attn.c_proj",
    gate_up=("mlp.c_fc",),
    down="mlp.c_proj",
    transposed=True,
    ignorable=(r"\.attn\.(bias|masked_bias)$",),
)
FAMILY = Family("gpt2", ("GPT2LMHeadModel",), "gpt2", read, LAYOUT)
