"""Arithmetic with written steps: a chain worked from the left, one step a line, each step checkable."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from treille.train.tasks.base import Drawn, Example, Task, ask

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
# Per level: fewest and most operations, largest operand, the signs drawn from, largest value on the way.
LEVELS = (
    (1, 2, 9, "+-", 20),
    (2, 3, 19, "++-", 60),
    (3, 4, 49, "+-", 99),
    (3, 5, 99, "+-*", 300),
    (5, 7, 99, "+-*", 999),
)


def work(first: int, chain: Sequence[tuple[str, int]]) -> list[str]:
    """The lines of the solution: one per operation, ``a + b = c``, and ``answer: c``."""
    lines, total = [], first
    for sign, number in chain:
        result = SIGNS[sign](total, number)
        lines.append(f"{total} {sign} {number} = {result}")
        total = result
    return [*lines, f"answer: {total}"]


def _operation(rng: random.Random, total: int, level: int) -> tuple[str, int, int]:
    _, _, largest, signs, ceiling = LEVELS[level]
    while True:
        sign = rng.choice(signs)
        number = rng.randint(2, 9) if sign == "*" else rng.randint(1, largest)
        result: int = SIGNS[sign](total, number)
        if 0 <= result <= ceiling:
            return sign, number, result


def draw(rng: random.Random, level: int) -> Drawn:
    """A chain without negative values on the way, and its worked solution."""
    fewest, most, largest, _, _ = LEVELS[level]
    total = first = rng.randint(1, largest)
    chain: list[tuple[str, int]] = []
    for _ in range(rng.randint(fewest, most)):
        sign, number, total = _operation(rng, total, level)
        chain.append((sign, number))
    expression = " ".join([str(first), *(f"{sign} {number}" for sign, number in chain)])
    order = " from left to right" if "*" in expression else ""
    return Drawn(ask(f"Compute {expression}{order}."), "\n".join(work(first, chain)), {"first": first, "chain": chain})


def accepts(example: Example, answer: str) -> bool:
    """Whether the last line is ``answer: c`` with the right value; steps() judges the lines before it."""
    return answer.rsplit("\n", maxsplit=1)[-1].rstrip() == work(example.data["first"], example.data["chain"])[-1]


def rewards(example: Example, answer: str) -> list[float]:
    """1 for each line that is the worked solution's line at its place, else 0."""
    expected = work(example.data["first"], example.data["chain"])
    lines = answer.split("\n")
    return [float(i < len(expected) and line.rstrip() == expected[i]) for i, line in enumerate(lines)]


ARITHMETIC = Task(
    "arithmetic", "a chain of operations, worked from the left, one step a line", len(LEVELS), 0, draw, accepts, rewards
)
