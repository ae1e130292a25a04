"""Random schemas and documents over a small alphabet, so that keywords meet often; spellings of one document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

NAMES = ["a", "b", "ab", "c"]
TEXTS = ["", "a", "ab", "b", "aab", "c\n", "é", "2024-02-29", "2023-02-29"]
NUMBERS = [0, 1, 2, 3, -1, 1.0, 2.5, 0.1, 10, 100, 1e3]
PATTERNS = ["^a", "b$", "^a*b?$", "c", "^[^a]", "^.{2,3}$", "^$"]
TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]


def document(random: Random, depth: int = 2) -> Any:
    """A random document."""
    kind = random.randrange(8 if depth else 5)
    if kind == 0:
        return random.choice([None, True, False])
    if kind in {1, 2}:
        return random.choice(NUMBERS)
    if kind in {3, 4}:
        return random.choice(TEXTS)
    if kind == 5:
        return [document(random, depth - 1) for _ in range(random.randrange(4))]
    names = random.sample(NAMES, random.randrange(len(NAMES) + 1))
    return {name: document(random, depth - 1) for name in names}


def schema(random: Random, depth: int = 3) -> Any:
    """A random schema of draft 2020-12, with references to `#/$defs/x`, which the caller provides."""
    if depth == 0 or random.random() < 0.08:
        return random.choice([True, True, False, {"type": random.choice(TYPES)}, {"const": document(random, 1)}])
    found: dict[str, Any] = {}
    for _ in range(random.choice([1, 1, 2, 2, 3, 4])):
        random.choice(_KEYWORDS)(random, found, depth - 1)
    return found


def _types(random: Random, found: dict[str, Any], depth: int) -> None:
    found["type"] = random.choice([random.choice(TYPES), random.sample(TYPES, 3)])


def _number(random: Random, found: dict[str, Any], depth: int) -> None:
    keyword = random.choice(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
    found[keyword] = random.choice(NUMBERS)
    if random.random() < 0.4:
        found["multipleOf"] = random.choice([1, 2, 0.1, 2.5, 3])


def _string(random: Random, found: dict[str, Any], depth: int) -> None:
    keyword = random.choice(["minLength", "maxLength", "pattern", "format"])
    choices = {"pattern": PATTERNS, "format": ["date", "ipv4"]}.get(keyword, [0, 1, 2, 3])
    found[keyword] = random.choice(choices)


def _values(random: Random, found: dict[str, Any], depth: int) -> None:
    if random.random() < 0.5:
        found["enum"] = [document(random, 1) for _ in range(random.randrange(1, 4))]
    else:
        found["const"] = document(random, 2)


def _array(random: Random, found: dict[str, Any], depth: int) -> None:
    keyword = random.choice(
        [
            "items",
            "prefixItems",
            "contains",
            "minItems",
            "maxItems",
            "uniqueItems",
            "unevaluatedItems",
            "counts",
        ]
    )
    if keyword == "prefixItems":
        found[keyword] = [schema(random, depth) for _ in range(random.randrange(1, 3))]
    elif keyword in {"minItems", "maxItems"}:
        found[keyword] = random.randrange(4)
    elif keyword == "uniqueItems":
        found[keyword] = True
    elif keyword == "counts":
        found |= {"contains": schema(random, depth), "minContains": random.randrange(3), "maxContains": 2}
    else:
        found[keyword] = schema(random, depth)


def _object(random: Random, found: dict[str, Any], depth: int) -> None:
    keyword = random.choice(
        [
            "properties", "properties", "patternProperties", "additionalProperties", "propertyNames", "required",
            "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "unevaluatedProperties",
        ]
    )  # fmt: skip
    if keyword in {"properties", "dependentSchemas"}:
        found[keyword] = {name: schema(random, depth) for name in random.sample(NAMES, 2)}
    elif keyword == "patternProperties":
        found[keyword] = {random.choice(PATTERNS): schema(random, depth)}
    elif keyword in {"minProperties", "maxProperties"}:
        found[keyword] = random.randrange(4)
    elif keyword == "required":
        found[keyword] = random.sample(NAMES, random.randrange(1, 3))
    elif keyword == "dependentRequired":
        found[keyword] = {random.choice(NAMES): random.sample(NAMES, 1)}
    else:
        found[keyword] = schema(random, depth)


def _in_place(random: Random, found: dict[str, Any], depth: int) -> None:
    keyword = random.choice(["allOf", "anyOf", "oneOf", "not", "if", "$ref"])
    if keyword == "not":
        found[keyword] = schema(random, depth)
    elif keyword == "if":
        found |= {key: schema(random, depth) for key in ("if", *random.sample(["then", "else"], random.randrange(3)))}
    elif keyword == "$ref":
        found[keyword] = "#/$defs/x"
    else:
        found[keyword] = [schema(random, depth) for _ in range(random.randrange(1, 4))]


_KEYWORDS = [_types, _number, _string, _values, _array, _array, _object, _object, _object, _in_place, _in_place]


def rooted(random: Random) -> Any:
    """A random schema with its definitions; it never applies itself to the same value."""
    found = schema(random)
    if not isinstance(found, dict):
        return found
    inner = schema(random, 1)
    text = json.dumps(inner)
    return {**found, "$defs": {"x": inner if "$ref" not in text else {"type": "string"}}}


def spelled(random: Random, value: Any) -> str:
    """One of the spellings of a document: spaces, escapes, order of names, forms of numbers."""
    space = random.choice(["", "", " ", "\n\t"])
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=random.random() < 0.5)
    if isinstance(value, int | float):
        return random.choice(_number_forms(value))
    if isinstance(value, list):
        return f"[{space}" + f"{space},{space}".join(spelled(random, item) for item in value) + f"{space}]"
    names = random.sample(list(value), len(value))
    members = (f"{json.dumps(name)}{space}:{space}{spelled(random, value[name])}" for name in names)
    return f"{{{space}" + f"{space},{space}".join(members) + f"{space}}}"


def _number_forms(value: float) -> list[str]:
    """Spellings of a number."""
    plain = repr(value)
    if "e" in plain or "." in plain:
        return [plain, f"{plain}0"] if "e" not in plain else [plain]
    forms = [plain, f"{plain}.0", f"{plain}e0", f"{plain}.00E+1" if value == 0 else f"{plain}0E-01"]
    return [*forms, f"0.{plain}e{len(plain)}"] if value > 0 else forms
