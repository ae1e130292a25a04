"""The bundled models' tokenizer: byte-level BPE with a chat template."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from treille.train.tasks import documents, python_files, python_functions

if TYPE_CHECKING:
    from collections.abc import Iterable

PAD, END, MASK, USER, ASSISTANT = range(5)
SPECIAL = ("<|pad|>", "<|end|>", "<|mask|>", "<|user|>", "<|assistant|>")  # in the order of the ids above
TASK_DOCUMENTS = 12_000  # of the training mixture; about a tenth of the characters, all the words of the tasks

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


def mixture(most: int = 0) -> Iterable[str]:
    """Texts that the tokenizer is trained on: training files, functions and task documents without their markers.

    Of each kind at most the first ``most``, unless it is 0.
    """
    yield from python_files(held_out=False)[: most or None]
    yield from python_functions(held_out=False)[: most or None]
    for pieces in documents(min(most or TASK_DOCUMENTS, TASK_DOCUMENTS)):
        text = "".join(text for text, _ in pieces)
        for token in SPECIAL:
            text = text.replace(token, "\n")
        yield text


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE of at most ``size`` entries whose first ids are the special tokens; same texts, same result."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_config(context: int) -> dict[str, object]:
    """Contents of ``tokenizer_config.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[PAD],
        "mask_token": SPECIAL[MASK],
        "additional_special_tokens": [SPECIAL[USER], SPECIAL[ASSISTANT]],
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": CHAT_TEMPLATE,
    }
