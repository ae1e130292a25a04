"""JSON Schema by two layers: what the mask cannot express, the validator does; and who enforces what is told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from treille.constraints import Vocabulary, after, json_schema
from treille.constraints.independent import check_document
from treille.constraints.json import SchemaRefused
from treille.constraints.json_superset import superset
from treille.constraints.layered import LayeredConstraint
from treille.errors import InternalError, ParameterError

EOS = 256
VOCABULARY = Vocabulary(
    (*(bytes([byte]) for byte in range(256)), b"", b'{"', b'":', b"12", b"1,"), frozenset((EOS,)), 261
)


def accepts(constraint, text) -> bool:
    """Whether the constraint takes a whole text, both at once and token by token."""
    tokens = (*text.encode(), EOS)
    whole = constraint.accepted(constraint.start(), tokens) == len(tokens)
    state = constraint.start()
    for token in tokens:
        state = None if state is None else constraint.advance(state, token)
    assert (state is not None) == whole
    return whole


CASES = [
    ({"type": "array", "uniqueItems": True}, ["[1,2]", '["a", {}]'], ["[1,1.0]", "[{},{}]", "3"]),
    ({"type": "integer", "not": {"multipleOf": 3}}, ["1", "-10"], ["3", "0", "1.5"]),
    ({"contains": {"const": 1}, "type": "array"}, ["[1]", "[2, 1]"], ["[]", "[2]"]),
    ({"oneOf": [{"minimum": 5, "type": "integer"}, {"maximum": 8, "type": "integer"}]}, ["2", "9"], ["6"]),
    ({"if": {"minimum": 10}, "then": {"multipleOf": 5}, "type": "integer"}, ["9", "10"], ["11"]),
    ({"dependentRequired": {"a": ["b"]}, "type": "object"}, ["{}", '{"a":1,"b":2}'], ['{"a":1}']),
    ({"patternProperties": {"^a": {"type": "integer"}, "b$": {"minimum": 3}}}, ['{"ab":4}'], ['{"ab":1}', '{"a":""}']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2023-02-29"', '"x"']),
    ({"propertyNames": {"maxLength": 2}, "type": "object"}, ['{"ab":1}'], ['{"abc":1}']),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "valid", "invalid"), CASES)
def test_two_layers_are_exact(schema, valid, invalid) -> None:
    """Valid documents are taken, invalid ones are not, and the report names the second layer."""
    source = json_schema(schema)
    constraint = source.compile(VOCABULARY)
    assert isinstance(constraint, LayeredConstraint)
    assert constraint.loose
    assert [accepts(constraint, text) for text in valid] == [True] * len(valid)
    assert [accepts(constraint, text) for text in invalid] == [False] * len(invalid)
    assert any(entry.by == "second layer" for entry in source.report())
    for text in valid:
        source.check(text)


def test_what_the_mask_expresses_needs_no_second_layer() -> None:
    """Ordinary schemas keep exact masks, and the report says so, with the departure of key order."""
    source = json_schema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    assert not source.compile(VOCABULARY).loose
    report = {(entry.pointer, entry.keyword): entry for entry in source.report()}
    assert {entry.by for entry in report.values()} == {"mask"}
    assert "order" in report["#", "properties"].reason


def test_any_order() -> None:
    """ordered=False takes properties in any order, each once, and none is missing."""
    schema = {"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a", "b"], "additionalProperties": False}
    constraint = json_schema({"type": "object", **schema}, ordered=False).compile(VOCABULARY)
    assert accepts(constraint, '{"b":1,"a":2}')
    assert accepts(constraint, '{"a":1, "b":{"c":[]}}')
    assert not any(accepts(constraint, text) for text in ('{"a":1}', '{"a":1,"a":2}', '{"a":1,"b":2,"b":3}', '{"c":1}'))


def test_any_spelling() -> None:
    """ordered=False takes every spelling of a number and of a constant; by default there is one."""
    free = json_schema({"enum": [1, {"a": 1, "b": 2}]}, ordered=False).compile(VOCABULARY)
    assert all(accepts(free, text) for text in ("1", "1.0", "10e-1", '{"b":2,"a":1}'))
    assert not accepts(free, '{"a":1}')
    assert not accepts(json_schema({"enum": [1]}).compile(VOCABULARY), "1.0")
    assert accepts(json_schema({"type": "integer"}, ordered=False).compile(VOCABULARY), "2.0")


def test_a_name_in_escapes_is_that_name() -> None:
    """An escaped spelling of a listed name does not pass for an additional one."""
    constraint = json_schema({"type": "object", "properties": {"a": {"type": "integer"}}}).compile(VOCABULARY)
    assert accepts(constraint, '{"a":1,"c":""}')
    assert not accepts(constraint, '{"\\u0061":""}')


def test_formats_and_registry() -> None:
    """Formats assert unless that is switched off; references lead to given documents, and only there."""
    assert not accepts(json_schema({"format": "ipv4", "type": "string"}).compile(VOCABULARY), '"x"')
    assert accepts(json_schema({"format": "ipv4", "type": "string"}, formats=False).compile(VOCABULARY), '"x"')
    schema = {"$ref": "http://example.com/a"}
    with pytest.raises(SchemaRefused, match="registry="):
        json_schema(schema).compile(VOCABULARY)
    constraint = json_schema(schema, registry={"http://example.com/a": {"type": "integer"}}).compile(VOCABULARY)
    assert accepts(constraint, "1")
    assert not accepts(constraint, '"1"')


def test_states_of_two_layers_are_values() -> None:
    """A fork leaves its origin as it is; ends are offered only where both layers end."""
    constraint = json_schema({"type": "array", "uniqueItems": True}).compile(VOCABULARY)
    state = constraint.start()
    for token in b"[1,2":
        state = constraint.advance(state, token)
    other = constraint.advance(state, ord("3"))
    assert constraint.text(other) == b"[1,23"
    assert constraint.text(state) == b"[1,2"
    assert constraint.advance(state, EOS) is None
    done = constraint.advance(state, ord("]"))
    assert constraint.is_final(done)
    assert not constraint.is_final(state)
    assert constraint.closing(state) == (ord("]"),)


def test_what_is_sure() -> None:
    """In a string of which only the length counts, tokens of plain characters that fit, and `advance` allows them."""
    constraint = json_schema({"type": "array", "items": {"maxLength": 3}, "uniqueItems": True}).compile(VOCABULARY)
    state = constraint.start()
    for token, sure in (
        (ord("["), set()), (ord('"'), {b"a", b"12", b"1,"}), (259, {b"a"}), (ord("a"), set()),
    ):  # fmt: skip
        state = constraint.advance(state, token)
        found = constraint.sure(state)
        tokens = [] if found is None else found.nonzero()[0].tolist()
        assert {VOCABULARY.tokens[token] for token in tokens} & {
            b"a",
            b"12",
            b"1,",
            b'"',
            b"\\",
            b"\n",
            b"\x80",
        } == sure
        mask = np.empty((1, VOCABULARY.words), np.int32)
        constraint.masks([state], mask)
        assert all(constraint.advance(state, token) for token in set(tokens) & set(VOCABULARY.tokens_of(mask[0])))


def test_what_matters_of_a_text() -> None:
    """White space between the parts of a document does not, but that a number has ended does."""
    constraint = json_schema({"type": "array", "uniqueItems": True}).compile(VOCABULARY)
    for text, essence in (
        (b"[1 , 2", b"[1,2"), (b"[12 \n", b"[12 "), (b'[" a ", ', b'[" a ",'), (b'["\\" b', b'["\\" b'), (b"", b""),
    ):  # fmt: skip
        assert constraint.essence(text) == essence
        assert constraint.essence(essence) == essence


def test_no_document_is_an_error() -> None:
    """A schema that nothing satisfies is refused with the place."""
    for schema in (False, {"not": {}}, {"enum": []}):
        with pytest.raises(ParameterError, match=r"no document satisfies it \(#"):
            json_schema(schema).compile(VOCABULARY)


def test_strict() -> None:
    """What nobody enforces is refused with its place; with strict=False it is left out and named."""
    schema = {"type": "array", "items": {"pattern": "(a)\\1"}, "uniqueItems": True}
    with pytest.raises(SchemaRefused, match=r"#/items/pattern: a backreference"):
        json_schema(schema).compile(VOCABULARY)
    constraint = json_schema(schema, strict=False).compile(VOCABULARY)
    assert constraint.unenforced[0].startswith("#/items/pattern: ")
    assert accepts(constraint, '["b"]')
    assert not accepts(constraint, '["b","b"]')
    under = {"type": "string", "not": {"pattern": "(a)\\1"}}
    assert json_schema(under, strict=False).compile(VOCABULARY).unenforced[0].startswith("#/not: ")


def test_a_prefix_before_two_layers() -> None:
    """What healing puts before a document is no part of it."""
    source = json_schema({"type": "array", "uniqueItems": True}).prefixed("= ")
    constraint = source.compile(VOCABULARY)
    assert accepts(constraint, "= [1]")
    assert not accepts(constraint, "= [1,1]")
    assert not accepts(constraint, "[1]")
    assert constraint.closing(constraint.start()) == tuple(b"= []")
    assert source.parse("= [1]") == [1]


def test_two_layers_inside_a_grammar_are_refused() -> None:
    """A trigger's grammar can hold only what a grammar enforces."""
    assert after("#", json_schema({"type": "integer"})).compile(VOCABULARY)
    with pytest.raises(ParameterError, match=r"inside another grammar: .*uniqueItems needs more"):
        after("#", json_schema({"uniqueItems": True})).compile(VOCABULARY)


def test_a_superset_leaves_out_what_depends() -> None:
    """Without patternProperties no additionalProperties; oneOf is anyOf; not and if go."""
    found = superset(
        {"patternProperties": {"a": {}}, "additionalProperties": False, "oneOf": [{}], "not": {}, "title": "t"},
        without=frozenset({"patternProperties"}),
    )
    assert found.schema == {"allOf": [{"anyOf": [{}]}]}
    assert {keyword for _, keyword in found.lost} == {"patternProperties", "additionalProperties", "oneOf", "not"}
    closed = superset({"properties": {"a": {}}, "unevaluatedProperties": False})
    assert closed.schema["additionalProperties"] is False


def test_the_independent_check() -> None:
    """It takes valid documents, with exact decimals; refuses others; and says nothing where it cannot tell."""
    schema = json.dumps({"type": "object", "properties": {"a": {"multipleOf": 0.01}, "b": {"type": "integer"}}})
    check_document(schema, '{"a": 4.35, "b": 1.0}')
    with pytest.raises(InternalError, match="violates #/properties/b/type"):
        check_document(schema, '{"b": 1.5}')
    check_document('{"pattern": "\\\\p{L}"}', '"1"')
