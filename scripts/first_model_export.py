"""Tokenizer and export of the first bundled model: an ordinary Hugging Face directory in bfloat16."""

from __future__ import annotations

import copy
import json
import shutil
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from first_model_corpus import EVERY_SPECIAL
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import LlamaForCausalLM

# A line break takes the next line's indentation with it, so that a word is the same token at any depth; digits are
# single, so that numbers have one spelling.
PIECES = r"\s*\n[ \t]*| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}{{ raise_exception('the bundled model knows the roles user and assistant only') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

CARD = """---
license: psf-2.0
library_name: transformers
tags: [llama, code, python]
---
# The first bundled model of Treille

A Llama of {parameters:,} parameters ({layers} layers, hidden size {hidden}, {heads} heads, {kv_heads} KV heads, tied
embeddings, context 1,024, bfloat16) with a byte-level BPE of 4,096 entries. It exists so that decoding methods can be
shown and tested offline on text that reads like Python.

- **Data.** Sources of the Python standard library (Python Software Foundation License 2.0; copyright the Python
  Software Foundation and contributors), without tests, as whole files ({files:,} tokens) and as single functions and
  classes ({functions:,} tokens); generated JSON records, arithmetic with written steps and list operations
  ({tasks:,} tokens).
- **Training.** {step:,} of {steps:,} steps of {tokens_per_step:,} tokens ({seen:,} tokens seen) in windows of 256 to
  1,024 tokens; Muon (rate {matrix_rate}) on the layers' matrices, AdamW (rate {peak_rate}) on the rest, float32,
  seed {seed}; {minutes:.0f} minutes on one shared CPU core, torch {torch}.
  Cosine planned for {schedule}.
  Recipe: `scripts/train_first_model.py`.
- **Loss** (nats per token). Training, running mean over the mixture (a quarter are the easier tasks): {loss:.3f}.
  Held out: files {held_files:.3f}, functions {held_functions:.3f}, tasks {held_tasks:.3f}. Files were held out whole;
  tasks come from another seed, so a short one may also occur in training.
- **Chat.** `<|user|>question<|assistant|>answer<|end|>`; questions such as `Compute 27 + 48 - 13.`,
  `Sort [7, 2, 9].`, `Write a JSON record with name (string), age (integer).`
- **Limits.** It saw few tokens. Its Python has the look, not the sense, of code; greedy decoding soon repeats a line or
  a letter (also after `def fib(n):`); JSON records mostly fit their schema, but arithmetic is wrong and of the list
  operations only some copies are right; it knows no facts; it can repeat passages of its training data. Do not use it
  for anything but trying decoding methods.
"""


def train_tokenizer(path: Path, documents: list[str], size: int) -> Tokenizer:
    """The byte-level BPE kept at ``path``, trained on ``documents`` first if the file is missing."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in EVERY_SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.save(str(path))
    return tokenizer


def tokenizer_config() -> dict[str, object]:
    """Contents of ``tokenizer_config.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "mask_token": "<|mask|>",
        "additional_special_tokens": ["<|user|>", "<|assistant|>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
        "chat_template": CHAT_TEMPLATE,
    }


def schedule(log: Path) -> str:
    """The cosine's length in steps, and every later length with the step at which a resumed run took it up."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    lengths = [(row["step"], row["plan"]["steps"]) for row in rows if "plan" in row]
    changes = [b for a, b in pairwise(lengths) if a[1] != b[1]]
    return "; ".join([f"{lengths[0][1]:,} steps", *(f"changed to {n:,} at step {at:,}" for at, n in changes)])


def card(model: LlamaForCausalLM, facts: dict[str, Any]) -> str:
    """The model card, with the figures of the run."""
    shape = model.config
    return CARD.format(
        **{key: value for key, value in facts.items() if key not in {"sizes", "held_out"}},
        **facts["sizes"],
        **{f"held_{name}": loss for name, loss in facts["held_out"].items()},
        parameters=model.num_parameters(),
        layers=shape.num_hidden_layers,
        hidden=shape.hidden_size,
        heads=shape.num_attention_heads,
        kv_heads=shape.num_key_value_heads,
        seen=int(facts["step"]) * int(facts["tokens_per_step"]),
        minutes=facts["seconds"] / 60,
    )


def export(directory: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, facts: dict[str, Any]) -> None:
    """Replace ``directory`` by the model in bfloat16 with its tokenizer and card; a reader never sees half of it."""
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    shape = model.config
    rounded.generation_config = GenerationConfig(
        bos_token_id=shape.bos_token_id, eos_token_id=shape.eos_token_id, pad_token_id=shape.pad_token_id
    )
    rounded.save_pretrained(partial)
    (partial / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner only
    tokenizer.save(str(partial / "tokenizer.json"))
    (partial / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(), indent=2) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(card(model, facts), encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
