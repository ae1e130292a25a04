"""One operation on a short list: copy, reverse, sort, remove, replace, insert, append, shuffle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.train.tasks import words
from treille.train.tasks.base import Drawn, Example, Task, ask

if TYPE_CHECKING:
    import random

SIZES = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12))  # fewest and most items, per level
LARGEST = (13, 29, 99, 99, 99)  # largest number in a list, per level
WORDS = (*words.COLORS, *words.ANIMALS, *words.THINGS)
OPERATIONS = ("Copy", "Reverse", "Sort", "Remove", "Replace", "Insert", "Append", "Shuffle")


def _operate(rng: random.Random, items: list[str], new: str) -> tuple[str, list[str]]:
    """A question's first words, and the list that answers it."""
    place = rng.randrange(len(items))
    one = items[place]
    match rng.choice(OPERATIONS):
        case "Copy":
            return "Copy", items
        case "Reverse":
            return "Reverse", items[::-1]
        case "Sort":
            return "Sort", sorted(items, key=lambda item: (int(item) if item.isdecimal() else 0, item))
        case "Remove":
            return f"Remove {one} from", [item for item in items if item != one]
        case "Replace":
            return f"Replace {one} with {new} in", [new if item == one else item for item in items]
        case "Insert":
            return f"Insert {new} after {one} in", [*items[: place + 1], new, *items[place + 1 :]]
        case "Append":
            return f"Append {new} to", [*items, new]
        case _:
            answer = items[:]
            while answer == items:
                rng.shuffle(answer)
            return "Shuffle", answer


def draw(rng: random.Random, level: int) -> Drawn:
    """An operation on distinct words or numbers."""
    size = rng.randint(*SIZES[level])
    pool = list(WORDS) if rng.random() < 0.5 else [str(n) for n in range(1, LARGEST[level] + 1)]
    *items, new = rng.sample(pool, size + 1)
    question, result = _operate(rng, items, new)
    data = {"shuffled": items} if question == "Shuffle" else {"expected": result}
    return Drawn(ask(f"{question}: {', '.join(items)}"), ", ".join(result), data)


def accepts(example: Example, answer: str) -> bool:
    """Whether the list is the expected one; a shuffle is any other order of the same items."""
    items = answer.split(", ")
    if "expected" in example.data:
        return bool(items == example.data["expected"])
    given = example.data["shuffled"]
    return sorted(items) == sorted(given) and items != given


LISTS = Task("lists", "one operation on a list of words or numbers", len(SIZES), 2, draw, accepts)
