"""How many held-out questions a model answers right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treille.train.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.language_model import LanguageModel
    from treille.train.tasks import Example

AT_ONCE = 64  # questions of one call of `generate`
LONGEST = 320  # tokens of an answer; the longest reference answers have fewer


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Answers that a checker accepted.

    Attributes:
        task: Name of the task.
        level: Difficulty.
        right: Accepted answers.
        count: Questions.
    """

    task: str
    level: int
    right: int
    count: int

    @property
    def share(self) -> float:
        """Share of right answers."""
        return self.right / self.count

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's score interval of the share; 95 % by default."""
        p, n = self.share, self.count
        centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def held_out(task: str, level: int, count: int, seed: int = 0) -> list[Example]:
    """The first ``count`` held-out examples of a task at a level."""
    return [TASKS[task].example(index, seed=seed, split="held_out", level=level) for index in range(count)]


def accuracy(lm: LanguageModel, examples: Sequence[Example], **options: Any) -> Accuracy:
    """Accuracy of the model on examples of one task and level, greedily unless ``options`` name another strategy.

    A question that leaves no room for an answer in the model's context counts as answered wrong.
    """
    context = lm.checkpoint.decoder.shape.context_length
    longest = min(LONGEST, context // 2)
    fitting = [one for one in examples if len(lm.encode(list(one.messages))) + longest <= context]
    right = 0
    for start in range(0, len(fitting), AT_ONCE):
        part = fitting[start : start + AT_ONCE]
        given = lm.generate([list(one.messages) for one in part], **{"max_new_tokens": longest, **options})
        right += sum(TASKS[one.task].check(one, answer.text) for one, answer in zip(part, given, strict=True))
    return Accuracy(examples[0].task, examples[0].level, right, len(examples))


def accuracies(lm: LanguageModel, count: int, *, every_level: bool = False) -> list[Accuracy]:
    """Greedy accuracy of every task on ``count`` held-out examples, at its published level or at every level."""
    pairs = [
        (task.name, level)
        for task in TASKS.values()
        for level in (range(task.levels) if every_level else (task.published_level,))
    ]
    return [accuracy(lm, held_out(task, level, count)) for task, level in pairs]
