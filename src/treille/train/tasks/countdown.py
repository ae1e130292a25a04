"""Countdown: reach a number from given ones with +, - and *, each used once. Needs search from three numbers on."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from treille.train.tasks.base import Drawn, Example, Task, ask

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

# Per level: how many numbers, the largest of them, largest target, the signs.
LEVELS = ((2, 30, 99, "+-*"), (3, 9, 30, "+-"), (3, 9, 60, "+-*"), (4, 9, 60, "+-"), (4, 12, 99, "+-*"))
STEP = re.compile(r"(\d{1,6}) ([-+*]) (\d{1,6}) = (\d{1,6}), left(( \d{1,6})+)")


def moves(numbers: Sequence[int], signs: str = "+-*") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each step that joins two of the numbers: its line, and the numbers left after it."""
    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            high, low = max(numbers[i], numbers[j]), min(numbers[i], numbers[j])
            rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
            for sign in signs:
                value = {"+": high + low, "-": high - low, "*": high * low}[sign]
                left = (*rest, value)
                yield f"{high} {sign} {low} = {value}, left {' '.join(map(str, left))}", left


def reachable(numbers: Sequence[int], target: int) -> bool:
    """Whether some sequence of steps leaves exactly the target."""
    if len(numbers) == 1:
        return numbers[0] == target
    return any(reachable(left, target) for _, left in moves(numbers))


def draw(rng: random.Random, level: int) -> Drawn:
    """Numbers and a target that a random walk over the moves reached."""
    size, largest, ceiling, signs = LEVELS[level]
    while True:
        left: tuple[int, ...] = tuple(rng.randint(1, largest) for _ in range(size))
        numbers, lines = left, []
        while len(left) > 1:
            line, left = rng.choice(list(moves(left, signs)))
            lines.append(line)
        if 0 < left[0] <= ceiling:
            break
    question = f"Reach {left[0]} from {', '.join(map(str, numbers))}."
    return Drawn(ask(question), "\n".join(lines), {"numbers": list(numbers), "target": left[0]})


def follow(numbers: Sequence[int], line: str) -> tuple[int, ...] | None:
    """The numbers left after a written step; None when the step is not valid from these numbers."""
    match = STEP.fullmatch(line.rstrip())
    if match is None:
        return None
    one, sign, other, value = int(match[1]), match[2], int(match[3]), int(match[4])
    left = tuple(map(int, match[5].split()))
    rest = Counter(numbers)
    rest.subtract((one, other))
    right = {"+": one + other, "-": one - other, "*": one * other}[sign]
    if min(rest.values()) < 0 or value != right or Counter(left) != +rest + Counter([value]):
        return None
    return left


def accepts(example: Example, answer: str) -> bool:
    """Whether every line is a valid step from the numbers left before it, and the last leaves the target alone."""
    left: tuple[int, ...] | None = tuple(example.data["numbers"])
    for line in answer.split("\n"):
        left = follow(left, line) if left is not None else None
    return left == (example.data["target"],)


def rewards(example: Example, answer: str) -> list[float]:
    """1 for each valid step after which the target can still be reached, else 0."""
    left: tuple[int, ...] | None = tuple(example.data["numbers"])
    values = []
    for line in answer.split("\n"):
        left = follow(left, line) if left else None
        values.append(float(left is not None and reachable(left, example.data["target"])))
    return values


COUNTDOWN = Task("countdown", "reach a number from given ones, each used once", len(LEVELS), 1, draw, accepts, rewards)
