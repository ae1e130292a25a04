"""Questions to queries over a toy knowledge graph: basic graph patterns in SPARQL."""

from __future__ import annotations

import random
import re
from functools import cache
from typing import TYPE_CHECKING

from treille.train.tasks import words
from treille.train.tasks.base import Drawn, Example, Task, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

PERSONAL = ("mother", "father", "boss", "friend", "neighbor", "teacher")  # relations between two people
PLAIN = {"city": words.CITIES, "job": words.JOBS, "pet": words.ANIMALS, "color": words.COLORS, "food": words.FOODS}
GRAPHS = 3  # a query is right when its results are right in as many graphs
SIZES = ((1, 2), (2, 2), (3, 3), (4, 4), (4, 5))  # fewest and most patterns, per level
UNSEEN = 1  # the hardest level has up to one pattern more than any training text
LONGEST_QUERY = 8  # patterns

Triple = tuple[str, str, str]
QUERY = re.compile(r"SELECT (\?[a-z]) \{ (.*) \}")
TERM = re.compile(r":\w+|\?[a-z]", re.ASCII)


@cache
def graph(number: int = 0) -> frozenset[Triple]:
    """The triples (subject, relation, object) of toy graph ``number``; 0 is the one the questions are about."""
    rng = random.Random(f"toy graph {number}")
    triples: set[Triple] = set()
    for person in words.NAMES:
        others = [name for name in words.NAMES if name != person]
        triples |= {(person, relation, rng.choice(others)) for relation in PERSONAL}
        triples |= {(person, relation, rng.choice(values)) for relation, values in PLAIN.items()}
    return frozenset(triples)


@cache
def _index(number: int) -> dict[tuple[str, str], list[str]]:
    """Objects by (subject, relation), and subjects by (object, ``^relation``)."""
    index: dict[tuple[str, str], list[str]] = {}
    for subject, relation, value in sorted(graph(number)):
        index.setdefault((subject, relation), []).append(value)
        index.setdefault((value, f"^{relation}"), []).append(subject)
    return index


def parse(query: str) -> tuple[str, list[Triple]] | None:
    """The variable asked for and the patterns; None when the text is not a query of the subset.

    The subset: ``SELECT ?x { :Ada :mother ?x . ?x :city ?y }``, relations constant, every pattern with a variable.
    """
    match = QUERY.fullmatch(query)
    if match is None:
        return None
    patterns = []
    for part in match[2].split(" . "):
        terms = part.split(" ")
        if len(terms) != 3 or not all(TERM.fullmatch(term) for term in terms) or terms[1].startswith("?"):
            return None
        patterns.append((terms[0], terms[1][1:], terms[2]))
    if len(patterns) > LONGEST_QUERY or not any(match[1] in (s, o) for s, _, o in patterns):
        return None
    return match[1], patterns


def _matches(pattern: Triple, known: dict[str, str], number: int) -> Iterator[dict[str, str]]:
    """The bindings of one pattern that agree with what is known."""
    subject, relation, value = (known.get(term, term) for term in pattern)
    index = _index(number)
    if subject.startswith(":"):
        found = [(subject, f":{v}") for v in index.get((subject[1:], relation), [])]
    elif value.startswith(":"):
        found = [(f":{s}", value) for s in index.get((value[1:], f"^{relation}"), [])]
    else:
        found = [(f":{s}", f":{v}") for s, r, v in sorted(graph(number)) if r == relation]
    for one, other in found:
        bound = dict(known)
        if all(bound.setdefault(term, to) == to if term[0] == "?" else term == to
               for term, to in ((pattern[0], one), (pattern[2], other))):  # fmt: skip
            yield bound


def run(query: str, number: int = 0) -> frozenset[str] | None:
    """The results of a query over toy graph ``number``; None when it is not a query of the subset."""
    parsed = parse(query)
    if parsed is None:
        return None
    wanted, patterns = parsed
    bindings: list[dict[str, str]] = [{}]
    for pattern in patterns:
        found = (bound for known in bindings for bound in _matches(pattern, known, number))
        # Equal bindings are one; more than this many only come from patterns that share no variable.
        bindings = [dict(items) for items in {tuple(sorted(bound.items())) for bound in found}]
        if len(bindings) > 2000:
            return None
    return frozenset(bound[wanted][1:] for bound in bindings)


def _chain(rng: random.Random, hops: int) -> tuple[str, list[str], str]:
    """A phrase (``the city of the boss of Ada``), the patterns that lead to it and the last relation."""
    phrase = subject = rng.choice(words.NAMES)
    relations = [*rng.choices(PERSONAL, k=hops - 1), rng.choice([*PERSONAL, *PLAIN])]
    patterns, term = [], f":{subject}"
    for relation, variable in zip(relations, "abcde", strict=False):
        patterns.append(f"{term} :{relation} ?{variable}")
        phrase, term = f"the {relation} of {phrase}", f"?{variable}"
    return phrase, patterns, relations[-1]


def _star(rng: random.Random, conditions: int) -> tuple[str, list[str]]:
    """``the city Oslo and the job baker`` for values of one person of the graph, and its patterns on ?a."""
    person = rng.choice(words.NAMES)
    relations = rng.sample([*PLAIN, *PERSONAL], conditions)
    values = [_index(0)[person, relation][0] for relation in relations]
    phrase = " and ".join(f"the {r} {v}" for r, v in zip(relations, values, strict=True))
    return phrase, [f"?a :{r} :{v}" for r, v in zip(relations, values, strict=True)]


def draw(rng: random.Random, level: int) -> Drawn:
    """A question in words and its query: chains of relations, stars of conditions, and both."""
    kind = rng.choice(("chain", "star", "same") if level else ("chain", "star"))
    fewest, most = SIZES[level]
    size = fewest if fewest == most else rng.randint(fewest, most)
    if kind == "chain":
        phrase, patterns, _ = _chain(rng, size)
        question, variable = f"Who or what is {phrase}?", patterns[-1][-1]
    elif kind == "star":
        phrase, patterns = _star(rng, size)
        question, variable = f"Who has {phrase}?", "a"
    else:
        phrase, patterns, relation = _chain(rng, size - 1)
        question, variable = f"Who has the same {relation} as {phrase.split(' of ', 1)[1]}?", "x"
        patterns.append(f"?x :{relation} {patterns[-1][-2:]}")
    query = f"SELECT ?{variable} {{ {' . '.join(patterns)} }}"
    return Drawn(ask(question), query, {"query": query})


def accepts(example: Example, answer: str) -> bool:
    """Whether the query gives the reference's results in each of three graphs; order and variables are free."""
    return all(run(answer, n) == run(example.data["query"], n) for n in range(GRAPHS))


KNOWLEDGE_GRAPH = Task(
    "knowledge_graph", "a question to a SPARQL query over a toy graph", len(SIZES), 4, draw, accepts, unseen=UNSEEN
)
