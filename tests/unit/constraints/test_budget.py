"""Closing in time."""

from __future__ import annotations

import random

import numpy as np
import pytest

from treille.constraints import BudgetConstraint, Vocabulary, after, choices, grammar, json_schema, regex, trie
from treille.errors import ParameterError

EOS = 256
VOCABULARY = Vocabulary(
    (*(bytes([byte]) for byte in range(256)), b"", b'{"', b'":', b"ab", b"dd", b"abc", b'"}'), frozenset((EOS,)), 270
)
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "integer"}}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
SOURCES = {
    "json": json_schema(SCHEMA, whitespace=1),
    "regex": regex("(abc|d{5,20})+;"),
    "trie": trie(["abcabc", "ab", "ddddd"]),
    "brackets": grammar('start: "(" start* ")"'),
    "call": after("<t>", choices(["ok"]), required=True),
}


def allowed(constraint, state) -> list[int]:
    """The ids of a state's mask; of those of a vague one the ones that are accepted."""
    out = np.empty((1, VOCABULARY.words), np.int32)
    constraint.masks([state], out)
    tokens = [int(token) for token in VOCABULARY.tokens_of(out[0])]
    return [t for t in tokens if constraint.accepted(state, [t])] if constraint.vague(state) else tokens


@pytest.mark.parametrize("tokenization", ["any", "canonical"])
@pytest.mark.parametrize("name", SOURCES)
def test_texts_are_complete_within_the_limit(name: str, tokenization: str) -> None:
    """Whatever is drawn from the masks, the text is complete when the limit is reached, for every limit that can be."""
    inner = SOURCES[name].compile(VOCABULARY, tokenization)
    generator = random.Random(name)
    least = len(inner.closing(inner.start()))
    for limit in (least, least + 1, least + 7, least + 30):
        constraint = BudgetConstraint(inner, limit)
        for _ in range(3):
            state, taken = constraint.start(), 0
            while (taken < limit or not constraint.is_final(state)) and (tokens := allowed(constraint, state)):
                token = generator.choice(tokens)
                state = constraint.advance(state, token)
                assert state is not None
                taken += token != EOS
                assert taken <= limit
            assert constraint.is_final(state), constraint.text(state)


def test_advance_iff_bit() -> None:
    """Near the limit too, `advance` takes exactly the tokens of the mask."""
    constraint = BudgetConstraint(SOURCES["json"].compile(VOCABULARY), 24)
    generator = random.Random(3)
    state = constraint.start()
    while tokens := allowed(constraint, state):
        assert tokens == [token for token in range(270) if constraint.advance(state, token) is not None]
        state = constraint.advance(state, generator.choice(tokens))


@pytest.mark.parametrize("text", [b'{"a":true,"b":[12,3]}', b'{"a": false,"b": [-7]}', b'{"a":true ,"b":[] }'])
def test_near_the_limit_other_values_than_those_of_the_plan_may_follow(text: bytes) -> None:
    """While there is room a text goes its own way: `true` where the known completion says `false`, white space."""
    schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "a": {"type": "boolean"}}}
    inner = json_schema(schema, whitespace=1).compile(VOCABULARY)
    constraint = BudgetConstraint(inner, len(text) + 6)
    state, vague = constraint.start(), 0
    for token in text:
        vague += bool(constraint.vague(state))
        assert constraint.accepted(state, [token]) == 1
        state = constraint.advance(state, token)
        assert state is not None
    assert vague, "the limit is never near: the test shows nothing"
    assert constraint.is_final(state)


def test_far_from_the_limit_nothing_changes() -> None:
    """With room to spare the masks are those of the inner constraint."""
    inner = SOURCES["json"].compile(VOCABULARY)
    constraint = BudgetConstraint(inner, 500)
    state, other = constraint.start(), inner.start()
    for token in b'{"a":"xyz","b":[1,2':
        assert allowed(constraint, state) == allowed(inner, other)
        state, other = constraint.advance(state, token), inner.advance(other, token)


def test_a_limit_that_is_too_small_is_refused() -> None:
    """A limit below the shortest text is an error before the first token."""
    with pytest.raises(ParameterError, match="max_new_tokens=3: too few for this constraint"):
        BudgetConstraint(SOURCES["json"].compile(VOCABULARY), 3)


def test_a_guide_spares_the_search_where_its_completion_is_good_enough() -> None:
    """The validator's completion is taken if it is short enough, else the shorter of its and the search's."""
    inner = SOURCES["json"].compile(VOCABULARY)
    state = inner.start()
    for byte in b'{"a": "x':
        state = inner.advance(state, byte)
    best = inner.closing(state)
    asked = []

    def guide(text: bytes, probe: object) -> tuple[bytes, ...]:
        asked.append(text)
        return (b'yyyyyyy", "b": []}',)

    inner.guide = guide
    assert inner.closing(state) == best
    assert VOCABULARY.decode(inner.closing(state, 40)) == b'yyyyyyy", "b": []}'
    assert asked == [b'{"a": "x'] * 2
    inner.guide = lambda *_: None
    assert inner.closing(state, 40) == best


@pytest.mark.parametrize("prefix", ["", "= "])
def test_the_validator_guides_a_mask(prefix: str) -> None:
    """The validator of a schema completes every beginning of a document, after other text too."""
    source = SOURCES["json"].prefixed(prefix)
    inner = source.compile(VOCABULARY)
    state = inner.start()
    for byte in f'{prefix}{{"a": "x\\u00e9", "b": [1, 20]}}'.encode():
        steps = inner.guide(inner.text(state), inner.probe(state))
        assert steps is not None, inner.text(state)
        assert source.parse((inner.text(state) + b"".join(steps)).decode()).keys() == {"a", "b"}
        state = inner.advance(state, byte)
    assert inner.is_final(state)
