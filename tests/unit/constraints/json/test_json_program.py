"""What callers see: early rejection and its message, completeness, reports, drafts, references, JSON itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treille.constraints.json import Program, SchemaRefused, State, Violation, needs_second_layer, with_mask
from treille.errors import ParameterError


def rejected_at(schema: Any, text: str | bytes, **options: Any) -> int | None:
    """The number of bytes after which a text is rejected; None if never."""
    state = Program.compile(schema, **options).start()
    data = text.encode() if isinstance(text, str) else text
    for at in range(len(data)):
        after = state.feed(data[at : at + 1])
        if isinstance(after, Violation):
            return at + 1
        state = after
    return None


CLOSED = {"properties": {"ab": {}, "ac": {}, "b": {"type": "null"}}, "additionalProperties": False}
UNION = {
    "oneOf": [
        {"properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]},
        {"properties": {"kind": {"const": "dog"}, "lives": False}, "required": ["kind"]},
    ]
}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, "[|"),
        ({"type": ["array", "null"]}, '"|'),
        ({"enum": ["alpha", "beta"]}, '"alx|'),
        ({"enum": ["alpha", "beta"]}, '"alpha1|'),
        ({"const": {"a": [1, 2]}}, '{"a":[1,3|'),
        ({"const": {"a": 1}}, '{"b|'),
        ({"const": [1]}, "[1,|"),
        ({"maxLength": 2}, '"éé\\|'),
        ({"pattern": "^a+b$"}, '"aac|'),
        ({"pattern": "^a{4}$", "maxLength": 3}, '"a|'),
        ({"format": "date"}, '"2024-13|'),
        ({"format": "date"}, '"2023-02-29"|'),
        ({"maximum": 10, "minimum": 5}, "-|"),
        ({"maximum": 99, "minimum": 50}, "4|"),
        ({"type": "integer", "maximum": 50}, "51|"),
        ({"maximum": 10}, "11e+|"),
        ({"minimum": 10}, "9e-|"),
        ({"const": 12}, "13|"),
        ({"const": 12}, "120e-2|"),
        ({"multipleOf": 3}, "4,|"),
        ({"maxItems": 1}, "[1,|"),
        ({"items": {"type": "string"}}, "[1|"),
        ({"prefixItems": [{}], "items": False}, "[1,|"),
        ({"uniqueItems": True}, "[1,10e-1]|"),
        ({"contains": {"type": "null"}, "maxItems": 2}, "[1,2,|"),
        ({"contains": {"type": "null"}, "maxContains": 1}, "[null,n|"),
        (CLOSED, '{"ad|'),
        (CLOSED, '{"b":1|'),
        (CLOSED, '{"ab":1,"ac":2,"b":null,|'),
        (CLOSED, '{"b":null,"b|'),
        ({"maxProperties": 1}, '{"a":1,|'),
        ({"maxProperties": 2, "required": ["a", "b"]}, '{"c"|'),
        ({"propertyNames": {"pattern": "^x"}}, '{"y|'),
        ({"not": {"type": "object"}}, "{|"),
        ({"not": {"required": ["a"]}}, '{"a"|'),
        ({"allOf": [{"type": ["string", "null"]}, {"type": "null"}]}, '"|'),
        ({"anyOf": [{"type": "null"}, {"maxLength": 1}]}, '"aa|'),
        ({"oneOf": [{"type": "null"}, {"type": ["null", "string"]}]}, "n|"),
        ({"if": {"type": "string"}, "then": {"maxLength": 1}}, '"aa|'),
        (UNION, '{"kind":"co|'),
        (UNION, '{"kind":"dog","lives"|'),
        ({"dependentRequired": {"a": ["b"]}}, '{"a":1}|'),
        ({"dependentSchemas": {"a": {"maxProperties": 1}}}, '{"a":1,|'),
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, '{"b|'),
        ({"allOf": [{"properties": {"ab": {}}}], "unevaluatedProperties": False}, '{"aa|'),
        ({"items": {"properties": {"a": {"items": {"maximum": 0}}}}}, '[{"a":[1|'),
    ],
)
def test_rejected_as_soon_as_hopeless(schema: Any, text: str) -> None:
    """A prefix that nothing can save is rejected at the byte that makes it so (marked by a bar)."""
    assert rejected_at(schema, text.removesuffix("|")) == len(text.encode()) - 1


def test_a_number_ends_at_the_next_byte() -> None:
    """A number at the root is complete, and may go on."""
    state = Program.compile({"multipleOf": 5}).start().feed(b"12")
    assert isinstance(state, State)
    assert not state.complete
    longer = state.feed(b"5")
    assert isinstance(longer, State)
    assert longer.complete
    assert not longer.ended
    assert isinstance(longer.feed(b".0e"), State)
    done = longer.feed(b" ")
    assert isinstance(done, State)
    assert done.complete
    assert done.ended


def test_a_violation_says_where_and_why() -> None:
    """Schema pointer, keyword, instance pointer and reason; through alternatives down to the one that was left."""
    schema = {"properties": {"a/b": {"items": {"$ref": "#/$defs/small"}}}, "$defs": {"small": {"maximum": 10}}}
    found = Program.compile(schema).start().feed(b'{"a/b": [1, 20, 3]}')
    assert isinstance(found, Violation)
    assert (found.schema, found.keyword, found.instance) == ("#/$defs/small", "maximum", "/a~1b/1")
    assert str(found) == "#/$defs/small/maximum: at /a~1b/1: 20 is not allowed"
    found = Program.compile(UNION).start().feed(b'{"kind": "cow"}')
    assert isinstance(found, Violation)
    assert (found.schema, found.keyword, found.instance) == ("#", "oneOf", "")


def test_the_report_covers_every_keyword() -> None:
    """Every keyword of every schema that can be reached is enforced, or listed as an annotation with the reason."""
    schema = {
        "type": "object", "title": "x", "properties": {"a": {"format": "colour", "maxLenght": 3}}, "then": {},
        "contentEncoding": "base64", "$defs": {"unused": {"maximum": 1}},
    }  # fmt: skip
    report = Program.compile(schema).report
    by = {(entry.pointer, entry.keyword): entry for entry in report}
    assert by["#", "type"].by == "second layer"
    assert by["#", "properties"].by == "second layer"
    assert by["#", "title"].by == "annotation"
    assert by["#", "then"].reason == "there is no if"
    assert by["#/properties/a", "format"].reason == "the format 'colour' is not known"
    assert by["#/properties/a", "maxLenght"].by == "annotation"
    assert ("#/$defs/unused", "maximum") not in by
    assert needs_second_layer(report)
    assert not needs_second_layer(with_mask(report, lambda _: True))


def test_inspect_lists_what_is_refused() -> None:
    """`inspect` does not raise: it names every refused keyword, with the reason."""
    schema = {"anyOf": [{"$ref": "http://example.com/x"}, {"pattern": r"(a)\1"}, {"minimum": 1}]}
    refused = [entry for entry in Program.inspect(schema) if entry.by == "refused"]
    assert sorted((entry.pointer, entry.keyword) for entry in refused) == [
        ("#/anyOf/0", "$ref"),
        ("#/anyOf/1", "pattern"),
    ]
    assert all(entry.reason for entry in refused)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"$ref": "#/$defs/no"}, "#/$ref"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "#/properties/a/$ref"),
        ({"$ref": "#nowhere"}, "#/$ref"),
        ({"pattern": "(?<=a)b"}, "#/pattern"),
        ({"pattern": "(a"}, "#/pattern"),
        ({"patternProperties": {"[": {}}}, "#/patternProperties"),
        ({"type": "text"}, "#/type"),
        ({"minLength": -1}, "#/minLength"),
        ({"maximum": "3"}, "#/maximum"),
        ({"multipleOf": 0}, "#/multipleOf"),
        ({"required": "a"}, "#/required"),
        ({"allOf": []}, "#/allOf"),
        ({"items": 3}, "#/items"),
        ({"enum": 3}, "#/enum"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "#/$schema"),
        ({"$ref": "#"}, "#/$ref"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/anyOf/1"}]}, "#/anyOf/1/$ref"),
        (3, "#"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_place(schema: Any, place: str) -> None:
    """The error is a user error and starts with the pointer of the keyword."""
    with pytest.raises(ParameterError) as found:
        Program.compile(schema)
    assert isinstance(found.value, SchemaRefused)
    assert str(found.value).startswith(f"JSON Schema refused at {place}: ")


def test_drafts_differ_where_they_should() -> None:
    """`$schema` decides, `draft=` overrides it, and a keyword of another draft is an annotation."""
    old = "http://json-schema.org/draft-07/schema#"
    tuple_items = {"items": [{"type": "null"}], "additionalItems": False}
    assert rejected_at({"$schema": old, **tuple_items}, "[null,") == 6
    assert rejected_at(tuple_items, "[1]", draft=7) == 2
    with pytest.raises(SchemaRefused):
        Program.compile(tuple_items)
    beside = {"$ref": "#/definitions/a", "maxLength": 1, "definitions": {"a": {"type": "string"}}}
    assert rejected_at(beside, '"ab"', draft=7) is None
    assert rejected_at(beside, '"ab"', draft=2019) == 3
    with pytest.raises(ParameterError, match="draft=3"):
        Program.compile({}, draft=3)


def test_documents_come_from_the_registry() -> None:
    """A reference leads into a document of the registry, never to the network; metaschemas are known."""
    registry = {"http://example.com/x": {"$defs": {"n": {"type": "null"}}}}
    assert rejected_at({"$ref": "http://example.com/x#/$defs/n"}, "1", registry=registry) == 1
    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert rejected_at(meta, '{"type": "strin",') is not None
    assert rejected_at(meta, '{"type": "string", "minLength": 3}') is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (b'"\xff', 2), (b'"\xc0\xaf', 2), (b'"\xed\xa0\x80', 3), (b'"\xf4\x90', 3), (b'"\x01', 2), (b'"\\x', 3),
        (b'"\\ud800"', 8), (b'"\\udc00', 5), (b'"\\ud800\\u0041', 10), (b"01", 2), (b"+1", 1), (b"1.]", 3), (b".5", 1),
        (b"[1,]", 4), (b'{"a":1,}', 8), (b"{,", 2), (b"nul1", 4), (b"1 2", 3), (b"'a'", 1), (b'{"a" 1', 6), (b"{1", 2),

        (b'{"a":1,"\\u0061"', 15), (b"\xef\xbb\xbf1", 1), (b"1e5.", 4), (b"--", 2), (b"]", 1), (b"[}", 2),
    ],
)  # fmt: skip
def test_only_json_is_accepted(text: bytes, at: int) -> None:
    """RFC 8259 to the letter: UTF-8, escapes, numbers, separators; strings are Unicode text, names are unique."""
    assert rejected_at(True, text) == at


def test_all_of_json_is_accepted() -> None:
    """Every escape, characters of one to four bytes cut anywhere, white space, numbers of all forms."""
    value = {"é\n\u2028😀": ["\x00", '"\\/', -0.0, 1e-7, 123456789012345678901234567890, [], {}, True, None]}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent="\t"), ' "\\ud83d\\uDE00" '):
        assert rejected_at({"type": ["object", "string"]}, text) is None
        state = Program.compile(True).start().feed(text.encode())
        assert isinstance(state, State)
        assert state.complete


def test_open_keywords_are_listed() -> None:
    """`open` names what is decided only at the end of a value that is being read, and forgets what is settled."""
    schema = {"required": ["a"], "properties": {"a": {"format": "date"}}, "oneOf": [{"required": ["b"]}, {}]}
    state = Program.compile(schema).start().feed(b'{"a": "20')
    assert isinstance(state, State)
    assert "#/properties/a/format" in state.open
    assert {"#/required", "#/oneOf"} <= set(state.open)
    assert Program.compile({}).start().open == ()


def test_numbers_are_exact() -> None:
    """No comparison goes through a float: neighbours beyond 2**53, tenths, exponents beyond any float."""
    assert rejected_at({"const": 9007199254740993}, "9007199254740992 ") is not None
    assert rejected_at({"multipleOf": 0.1}, "0.3 ") is None
    assert rejected_at({"multipleOf": 0.01}, "4.35 ") is None
    assert rejected_at({"multipleOf": 7}, "1e1000000000 ") is not None
    assert rejected_at({"multipleOf": 5}, "1e1000000000 ") is None
    assert rejected_at({"type": "integer"}, "1.50e1 ") is None
    assert rejected_at({"type": "integer"}, "1.5 ") is not None
    assert rejected_at({"minimum": 1e308}, "1e309 ") is None
    assert rejected_at({"exclusiveMinimum": 0}, "0.0e-5 ") is not None
    assert rejected_at({"maximum": -5, "minimum": -6}, "-5.5 ") is None
