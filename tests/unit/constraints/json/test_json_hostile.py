"""Hostile schemas and documents: a result or an error, soon, and never a RecursionError."""

from __future__ import annotations

import time
from typing import Any

import pytest

from treille.constraints.json import Program, SchemaRefused, State, Violation

SECONDS = 5.0


def compile_and_feed(schema: Any, text: bytes, piece: int = 64) -> State | Violation:
    """What a text comes to; schema and text together take less than `SECONDS` of this process's time."""
    start = time.process_time()
    state: State | Violation = Program.compile(schema).start()
    for at in range(0, len(text), piece):
        assert isinstance(state, State)
        state = state.feed(text[at : at + piece])
        if isinstance(state, Violation):
            break
    assert time.process_time() - start < SECONDS
    return state


def nested(depth: int, keyword: str, inner: Any) -> Any:
    """A schema inside a schema, `depth` times."""
    for _ in range(depth):
        inner = {keyword: [inner] if keyword == "anyOf" else inner}
    return inner


@pytest.mark.parametrize("keyword", ["items", "anyOf", "not"])
def test_deep_schemas(keyword: str) -> None:
    """A schema nested 300 deep runs; one nested 20000 deep is refused, before its pointers fill the memory."""
    wrap = {"type": "null"}
    assert isinstance(compile_and_feed(nested(199, keyword, wrap), b"[[[["), State | Violation)
    with pytest.raises(SchemaRefused, match="nested so deep"):
        Program.compile(nested(20_000, keyword, wrap))


def test_deep_documents_are_rejected_with_the_limit() -> None:
    """Containers nested beyond the limit are no stack overflow but a violation that names it."""
    found = compile_and_feed(True, b"[" * 100_000, piece=1000)
    assert isinstance(found, Violation)
    assert "deeper than 128" in found.reason
    program = Program.compile(True, max_depth=3)
    assert isinstance(program.start().feed(b"[[["), State)
    assert isinstance(program.start().feed(b"[[[["), Violation)


def test_recursive_schemas() -> None:
    """A schema that contains itself runs as deep as the document; one that applies itself in place is refused."""
    tree = {"type": "object", "properties": {"children": {"items": {"$ref": "#"}}}, "additionalProperties": False}
    text = b'{"children":[' * 30 + b"]}" * 30
    found = compile_and_feed(tree, text, piece=1)
    assert isinstance(found, State)
    assert found.complete
    loop = {"$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{(i + 1) % 500}"}]} for i in range(500)}}
    with pytest.raises(SchemaRefused, match="applies itself"):
        Program.compile({**loop, "$ref": "#/$defs/d0"})


def test_enormous_enumerations() -> None:
    """100000 strings, numbers or objects compile within the time and are told apart."""
    texts = {"enum": [f"value-{index}" for index in range(100_000)]}
    assert isinstance(compile_and_feed(texts, b'"value-99999"'), State)
    assert isinstance(compile_and_feed(texts, b'"value-x'), Violation)
    numbers = {"enum": [*range(100_000), None]}
    assert isinstance(compile_and_feed(numbers, b"[99999]"), Violation)
    assert isinstance(compile_and_feed(numbers, b"99999 "), State)
    assert isinstance(compile_and_feed(numbers, b"100000 "), Violation)
    objects = {"enum": [{"a": index} for index in range(20_000)]}
    assert isinstance(compile_and_feed(objects, b'{"a": 19999}'), State)
    assert isinstance(compile_and_feed(objects, b'{"a": 20000}'), Violation)


def test_huge_bounds() -> None:
    """Bounds far beyond memory cost nothing; a pattern that would need as many states is refused."""
    huge = {"maxItems": 10**9, "minItems": 10**8, "maxLength": 10**12, "minProperties": 10**9, "minContains": 10**9}
    assert isinstance(compile_and_feed(huge, b"[1, 2"), State)
    assert isinstance(compile_and_feed(huge, b"[1, 2]"), Violation)
    for pattern in (
        "a{1000000}",
        "(a{100}){100}",
        "(?:(?:a{50}){50}){50}",
        "a{99999999999999999999}",
        "a{0,900000000}",
    ):
        with pytest.raises(SchemaRefused, match="/pattern"):
            Program.compile({"pattern": pattern})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*)*=(.*)*=", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_exponential_patterns_are_linear(pattern: str) -> None:
    """Patterns on which backtracking engines hang take linear time."""
    compile_and_feed({"pattern": pattern}, b'"' + b"a" * 20_000 + b'!"')


def test_a_pattern_with_many_subsets() -> None:
    """Where determinisation is exponential, subsets are made as needed and their table is bounded."""
    text = "".join("ab"[(index * index // 7) % 2] for index in range(5000))
    compile_and_feed({"pattern": "^(a|b)*a(a|b){30}$"}, f'"{text}"'.encode())


def test_long_strings_in_small_pieces() -> None:
    """A string of a megabyte in tokens of four bytes costs time in proportion to its length."""
    text = b'"' + b"a" * 100_000 + b'"'
    found = compile_and_feed({"pattern": "^a*$", "format": "regex"}, text, piece=4)
    assert isinstance(found, State)
    assert found.complete


def test_numbers_of_any_length() -> None:
    """A number longer than the limit is a violation, an exponent of any size is a number."""
    found = compile_and_feed({"type": "number"}, b"1" * 5000)
    assert isinstance(found, Violation)
    assert "4000" in found.reason
    assert isinstance(compile_and_feed({"multipleOf": 0.5, "minimum": 3}, b"7e999999999999999999 "), State)


def test_many_names_and_items() -> None:
    """Unique names and items are looked up in logarithmic time, and shared between forks."""
    names = b"{" + b",".join(b'"%d":0' % index for index in range(20_000)) + b"}"
    assert isinstance(compile_and_feed(True, names), State)
    items = b"[" + b",".join(b"%d" % index for index in range(20_000)) + b",0e5]"
    found = compile_and_feed({"uniqueItems": True}, items)
    assert isinstance(found, Violation)
    assert found.keyword == "uniqueItems"


def test_wide_schemas() -> None:
    """Fifteen thousand properties (a megabyte), and a thousand alternatives."""
    wide = {"properties": {f"p{index}": {"type": "string", "minLength": index % 7} for index in range(15_000)}}
    assert isinstance(compile_and_feed(wide, b'{"p3": "abc", "p6": "abcdef"}'), State)
    union = {"oneOf": [{"properties": {"kind": {"const": f"k{i}"}}, "required": ["kind"]} for i in range(1000)]}
    found = compile_and_feed(union, b'{"kind": "k7", "other": [1, 2, {"kind": "k8"}]}', piece=1)
    assert isinstance(found, State)
    assert found.complete
    assert isinstance(compile_and_feed(union, b'{"kind": "k1000'), Violation)
