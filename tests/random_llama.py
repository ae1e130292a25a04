"""A tiny random Llama that `transformers` writes, with a small vocabulary whose tokens are texts."""

import json

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

LETTERS = "abcdefghijklmnopqrstuvwxyz .,!0123456789"
EOS, USER, ASSISTANT = "<eos>", "<user>", "<assistant>"
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('unknown role') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_level():
    """Letters, the four bytes of an emoji as tokens of their own, one pair, and special tokens."""
    byte = dict(zip("🙂".encode(), (chr(0xF0), "Ł", "Ļ", "Ĥ"), strict=True))  # GPT-2's characters for these bytes
    pieces = [*LETTERS.replace(" ", "Ġ"), *byte.values(), "th"]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([EOS, USER, ASSISTANT])
    return backend


def metaspace():
    """The way of Llama 2: spaces as ▁, the first one stripped, bytes for what the vocabulary lacks."""
    pieces = ["<unk>", *LETTERS.replace(" ", "▁"), *(f"<0x{b:02X}>" for b in "🙂".encode()), "▁t"]
    backend = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [("▁", "t")], unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([EOS, USER, ASSISTANT])
    return backend


def save(directory, tokenizer=byte_level, *, seed=0, sharpness=2.0, layers=2, **keys):
    """Save a random Llama whose texts differ and sometimes end; the model that was saved.

    `tokenizer` None: without any, and with a vocabulary of 48. `sharpness` scales the output projection.
    """
    backend = None if tokenizer is None else tokenizer()
    size = 48 if backend is None else backend.get_vocab_size()
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=None, pad_token_id=None,
        eos_token_id=size - 3 if backend is None else backend.token_to_id(EOS), tie_word_embeddings=False, **keys,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
        model.lm_head.weight.mul_(sharpness)
        model.lm_head.weight[config.eos_token_id].mul_(2.0)  # extreme both ways, so that some texts end early
        model.model.embed_tokens.weight.mul_(sharpness)
    model.save_pretrained(directory)
    if backend is not None:
        backend.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS, "chat_template": TEMPLATE}))
    return model
