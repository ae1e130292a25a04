"""Every keyword that needs the second layer, as a user meets it: the bundled model, temperature 1, a few seeds."""

from __future__ import annotations

import json

import pytest

import treille
from treille.constraints import json_schema
from treille.constraints.independent import check_document

INTEGER = {"type": "integer"}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
FLAG = {"type": "boolean"}


def closed(properties, **more):
    """An object with these properties only."""
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def array(items, **more):
    """An array."""
    return {"type": "array", "items": items, **more}


SCHEMAS = {
    "uniqueItems": array({"enum": [1, 2, 3]}, uniqueItems=True, minItems=2),
    "uniqueItems of words": array({"enum": ["red", "green"]}, uniqueItems=True, minItems=2),
    "uniqueItems of flags": array(FLAG, uniqueItems=True),
    "uniqueItems of objects": array(closed({"id": {"enum": [1, 2]}}, required=["id"]), uniqueItems=True, minItems=2),
    "uniqueItems of a tuple": array(items=False, prefixItems=[{"enum": [1, 2]}] * 3, uniqueItems=True),
    "not enum": {"type": "string", "maxLength": 8, "not": {"enum": ["a", "b"]}},
    "not required": closed({"a": INTEGER, "b": INTEGER}, **{"not": {"required": ["a", "b"]}}),
    "contains": array(DIGIT, contains={"const": 7}, maxItems=5),
    "contains with counts": array(DIGIT, contains={"minimum": 5}, minContains=2, maxContains=3, maxItems=6),
    "contains anything": {"type": "array", "contains": {"type": "object"}, "maxContains": 1},
    "dependentRequired": closed({"a": INTEGER, "b": {"type": "string"}}, dependentRequired={"a": ["b"]}),
    "dependentSchemas": {"type": "object", "properties": {"a": INTEGER},
                         "dependentSchemas": {"a": {"required": ["b"], "properties": {"b": FLAG}}}},
    "if": closed({"kind": {"enum": ["x", "y"]}, "v": {}}, required=["kind", "v"],
                 **{"if": {"properties": {"kind": {"const": "x"}}}, "then": {"properties": {"v": INTEGER}},
                    "else": {"properties": {"v": {"type": "string"}}}}),
    "oneOf": {"oneOf": [{"type": "integer", "minimum": 5}, {"type": "integer", "maximum": 8}]},
    "oneOf of objects": {"type": "object",
                         "oneOf": [{"properties": {name: INTEGER}, "required": [name]} for name in "ab"]},
    "patternProperties": {"type": "object", "patternProperties": {"^a": INTEGER, "b$": {"minimum": 3}},
                          "additionalProperties": False, "minProperties": 1},
    "multipleOf": {"type": "integer", "multipleOf": 97, "minimum": 1, "maximum": 1000},
    "not multipleOf": {"type": "integer", "not": {"multipleOf": 3}},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False, "allOf": [
        {"properties": {"a": INTEGER}, "required": ["a"]}, {"properties": {"b": FLAG}}]},
    "unevaluatedItems": {"type": "array", "allOf": [{"prefixItems": [INTEGER, {"type": "string"}]}],
                         "unevaluatedItems": FLAG, "minItems": 2},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^[a-c]{1,2}$"}, "minProperties": 2},
    "minProperties": {"type": "object", "minProperties": 2, "maxProperties": 3, "additionalProperties": INTEGER},
    "format": closed({"d": {"type": "string", "format": "date"}}, required=["d"]),
    "nested": closed({"tags": array({"enum": ["a", "b", "c"]}, uniqueItems=True, minItems=1),
                      "who": closed({"x": INTEGER, "y": INTEGER}, dependentRequired={"x": ["y"]})},
                     required=["tags", "who"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def lm() -> treille.LanguageModel:
    """The bundled model."""
    return treille.load()


def complete(lm: treille.LanguageModel, schema, seed) -> None:
    """The text ends in time and the package `jsonschema` finds it valid."""
    result = lm.generate(
        "Give an answer in JSON: ", strategy="sample", temperature=1.0, max_new_tokens=96,
        constraint=json_schema(schema), seed=seed,
    )  # fmt: skip
    assert result.finish_reason == "constraint", result.text
    check_document(json.dumps(schema), result.text)


@pytest.mark.parametrize("name", ["uniqueItems", "uniqueItems of words", "uniqueItems of flags", "not required"])
def test_white_space_costs_no_way_back(lm, name) -> None:
    """Where only a bracket may follow the last of few values, no seed ends in an error."""
    for seed in range(5):
        complete(lm, SCHEMAS[name], seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_keyword_gives_valid_documents(lm, name) -> None:
    """No keyword of the second layer ends in an error or a cut text."""
    for seed in range(5):
        complete(lm, SCHEMAS[name], seed)
