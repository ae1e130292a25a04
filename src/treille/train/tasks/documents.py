"""Training documents: examples of all tasks as chats, with the answers marked, so that a trainer can weigh them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from treille.errors import ParameterError
from treille.train.tasks.suite import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from treille.train.tasks.base import Example

Piece = tuple[str, bool]  # a text, and whether it is (part of) an answer
CHAT_SHARE = 0.8


def pieces(example: Example, chat: bool = True) -> list[Piece]:
    """The document's texts in order, each with whether it is an answer; joined they are the document.

    As a chat, earlier answers of the assistant are answers too, and each answer ends with ``<|end|>``. Otherwise
    the document is plain text: questions and answers on lines of their own.
    """
    turns = [message["content"] for message in example.messages]
    if not chat:
        return [(f"{text}\n", i % 2 == 1) for i, text in enumerate([*turns, example.answer])]
    found: list[Piece] = []
    for question, answer in zip(turns[::2], [*turns[1::2], example.answer], strict=True):
        found += [(f"<|user|>{question}<|assistant|>", False), (f"{answer}<|end|>", True)]
    return found


def training_examples(count: int, *, seed: int = 0, shares: Mapping[str, float] | None = None) -> Iterator[Example]:
    """`count` training examples, each of a task drawn with the given shares (all equal without them).

    Raises:
        ParameterError: a share for a task that does not exist, or no positive share.
    """
    unknown = sorted(set(shares or ()) - set(TASKS))
    if unknown:
        raise ParameterError(f"shares name {unknown[0]!r}, which is no task: use some of {', '.join(TASKS)}")
    weights = [1.0 if shares is None else shares.get(name, 0.0) for name in TASKS]
    if min(weights) < 0 or sum(weights) <= 0:
        raise ParameterError(f"shares={shares} must not be negative, and one must be positive")
    rng = random.Random(f"documents {seed}")
    for index in range(count):
        task = rng.choices(list(TASKS.values()), weights)[0]
        yield task.example(index, seed=seed, split="train")


def documents(count: int, *, seed: int = 0, shares: Mapping[str, float] | None = None) -> Iterator[list[Piece]]:
    """`count` training documents as pieces (see `pieces`); four in five are chats, the others plain text."""
    rng = random.Random(f"forms {seed}")
    for example in training_examples(count, seed=seed, shares=shares):
        yield pieces(example, chat=rng.random() < CHAT_SHARE)
