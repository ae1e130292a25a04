"""Questions over a passage of facts; the answer is a span of the passage."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from treille.train.tasks import words
from treille.train.tasks.base import Drawn, Task, chat, same_text

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

COUNTS = (2, 3, 5, 7, 10)  # facts in the passage, per level
TWO_HOPS_FROM = 3  # at this level and above, a person may be named by another fact


class Relation(NamedTuple):
    """How a fact is written, asked for, and used to name its person."""

    fact: str
    question: str
    whose: str
    values: Sequence[str]


RELATIONS = (
    Relation("lives in", "Where does {} live?", "who lives in", words.CITIES),
    Relation("works as a", "What does {} work as?", "who works as a", words.JOBS),
    Relation("has a", "Which animal does {} have?", "who has a", words.ANIMALS),
    Relation("likes", "What does {} like?", "who likes", words.FOODS),
    Relation("wears", "Which color does {} wear?", "who wears", words.COLORS),
)
Fact = tuple[str, Relation, str]


def facts(rng: random.Random, count: int) -> list[Fact]:
    """Facts about a few people: no (person, relation) twice, and no value twice."""
    people = rng.sample(words.NAMES, max(2, (count + 1) // 2))
    pairs = rng.sample([(person, relation) for person in people for relation in RELATIONS], count)
    values = {relation.fact: rng.sample(relation.values, min(len(relation.values), count)) for relation in RELATIONS}
    counts = dict.fromkeys(values, 0)
    found = []
    for person, relation in pairs:
        found.append((person, relation, values[relation.fact][counts[relation.fact]]))
        counts[relation.fact] += 1
    return found


def sentence(fact: Fact) -> str:
    """A fact as a sentence."""
    person, relation, value = fact
    return f"{person} {relation.fact} {value}."


def _question(rng: random.Random, passage: list[Fact], level: int) -> tuple[str, str]:
    person, relation, value = rng.choice(passage)
    others = [fact for fact in passage if fact[0] == person and fact[1] is not relation]
    if level >= TWO_HOPS_FROM and others and rng.random() < 0.7:
        _, other, known = rng.choice(others)
        return relation.question.format(f"the one {other.whose} {known}"), value
    if rng.random() < 0.3:
        return f"Who {relation.fact} {value}?", person
    return relation.question.format(person), value


def draw(rng: random.Random, level: int) -> Drawn:
    """A passage and one question, after none to three questions that were asked and answered before it."""
    passage = facts(rng, COUNTS[level])
    turns: list[str] = []
    asked: set[str] = set()
    for _ in range(rng.randint(1, 4)):
        question, value = _question(rng, passage, level)
        if question not in asked:
            turns += [question, value]
            asked.add(question)
    turns[0] = f"{' '.join(map(sentence, passage))} {turns[0]}"
    return Drawn(chat(*turns[:-1]), turns[-1], {"facts": [sentence(fact) for fact in passage]})


EXTRACT = Task("extract", "a question over a passage of facts; the answer is a span", len(COUNTS), 2, draw, same_text)
