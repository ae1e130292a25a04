"""JSON records: many small random schemas, described in words, some of the values given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from treille.train.tasks import words
from treille.train.tasks.base import Drawn, Example, Task, ask
from treille.train.tasks.json_schema import fits

if TYPE_CHECKING:
    import random

ENUMS = {
    "status": ("open", "closed", "pending", "done"),
    "size": ("small", "medium", "large"),
    "level": ("low", "normal", "high", "urgent"),
    "day": ("Monday", "Tuesday", "Friday", "Sunday"),
}
NUMBERS = ("age", "count", "score", "price", "room", "id")
FLAGS = ("active", "public", "paid", "member")
LISTS = {"tags": words.COLORS, "pets": words.ANIMALS, "foods": words.FOODS}
OBJECTS = ("owner", "place", "order")
# Per level: fewest and most fields, the kinds of field.
LEVELS = (
    (1, 2, ("string", "integer")),
    (2, 3, ("string", "integer", "boolean")),
    (3, 4, ("string", "integer", "boolean", "enum", "array")),
    (4, 6, ("string", "integer", "boolean", "enum", "array", "object")),
    (6, 8, ("string", "integer", "boolean", "enum", "array", "object", "object")),
)
KEYS: dict[str, tuple[str, ...]] = {
    "string": tuple(words.FIELDS),
    "integer": NUMBERS,
    "boolean": FLAGS,
    "enum": tuple(ENUMS),
    "array": tuple(LISTS),
    "object": OBJECTS,
}


def _field(rng: random.Random, key: str, kind: str) -> tuple[str, dict[str, Any], Any]:
    """The description, the schema and a value of one field that is left to the writer."""
    match kind:
        case "string":
            return f"{key} (string)", {"type": "string"}, rng.choice(words.FIELDS[key])
        case "integer":
            low = rng.randint(1, 60)
            high = low + rng.randint(1, 30)
            schema = {"type": "integer", "minimum": low, "maximum": high}
            return f"{key} ({low} to {high})", schema, rng.randint(low, high)
        case "boolean":
            return f"{key} (boolean)", {"type": "boolean"}, rng.random() < 0.5
        case "enum":
            choices = rng.sample(ENUMS[key], rng.randint(2, 3))
            return f"{key} ({' or '.join(choices)})", {"type": "string", "enum": choices}, rng.choice(choices)
        case "array":
            size = rng.randint(1, 3)
            items = {"type": "array", "items": {"type": "string"}, "minItems": size, "maxItems": size}
            return f"{key} (list of {size})", items, rng.sample(LISTS[key], size)
        case _:
            return _record(rng, key, 2, ("string", "integer"))


def _given(kind: str, value: Any, schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The description of a given value, and the schema without what that value makes redundant."""
    if kind == "boolean":
        return ("true" if value else "false"), schema
    if kind == "integer":
        return str(value), {"type": "integer"}
    return (" and ".join(value) if kind == "array" else str(value)), schema


def _record(
    rng: random.Random, title: str, size: int, kinds: tuple[str, ...]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The description, the schema and a value of an object; given values are part of the schema as ``enum``."""
    chosen = rng.sample([(key, kind) for kind in dict.fromkeys(kinds) for key in KEYS[kind]], size)
    described: list[str] = []
    properties: dict[str, Any] = {}
    record: dict[str, Any] = {}
    for key, kind in chosen:
        description, schema, value = _field(rng, key, kind)
        if kind != "object" and rng.random() < 0.6:
            text, schema = _given(kind, value, schema)
            description, schema = f"{key} {text}", {**schema, "enum": [value]}
        described.append(description)
        properties[key], record[key] = schema, value
    text = f"{title} with [{', '.join(described)}]" if title != "record" else ", ".join(described)
    required = {"required": list(properties), "additionalProperties": False}
    return text, {"type": "object", "properties": properties, **required}, record


def draw(rng: random.Random, level: int) -> Drawn:
    """A schema in words, and a record that fits it."""
    fewest, most, kinds = LEVELS[level]
    described, schema, record = _record(rng, "record", rng.randint(fewest, most), kinds)
    return Drawn(ask(f"Write a JSON record: {described}."), json.dumps(record), {"schema": schema})


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key stands twice")
    return record


def accepts(example: Example, answer: str) -> bool:
    """Whether the answer is one JSON object that fits the schema, given values included, no key twice."""
    try:
        value = json.loads(answer, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):  # the second: thousands of opening brackets
        return False
    return fits(value, example.data["schema"])


JSON = Task("json", "a JSON record for a schema described in words", len(LEVELS), 2, draw, accepts)
