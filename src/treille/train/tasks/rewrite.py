"""Rewriting with heavy overlap: most of the answer is copied from the passage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.train.tasks import words
from treille.train.tasks.base import Drawn, Task, ask, same_text
from treille.train.tasks.extract import Fact, facts, sentence

if TYPE_CHECKING:
    import random

COUNTS = ((1, 2), (2, 3), (3, 5), (5, 7), (7, 10))  # fewest and most sentences, per level
OPERATIONS = ("person", "value", "drop", "keep", "join", "reverse")


def _joined(passage: list[Fact]) -> str:
    """One sentence per person, in the order of the people's first facts: ``Ada lives in Oslo and has a dog.``."""
    parts: dict[str, list[str]] = {}
    for person, relation, value in passage:
        parts.setdefault(person, []).append(f"{relation.fact} {value}")
    return " ".join(f"{person} {' and '.join(clauses)}." for person, clauses in parts.items())


def _rewrite(rng: random.Random, passage: list[Fact]) -> tuple[str, str]:
    """An instruction and the passage after it."""
    sentences = [sentence(fact) for fact in passage]
    person, relation, value = rng.choice(passage)
    match rng.choice(OPERATIONS):
        case "person":
            new = rng.choice([name for name in words.NAMES if all(name != fact[0] for fact in passage)])
            return f"Replace {person} with {new}", " ".join(sentences).replace(person, new)
        case "value":
            new = rng.choice([word for word in relation.values if word not in " ".join(sentences)])
            return f"Replace {value} with {new}", " ".join(sentences).replace(f" {value}.", f" {new}.")
        case "drop" if len({fact[0] for fact in passage}) > 1:
            return f"Leave out {person}", " ".join(s for s in sentences if not s.startswith(person))
        case "keep":
            return f"Keep only {person}", " ".join(s for s in sentences if s.startswith(person))
        case "join":
            return "Write one sentence per person", _joined(passage)
        case _:
            return "Reverse the order of the sentences", " ".join(reversed(sentences))


def draw(rng: random.Random, level: int) -> Drawn:
    """An instruction with its passage, and the passage rewritten."""
    passage = facts(rng, rng.randint(*COUNTS[level]))
    instruction, answer = _rewrite(rng, passage)
    source = " ".join(map(sentence, passage))
    return Drawn(ask(f"{instruction}: {source}"), answer, {"passage": source})


REWRITE = Task("rewrite", "a passage rewritten by an instruction; most is copied", len(COUNTS), 1, draw, same_text)
