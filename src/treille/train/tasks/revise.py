"""Chat of several turns: each revises the previous answer, which is mostly repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.train.tasks import words
from treille.train.tasks.base import Drawn, Task, chat, same_text

if TYPE_CHECKING:
    import random

FIELDS = {
    **words.FIELDS,
    "age": tuple(map(str, range(18, 90))),
    "room": tuple(map(str, range(1, 60))),
}
# Per level: fewest and most fields, fewest and most revisions.
LEVELS = ((1, 2, 1, 1), (2, 3, 1, 2), (3, 4, 2, 3), (4, 6, 2, 4), (6, 8, 3, 5))


def card(fields: dict[str, str]) -> str:
    """The card's text, one field a line."""
    return "\n".join(f"{key}: {value}" for key, value in fields.items())


def _revise(rng: random.Random, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
    """An instruction, and the card after it."""
    key = rng.choice(list(fields))
    missing = [name for name in FIELDS if name not in fields]
    match rng.choice(("change", "change", "add", "remove", "first")):
        case "add" if missing:
            new = rng.choice(missing)
            value = rng.choice(FIELDS[new])
            return f"Add the {new} {value}.", {**fields, new: value}
        case "remove" if len(fields) > 1:
            return f"Remove the {key}.", {name: value for name, value in fields.items() if name != key}
        case "first" if len(fields) > 1:
            return f"Put the {key} first.", {key: fields[key], **fields}
        case _:
            value = rng.choice([value for value in FIELDS[key] if value != fields[key]])
            return f"Change the {key} to {value}.", {**fields, key: value}


def draw(rng: random.Random, level: int) -> Drawn:
    """A chat that writes a card and revises it; the last revision is the question."""
    fewest, most, least, longest = LEVELS[level]
    fields = {key: rng.choice(FIELDS[key]) for key in rng.sample(list(FIELDS), rng.randint(fewest, most))}
    described = ", ".join(f"{key} {value}" for key, value in fields.items())
    turns = [f"Write a card: {described}.", card(fields)]
    for _ in range(rng.randint(least, longest)):
        question, fields = _revise(rng, fields)
        turns += [question, card(fields)]
    return Drawn(chat(*turns[:-1]), turns[-1], {"fields": fields})


REVISE = Task("revise", "a chat that revises the previous answer", len(LEVELS), 3, draw, same_text)
