"""Checkpoints with random weights, and a key and value store with plans, for the tests of the models."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from treille.attention.plan import AttentionPlan, Block, Piece
from treille.models.decoder import LanguageModel

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

VOCAB = 97
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Store:
    """Keys and values of all layers in one tensor [L, 2, Hkv, S, D], filled with NaN where nothing was written."""

    def __init__(self, model: LanguageModel, slots: int) -> None:
        shape = model.shape
        size = (shape.layers, 2, shape.kv_heads, slots, shape.head_dim)
        self.pool = torch.full(size, torch.nan, dtype=shape.dtype)
        self.keys = [layer[0] for layer in self.pool]
        self.values = [layer[1] for layer in self.pool]


def chunk_plan(start: int, stop: int, offset: int = 0) -> AttentionPlan:
    """Positions [start, stop) of one request whose slots begin at `offset`; earlier positions are one piece."""
    rows = stop - start
    piece = (Piece(offset, offset + start, 0, range(rows)),) if start else ()
    positions = torch.arange(start, stop)
    return AttentionPlan(positions, positions + offset, piece, (Block(0, rows, None),))


def run_chunks(model: LanguageModel, tokens: Tensor, sizes: Sequence[int], offset: int = 0) -> Tensor:
    """[T, V] logits of a text computed in forwards of the given numbers of rows."""
    store = Store(model, offset + len(tokens))
    rows, start = [], 0
    for size in sizes:
        stop = min(start + size, len(tokens))
        hidden = model.forward(tokens[start:stop], store, chunk_plan(start, stop, offset))
        rows.append(model.logits(hidden))
        start = stop
    assert start == len(tokens)
    return torch.cat(rows)


def one_pass(model: LanguageModel, tokens: Tensor) -> Tensor:
    """[T, V] logits of a text computed in one forward."""
    return run_chunks(model, tokens, [len(tokens)])


def random_tokens(count: int, seed: int = 0) -> Tensor:
    """[count] int64 within the tests' vocabulary."""
    return torch.randint(VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Gives every parameter random values, so that no norm and no bias stands at its default."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.copy_(noise * 0.3 + (0.0 if name.endswith("bias") else 1.0))


@dataclass(frozen=True)
class Checkpoint:
    """A saved model of `transformers` and what it computes.

    Attributes:
        directory: Where it was saved.
        model: The model.
    """

    directory: Path
    model: Any

    def reference(self, tokens: Tensor) -> Tensor:
        """[T, V] float32 logits of `transformers`."""
        with torch.no_grad():
            return self.model(tokens.unsqueeze(0)).logits[0].float()

    def edit(self, **changes: object) -> None:
        """Changes keys of ``config.json``; the value ``...`` removes one."""
        file = self.directory / "config.json"
        config = json.loads(file.read_text())
        config.update(changes)
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def make_checkpoint(directory: Path, config: str, model: str, **keys: object) -> Checkpoint:
    """Saves a random model of `transformers`."""
    settings = {**BASE, **keys}
    made = getattr(transformers, config)(**{key: value for key, value in settings.items() if value is not ...})
    made._attn_implementation = "eager"
    network = getattr(transformers, model)(made).eval()
    randomize(network)
    network.tie_weights()
    network.save_pretrained(directory)
    return Checkpoint(directory, network)
