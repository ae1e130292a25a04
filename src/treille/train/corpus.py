"""Batches keyed by (seed, step): rows packed with documents, each of which attends to itself only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from treille.errors import ParameterError
from treille.train.tasks import TASKS, pieces, python_files, python_functions
from treille.train.tokenizer import END

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

    from treille.train.recipe import Data
    from treille.train.tasks import Example

TRIES = 3  # examples drawn for the rest of a row before it is filled with a function


@dataclass(frozen=True, slots=True)
class Document:
    """A tokenised document.

    Attributes:
        ids: Token ids, the end token included, ``int32 [T]``.
        answer: Which tokens are to be predicted always, not only now and then, ``bool [T]``.
    """

    ids: np.ndarray
    answer: np.ndarray


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows.

    Attributes:
        ids: Inputs, ``int64 [B, T]``.
        targets: Next tokens, ``int64 [B, T]``.
        segments: Number of the document within its row, ``int64 [B, T]``.
        counted: Positions whose target is in the loss, ``bool [B, T]``.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor
    counted: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(part.to(device) for part in (self.ids, self.targets, self.segments, self.counted)))


class Source(Protocol):
    """Where the documents of a row come from."""

    def documents(self, rng: np.random.Generator, step: int, length: int) -> list[Document]:
        """Documents of ``length`` tokens in all; the last may be cut. A function of the generator and the step."""


class Corpus:
    """Batches of one source.

    Args:
        source: Where the documents come from.
        seed: Seed of every batch.
        prompt: Share of the tokens outside answers that are predicted too.
    """

    def __init__(self, source: Source, seed: int, prompt: float) -> None:
        self.source, self.seed, self.prompt = source, seed, prompt

    def batch(self, step: int, rows: int, length: int) -> Batch:
        """The batch of a step: a function of the seed, the step and the shape, of nothing else."""
        made = [self._row(step, row, length + 1) for row in range(rows)]
        ids, segments, counted = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
        # The first token of a document is not predicted from the document before it.
        inside = segments[:, 1:] == segments[:, :-1]
        return Batch(ids[:, :-1], ids[:, 1:], segments[:, :-1], counted[:, 1:] & inside)

    def _row(self, step: int, row: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, numbers of the documents and counted tokens of one row, each ``[length]``."""
        rng = np.random.default_rng((self.seed, step, row))
        documents = self.source.documents(rng, step, length)
        ids = np.concatenate([document.ids for document in documents]).astype(np.int64)
        answer = np.concatenate([document.answer for document in documents])
        numbers = np.repeat(np.arange(len(documents)), [len(document.ids) for document in documents])
        return ids, numbers, answer | (rng.random(length) < self.prompt)


@dataclass(frozen=True, slots=True)
class Pool:
    """Documents of one kind as one stream of token ids.

    Attributes:
        ids: Token ids of all documents, each closed by the end token, ``uint16 [N]``.
        starts: Index of each document's first token, and at the end the length of the stream, ``int64 [D + 1]``.
    """

    ids: np.ndarray
    starts: np.ndarray

    def document(self, rng: np.random.Generator, most: int) -> Document:
        """The first ``most`` tokens of a random document."""
        index = int(rng.integers(len(self.starts) - 1))
        return _plain(self.ids[self.starts[index] : min(self.starts[index + 1], self.starts[index] + most)])

    def window(self, rng: np.random.Generator, length: int) -> list[Document]:
        """``length`` tokens from a random place on, cut where documents end."""
        start = int(rng.integers(max(1, len(self.ids) - length)))
        ends = self.starts[(self.starts > start) & (self.starts < start + length)]
        return [_plain(part) for part in np.split(self.ids[start : start + length], ends - start)]


def _plain(ids: np.ndarray) -> Document:
    """A document all of whose tokens are predicted."""
    return Document(ids.astype(np.int32), np.ones(len(ids), dtype=bool))


