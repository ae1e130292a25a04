"""What every task is: a generator keyed by seed, two disjoint splits and an exact checker."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from treille.errors import InternalError, ParameterError

Split = Literal["train", "held_out"]
Messages = tuple[Mapping[str, str], ...]

HELD_OUT_SHARE = 10  # one question in ten belongs to the held-out split
LONGEST_ANSWER = 4000  # characters; anything longer is wrong, and is refused before it is parsed
MAX_DRAWS = 2000  # a draw lands in the held-out split one time in ten: (9/10)^2000 is never


class Drawn(NamedTuple):
    """One draw of a generator: the chat, the reference answer and what the checker needs (JSON-able)."""

    messages: Messages
    answer: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """One question with a reference answer that its task's checker accepts.

    Attributes:
        task: name of the task.
        level: difficulty, 0 is the easiest.
        messages: the chat so far; the last message is the user's question.
        answer: a reference answer; others may be right too.
        data: what the checker needs (a schema, numbers, tests, …); JSON-able.
    """

    task: str
    level: int
    messages: Messages
    answer: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """A generator of questions at several levels, with an exact checker.

    Attributes:
        name: the task's name.
        summary: what is asked, in one line.
        levels: number of levels; they are ``0 … levels - 1``.
        published_level: the level at which accuracies are published.
        draw: a draw from a random state at a level.
        accepts: whether an answer (surrounding whitespace removed) is right; never raises.
        rewards: value in [0, 1] of each written step, where the task has steps.
        draw_held_out: the draw of the held-out split, where that has sources of its own.
        unseen: number of levels, the hardest ones, of which no training text is made.
    """

    name: str
    summary: str
    levels: int
    published_level: int
    draw: Callable[[random.Random, int], Drawn]
    accepts: Callable[[Example, str], bool]
    rewards: Callable[[Example, str], list[float]] | None = None
    draw_held_out: Callable[[random.Random, int], Drawn] | None = None
    unseen: int = 0

    @property
    def training_levels(self) -> int:
        """Number of levels that training texts are made of: ``0 … training_levels - 1``."""
        return self.levels - self.unseen

    def example(self, index: int, *, seed: int = 0, split: Split, level: int | None = None) -> Example:
        """The example with this key: equal arguments give equal examples, in any order and any process.

        The question's content decides its split, so no question of one split is ever in the other.

        Args:
            index: number of the example, 0 or more.
            seed: another seed is another set of examples.
            split: ``"train"`` or ``"held_out"``.
            level: its difficulty. Without it: the published level in the held-out split; one of the training levels
                drawn with weights ``training_levels, …, 2, 1`` in training.

        Raises:
            ParameterError: a level or a split that does not exist, or a negative index.
        """
        if split not in ("train", "held_out"):
            raise ParameterError(f"split={split!r} does not exist: use 'train' or 'held_out'")
        if index < 0:
            raise ParameterError(f"index={index} is negative: examples are numbered from 0")
        if level is not None and not 0 <= level < self.levels:
            raise ParameterError(f"level={level} does not exist in {self.name}: use 0 to {self.levels - 1}")
        rng = random.Random(f"{self.name} {seed} {split} {index} {level}")
        if level is None:
            level = self.published_level if split == "held_out" else self._training_level(rng)
        draw = self.draw_held_out or self.draw if split == "held_out" else self.draw
        for _ in range(MAX_DRAWS):
            messages, answer, data = draw(rng, level)
            if split_of(messages) == split:
                return Example(self.name, level, messages, answer, data)
        raise InternalError(f"no example of {self.name} at level {level} fell into the split {split}")

    def _training_level(self, rng: random.Random) -> int:
        return rng.choices(range(self.training_levels), range(self.training_levels, 0, -1))[0]

    def check(self, example: Example, answer: str) -> bool:
        """Whether the answer is right: exact, except for whitespace around it; never raises, on any text."""
        return len(answer) <= LONGEST_ANSWER and self.accepts(example, answer.strip())

    def steps(self, example: Example, answer: str) -> list[float] | None:
        """Process reward of each line of the answer, in [0, 1]; None where the task has no steps."""
        if self.rewards is None:
            return None
        return self.rewards(example, answer[:LONGEST_ANSWER].strip())


def split_of(messages: Messages) -> Split:
    """The split that a question belongs to: a function of the text of all its messages and of nothing else."""
    text = "\0".join(message["content"] for message in messages)
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return "held_out" if int.from_bytes(digest) % HELD_OUT_SHARE == 0 else "train"


def ask(question: str) -> Messages:
    """A chat of one question."""
    return ({"role": "user", "content": question},)


def chat(*turns: str) -> Messages:
    """A chat of alternating turns; the first and the last are the user's."""
    return tuple({"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns))


def same_text(example: Example, answer: str) -> bool:
    """Whether the answer is the reference answer, letter by letter."""
    return answer == example.answer
