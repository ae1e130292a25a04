"""The training loop: steps keyed by (seed, step), checkpoints from which a killed run goes on with the same result."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from treille.errors import CheckpointError
from treille.train.alignment import check_same_tokenizer, write_generated
from treille.train.corpus import Corpus, Generated, Mixture
from treille.train.export import read_weights, sibling
from treille.train.network import Llama, causal_mask
from treille.train.optimizers import make_optimizers
from treille.train.recipe import check_continues
from treille.train.tokenizer import mixture, train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from treille.train.corpus import Batch, Source
    from treille.train.recipe import Data, Recipe

CHUNK = 512  # rows whose logits exist at the same time: [512, 4096] float32 stay in the cache of a core
SAVE_EVERY = 180.0  # seconds
EVALUATE_EVERY = 100  # steps
AFTER_ALL_LEVELS = 2**20  # a step after which every level is drawn
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step did.

    Attributes:
        step: Steps done.
        loss: Training loss of the step's batch, nats per counted token.
        seconds: Time spent in all, also before a restart.
        held_out: Held-out losses of Python and of the tasks, per exit, where they were measured after this step.
    """

    step: int
    loss: float
    seconds: float
    held_out: dict[str, list[float]] | None


def backward(network: Llama, batch: Batch, dtype: torch.dtype) -> float:
    """The batch's loss (mean over exits and counted tokens, nats); gradients are added to the parameters'."""
    where = batch.counted.flatten().nonzero().squeeze(1)
    targets, total = batch.targets.flatten()[where], 0.0
    with torch.autocast(batch.ids.device.type, dtype=dtype, enabled=dtype != torch.float32):
        outputs = network.hidden(batch.ids, causal_mask(batch.segments))
        scale = 1 / (len(where) * len(outputs))
        # The head's gradient is formed chunk by chunk, so that the logits of a whole batch never exist at once.
        picked = [hidden.flatten(0, 1)[where] for hidden in outputs]
        leaves = [rows.detach().requires_grad_() for rows in picked]
        for leaf in leaves:
            for rows, goal in zip(torch.split(leaf, CHUNK), torch.split(targets, CHUNK), strict=True):
                loss = F.cross_entropy(network.logits(rows).float(), goal, reduction="sum") * scale
                torch.autograd.backward(loss)
                total += loss.item()
    torch.autograd.backward(picked, [leaf.grad for leaf in leaves])
    return total


def held_out_sources(tokenizer: Tokenizer, data: Data) -> dict[str, Source]:
    """Held-out text by kind: Python files and functions, and examples of the tasks."""
    shares = {"python": 1.0, "tasks": 0.0}
    return {name: Mixture(tokenizer, replace(data, python=share), 0, held_out=True) for name, share in shares.items()}


@torch.no_grad()
def held_out_losses(network: Llama, corpus: Corpus, batches: int, rows: int, length: int) -> list[float]:
    """Mean loss at each exit over the same batches, nats per counted token."""
    sums, count = [0.0] * len(network.shape.exits), 0
    device = next(network.parameters()).device
    for index in range(batches):
        batch = corpus.batch(AFTER_ALL_LEVELS + index, rows, length).to(device)
        targets = batch.targets[batch.counted]
        for exit_, hidden in enumerate(network.hidden(batch.ids, causal_mask(batch.segments))):
            for part, goal in zip(torch.split(hidden[batch.counted], CHUNK), torch.split(targets, CHUNK), strict=True):
                sums[exit_] += F.cross_entropy(network.logits(part), goal, reduction="sum").item()
        count += len(targets)
    return [round(total / count, 4) for total in sums]