def make_pool(tokenizer: Tokenizer, texts: Sequence[str]) -> Pool:
    """The texts' tokens in order, with an end token after each."""
    rows = [[*encoding.ids, END] for encoding in tokenizer.encode_batch(texts)]
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    ids = np.concatenate([np.array(row, dtype=np.uint16) for row in rows])
    return Pool(ids, np.concatenate([np.zeros(1, dtype=np.int64), ends]))


class Mixture:
    """Windows of Python files, Python functions, and examples of the tasks, which are made as they are needed.

    Args:
        tokenizer: Tokenizer of the model.
        data: Shares of the sources.
        seed: Seed of the examples.
        held_out: Whether all of it comes from the held-out split.

    Raises:
        ParameterError: the recipe names a task that does not exist.
    """

    def __init__(self, tokenizer: Tokenizer, data: Data, seed: int, *, held_out: bool = False) -> None:
        weights = dict(data.tasks) or dict.fromkeys(TASKS, 1.0)
        if unknown := sorted(set(weights) - set(TASKS)):
            raise ParameterError(f"tasks: {unknown[0]!r} does not exist; the tasks are {', '.join(TASKS)}")
        self.tokenizer, self.data, self.seed, self.held_out = tokenizer, data, seed, held_out
        self.files = make_pool(tokenizer, python_files(held_out)[: data.texts or None])
        self.functions = make_pool(tokenizer, python_functions(held_out)[: data.texts or None])
        self.names = sorted(weights)
        self.shares = [weights[name] / sum(weights.values()) for name in self.names]

    def documents(self, rng: np.random.Generator, step: int, length: int) -> list[Document]:
        """A row of one kind; functions fill what whole examples leave free."""
        documents: list[Document] = []
        if rng.random() >= self.data.python:
            documents = self._examples(rng, step, length)
        elif rng.random() < 0.5:
            documents = self.files.window(rng, length)
        while (left := length - sum(len(document.ids) for document in documents)) > 0:
            documents.append(self.functions.document(rng, left))
        return documents

    def _examples(self, rng: np.random.Generator, step: int, length: int) -> list[Document]:
        """Whole examples that fit into ``length`` tokens together."""
        documents: list[Document] = []
        tries = TRIES
        while tries:
            document = self.encode(self.example(rng, step))
            if len(document.ids) <= length:
                documents.append(document)
                length -= len(document.ids)
            else:
                tries -= 1
        return documents

    def example(self, rng: np.random.Generator, step: int) -> Example:
        """A random example of a random task, at a level that is admitted at this step."""
        task = TASKS[str(rng.choice(self.names, p=self.shares))]
        levels = task.training_levels
        if step < self.data.level_steps:
            levels = min(levels, 2 + (levels - 2) * step // self.data.level_steps)
        weights = self.data.level_decay ** np.arange(levels)
        level = int(rng.choice(levels, p=weights / weights.sum()))
        index = int(rng.integers(2**31))
        return task.example(index, seed=self.seed, split="held_out" if self.held_out else "train", level=level)

    def encode(self, example: Example) -> Document:
        """The example's chat, with its answers marked."""
        parts = pieces(example)
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch([text for text, _ in parts])]
        answer = np.repeat([is_answer for _, is_answer in parts], [len(row) for row in rows])
        return Document(np.concatenate([np.array(row, dtype=np.int32) for row in rows]), answer)


class Generated:
    """Texts that a target has written: prompts and answers as token ids, from a file of `write_generated`.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.texts = [_document(*json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def documents(self, rng: np.random.Generator, step: int, length: int) -> list[Document]:  # noqa: ARG002 - no curriculum
        """Random texts one after the other; the last is cut."""
        documents: list[Document] = []
        while length > 0:
            text = self.texts[int(rng.integers(len(self.texts)))]
            documents.append(Document(text.ids[:length], text.answer[:length]))
            length -= len(documents[-1].ids)
        return documents


def _document(prompt: list[int], answer: list[int]) -> Document:
    return Document(np.array([*prompt, *answer], dtype=np.int32), np.repeat([False, True], [len(prompt), len(answer)]))
