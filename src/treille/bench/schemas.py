"""Schemas with a document each: those of the json task, and generated ones of more kinds."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treille.train.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("id", "name", "address", "email", "tags", "count", "price", "active", "parent", "children", "kind", "note")
WORDS = ("blue", "river", "Amsterdam", "a longer text with blanks", "émigré", "x-1", "")


@dataclass(frozen=True, slots=True)
class Case:
    """A schema, and a document of it."""

    schema: dict[str, Any]
    document: str


def of_the_task(count: int) -> list[Case]:
    """Schemas of the json task, all levels in turn, with the reference answers."""
    task = TASKS["json"]
    per_level = -(-count // task.levels)
    examples = [
        task.example(index, split="held_out", level=level) for index in range(per_level) for level in range(task.levels)
    ]
    return [Case(dict(example.data["schema"]), example.answer) for example in examples[:count]]


def generated(count: int, seed: int = 0) -> list[Case]:
    """Schemas of objects, nested up to four deep, of all types and bounds that a mask expresses."""
    rng = random.Random(seed)
    cases = []
    for index in range(count):
        schema, value = _object(rng, 1 + index % 4)
        cases.append(Case(schema, json.dumps(value, ensure_ascii=False)))
    return cases


def _any(rng: random.Random, depth: int) -> tuple[dict[str, Any], Any]:
    kinds: list[Callable[[random.Random, int], tuple[dict[str, Any], Any]]] = [_string, _number, _choice, _nullable]
    if depth:
        kinds += [_object, _array]
    return rng.choice(kinds)(rng, depth - 1)


def _object(rng: random.Random, depth: int) -> tuple[dict[str, Any], Any]:
    names = rng.sample(NAMES, rng.randint(1, 6))
    members = {name: _any(rng, depth) for name in names}
    required = rng.sample(names, rng.randint(0, len(names)))
    schema = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in members.items()},
        "required": required,
        "additionalProperties": rng.random() < 0.3,
    }
    return schema, {n: value for n, (_, value) in members.items() if n in required or rng.random() < 0.5}


def _array(rng: random.Random, depth: int) -> tuple[dict[str, Any], Any]:
    schema, value = _any(rng, depth)
    size = rng.randint(1, 4)
    return {"type": "array", "items": schema, "maxItems": size + 2}, [value] * size


def _string(rng: random.Random, _depth: int) -> tuple[dict[str, Any], Any]:
    digits = f"{rng.randrange(10**4):04}-{rng.randrange(100):02}"
    word = rng.choice(WORDS)
    kinds: list[tuple[dict[str, Any], Any]] = [
        ({"type": "string"}, word),
        ({"type": "string", "maxLength": 40}, word),
        ({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"}, digits),
        ({"type": "string", "format": "uuid"}, f"{rng.randrange(16**8):08x}-0000-4000-8000-000000000000"),
    ]
    return rng.choice(kinds)


def _number(rng: random.Random, _depth: int) -> tuple[dict[str, Any], Any]:
    low, value = rng.randint(-50, 0), rng.randint(1, 99)
    bounded = {"type": "integer", "minimum": low, "maximum": 100}
    kinds: list[tuple[dict[str, Any], Any]] = [
        ({"type": "integer"}, value), (bounded, value), ({"type": "number"}, value + 0.5),
    ]  # fmt: skip
    return rng.choice(kinds)


def _choice(rng: random.Random, _depth: int) -> tuple[dict[str, Any], Any]:
    values = rng.sample(WORDS, 3)
    return {"enum": values}, values[0]


def _nullable(rng: random.Random, depth: int) -> tuple[dict[str, Any], Any]:
    schema, value = _any(rng, min(depth, 1)) if depth > 0 else _string(rng, 0)
    return {"anyOf": [schema, {"type": "null"}]}, rng.choice([value, None])