class Trainer:
    """A run in a directory: made anew, or taken up from its checkpoint.

    Args:
        recipe: What is trained and how.
        directory: Where the checkpoint, the tokenizer and the log are kept; made if missing.
        device: Device of the training.

    Raises:
        CheckpointError: the directory holds a run of another recipe.
    """

    def __init__(self, recipe: Recipe, directory: Path, device: str = "cpu") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.recipe, self.directory, self.device = recipe, directory, torch.device(device)
        self.tokenizer, network = self._start()
        self.network = network.to(self.device)
        self.corpus = Corpus(self._source(), recipe.seed, recipe.data.prompt)
        self.held_out = {
            name: Corpus(source, 0, 0.0) for name, source in held_out_sources(self.tokenizer, recipe.data).items()
        }
        schedule = recipe.schedule
        self.optimizers = make_optimizers(self.network, schedule.matrix_rate, schedule.rate)
        self.step, self.seconds = 0, 0.0
        if (directory / CHECKPOINT).exists():
            self._resume(directory / CHECKPOINT)

    def _start(self) -> tuple[Tokenizer, Llama]:
        """Tokenizer and network of step 0; the tokenizer is kept in the directory."""
        recipe, kept = self.recipe, self.directory / "tokenizer.json"
        network = Llama(recipe.shape, recipe.seed)
        if recipe.start:
            source = sibling(self.directory, recipe.start)
            read_weights(network, source)
            shutil.copyfile(source / "tokenizer.json", kept)
        elif not kept.exists():
            train_tokenizer(mixture(recipe.data.texts), recipe.shape.vocabulary).save(str(kept))
        return Tokenizer.from_file(str(kept)), network

    def _source(self) -> Source:
        """Where the batches come from; a target writes its texts first, where the recipe asks for them."""
        if self.recipe.alignment is None:
            return Mixture(self.tokenizer, self.recipe.data, self.recipe.seed)
        path = self.directory / "texts.jsonl"
        if not path.exists():
            target = sibling(self.directory, self.recipe.alignment.target)
            check_same_tokenizer(target, self.directory / "tokenizer.json")
            prompts = Mixture(self.tokenizer, self.recipe.data, self.recipe.seed)
            write_generated(path, target, prompts, self.recipe.alignment, self.recipe.seed)
        return Generated(path)

    def _resume(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True, map_location=self.device)
        check_continues(self.recipe, saved["recipe"], saved["step"], path)
        self.network.load_state_dict(saved["network"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds = saved["step"], saved["seconds"]
        # Rows of steps that were done after the checkpoint and are done again would stand in the log twice.
        kept = [row for row in read_log(self.directory) if row["step"] <= self.step]
        (self.directory / LOG).write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def save(self) -> None:
        """Replace the checkpoint in one rename, so that a kill leaves the old or the new one."""
        path = self.directory / CHECKPOINT
        partial = path.with_suffix(".partial")
        state: dict[str, Any] = {
            "recipe": self.recipe.as_table(),
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, partial)
        partial.replace(path)

    def run(self) -> Iterator[Progress]:
        """Train to the end, log, evaluate and save; yields after every step."""
        start, last_save = time.monotonic() - self.seconds, time.monotonic()
        while self.step < self.recipe.schedule.steps:
            loss = self._step()
            final = self.step == self.recipe.schedule.steps
            held_out = self.evaluate(2) if self.step % EVALUATE_EVERY == 0 or final else None
            self.seconds = time.monotonic() - start
            progress = Progress(self.step, loss, self.seconds, held_out)
            self._log(progress)
            if final or time.monotonic() - last_save > SAVE_EVERY:
                self.save()
                last_save = time.monotonic()
            yield progress

    def _step(self) -> float:
        schedule = self.recipe.schedule
        length = schedule.row_length(self.step)
        batch = self.corpus.batch(self.step, schedule.tokens // length, length).to(self.device)
        self.network.zero_grad(set_to_none=True)
        loss = backward(self.network, batch, getattr(torch, self.recipe.dtype))
        if math.isnan(loss):
            raise CheckpointError(
                f"the loss of step {self.step} is not a number: lower matrix_rate and rate, and start anew"
            )
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule.factor(self.step)
            optimizer.step()
        self.step += 1
        return loss

    def evaluate(self, batches: int) -> dict[str, list[float]]:
        """Held-out loss of Python and of the tasks' answers at each exit, nats per token."""
        row = self.recipe.schedule.row
        return {name: held_out_losses(self.network, corpus, batches, 8, row) for name, corpus in self.held_out.items()}

    def _log(self, progress: Progress) -> None:
        row: dict[str, Any] = {
            "step": progress.step,
            "loss": round(progress.loss, 5),
            "seconds": round(progress.seconds, 1),
        }
        if progress.held_out is not None:
            row["held_out"] = progress.held_out
        with (self.directory / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Rows of a run's log, one per step; empty without a log."""
    path = directory / LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
