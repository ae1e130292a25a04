"""Recommendation: a catalogue and a history; the next items by a rule that the history shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.train.tasks import words
from treille.train.tasks.base import Drawn, Task, ask, same_text

if TYPE_CHECKING:
    import random

# Per level: items in the catalogue, in the history, of them in another colour; items to recommend.
LEVELS = ((3, 1, 0, 1), (5, 2, 0, 1), (7, 3, 1, 2), (10, 4, 1, 2), (14, 6, 2, 3))


def draw(rng: random.Random, level: int) -> Drawn:
    """The rule: of the colour bought most often, the first items of the catalogue that were not bought yet."""
    size, bought, stray, wanted = LEVELS[level]
    favourite, *others = rng.sample(words.COLORS, 4 if level > 1 else 3)
    things = rng.sample(words.THINGS, min(size, len(words.THINGS)))
    own = [f"{favourite} {thing}" for thing in things[: bought - stray + wanted + (level > 1)]]
    pool = [f"{color} {thing}" for thing in words.THINGS for color in others]
    rest = rng.sample(pool, size - len(own))
    strays = rest[:stray]
    if len({item.split()[0] for item in strays}) < stray:  # two of one colour would look like a second favourite
        strays = rest[:1]
    history = [*rng.sample(own, bought - stray), *strays]
    rng.shuffle(history)
    catalogue = [*own, *rest]
    rng.shuffle(catalogue)
    answer = [item for item in catalogue if item.startswith(f"{favourite} ") and item not in history][:wanted]
    number = "item" if wanted == 1 else f"{wanted} items"
    question = f"Catalogue: {', '.join(catalogue)}. Bought: {', '.join(history)}. Recommend {number}."
    return Drawn(ask(question), ", ".join(answer), {"catalogue": catalogue, "history": history, "wanted": wanted})


RECOMMEND = Task("recommend", "the next items from a catalogue, given a history", len(LEVELS), 1, draw, same_text)
