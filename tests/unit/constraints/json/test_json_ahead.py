"""A prefix that nothing can follow is rejected where something must follow; so is half a character that fits not."""

from __future__ import annotations

import json
from itertools import permutations, product

import jsonschema
import pytest

from treille.constraints.json import Program, State, lexer

INTEGER = {"type": "integer"}
ARRAYS = [
    ({"items": {"enum": [1, 2, 3]}, "uniqueItems": True}, [1, 2, 3]),
    ({"items": {"type": "boolean"}, "uniqueItems": True}, [True, False]),
    ({"items": {"enum": ["a", "ab", None]}, "uniqueItems": True, "minItems": 2}, ["a", "ab", None]),
    ({"items": {"enum": [1, 2]}, "contains": {"const": 1}, "maxContains": 1, "maxItems": 3}, [1, 2]),
    ({"items": {"enum": [1, 2]}, "contains": {"const": 2}, "minContains": 2, "maxItems": 3}, [1, 2]),
    ({"prefixItems": [{"enum": [1, 2]}] * 3, "items": False, "uniqueItems": True}, [1, 2]),
    ({"items": {"enum": ["a", "b"], "not": {"const": "a"}}, "maxItems": 2}, ["a", "b"]),
    ({"items": {"enum": [1, 2]}, "maxItems": 2, "not": {"minItems": 2}}, [1, 2]),
]
OBJECTS = [
    {"properties": {"a": INTEGER, "b": INTEGER}, "not": {"required": ["a", "b"]}, "additionalProperties": False},
    {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"const": 1}, "minProperties": 2},
    {"properties": {"a": {"const": 1}, "b": {"const": 1}}, "unevaluatedProperties": False,
     "dependentRequired": {"a": ["b"]}},
    {"properties": {"a": {"enum": [1, 2]}, "b": {"enum": [1, 2]}}, "additionalProperties": False,
     "if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "then": {"properties": {"b": {"const": 2}}}},
]  # fmt: skip


def check(schema, documents) -> None:
    """Of all prefixes that end where a value, a name, a comma or a bracket must follow: rejected iff none is valid."""
    validator = jsonschema.Draft202012Validator(schema)
    texts = {json.dumps(document, separators=(",", ":")): validator.is_valid(document) for document in documents}
    assert any(texts.values())
    valid = [text for text, holds in texts.items() if holds]
    program = Program.compile(schema)
    for prefix in {text[:end] for text in texts for end in range(1, len(text)) if text[end - 1] in '[{:,"e'}:
        alive = isinstance(program.start().feed(prefix.encode()), State)
        assert alive == any(text.startswith(prefix) for text in valid), prefix


@pytest.mark.parametrize(("schema", "items"), ARRAYS)
def test_arrays_see_ahead(schema, items) -> None:
    """After a comma, a bracket or a quote in an array with few items: rejected iff no valid array begins like this."""
    check({"type": "array", **schema}, [list(found) for n in range(5) for found in product(items, repeat=n)])


@pytest.mark.parametrize("schema", OBJECTS)
def test_objects_see_ahead(schema) -> None:
    """After a comma, a bracket, a colon or a quote in an object: rejected iff no valid object begins like this."""
    named = (names for n in range(4) for names in permutations("abc", n))
    documents = [
        dict(zip(names, found, strict=True)) for names in named for found in product([1, 2], repeat=len(names))
    ]
    check({"type": "object", **schema}, documents)


def test_white_space_leads_nowhere() -> None:
    """The comma itself is rejected, so that no white space after it can delay that."""
    state = Program.compile({"items": {"enum": [1, 2]}, "uniqueItems": True}).start().feed(b"[1, 2 ")
    assert isinstance(state, State)
    assert not isinstance(state.feed(b","), State)
    assert isinstance(state.feed(b"]"), State)


def escaped(char: str) -> list[str]:
    """The spellings of a character with escapes, and its bytes as they are (as Latin-1)."""
    units = char.encode("utf-16-be").hex()
    long = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    return [long, char.encode().decode("latin-1"), *({"\n": ["\\n"], "/": ["\\/"]}.get(char, []))]


PROBES = ["a", "b", "/", "\n", "\u00e9", "\u00ea", "\ud7ff", "\uffee", "\U0001f600", "\U0001f601", "\U0010ffff"]


@pytest.mark.parametrize(
    ("schema", "allowed"),
    [
        ({"enum": ["a", "\U0001f600"]}, "a\U0001f600"),
        ({"const": "\u00e9"}, "\u00e9"),
        ({"pattern": "^[a\n\uffee]$"}, "a\n\uffee"),
        ({"pattern": "^[\U0001f601-\U0010ffff]$"}, "\U0001f601\U0010ffff"),
        ({"maxLength": 0}, ""),
    ],
)
def test_half_a_character(schema, allowed) -> None:
    """A character or an escape that has begun is rejected iff no character that it may become is allowed."""
    program = Program.compile({"type": "string", **schema})
    spellings = [spelling for char in allowed for spelling in escaped(char)]
    for text in {spelling[:end] for char in PROBES for spelling in escaped(char) for end in range(1, len(spelling))}:
        alive = isinstance(program.start().feed(b'"' + text.encode("latin-1")), State)
        assert alive == any(spelling.startswith(text) for spelling in spellings), text


def test_names_in_escapes_are_judged_early() -> None:
    """An escaped name that is none of those allowed is rejected before its escape is complete."""
    program = Program.compile({"properties": {"a": {}}, "additionalProperties": False})
    assert isinstance(program.start().feed(b'{"\\u006'), State)
    assert not isinstance(program.start().feed(b'{"\\u01'), State)


def test_the_range_of_a_half_is_exact() -> None:
    """Its ends are characters that are spelled like it, and their neighbours are not."""
    halves = {spelling[:end].encode("latin-1") for char in PROBES for spelling in escaped(char)[:2]
              for end in range(1, len(spelling))}  # fmt: skip
    for half in halves - {b"\\", b"\\u"}:
        for low, high in lexer.characters(half):
            for point, inside in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
                if 0 <= point <= 0x10FFFF and not 0xD800 <= point < 0xE000:
                    spelled = any(text.encode("latin-1").startswith(half) for text in escaped(chr(point)))
                    assert spelled == inside, (half, hex(point))
