"""Hostile input: a result or one clear error, within bounds."""

from __future__ import annotations

import time

import numpy as np
import pytest

from treille.constraints import Vocabulary, bounded, choices, grammar, json_schema, regex, trie
from treille.errors import ParameterError

VOCABULARY = Vocabulary((*(bytes([byte]) for byte in range(256)), b"", b"aa", b"item"), frozenset((256,)), 259)
MANY = [f"item-{index * 7919}" for index in range(100_000)]


def deep(levels: int) -> object:
    """A schema of nested arrays."""
    schema: object = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def overlapping(count: int) -> dict[str, object]:
    """A schema whose branches multiply."""
    branches = [{"anyOf": [{"required": [f"p{i}"]}, {"required": [f"q{i}"]}]} for i in range(count)]
    return {"allOf": branches, "properties": {f"{letter}{i}": {} for letter in "pq" for i in range(count)}}


HOSTILE = {
    "deep schema": lambda: json_schema(deep(60)),
    "deeper schema": lambda: json_schema(deep(900)),
    "deepest schema": lambda: json_schema(deep(100_000)),
    "recursion without progress": lambda: json_schema({"$ref": "#"}),
    "recursion through allOf": lambda: json_schema(
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}
    ),
    "enormous enum": lambda: json_schema({"enum": MANY}),
    "many properties": lambda: json_schema({"type": "object", "properties": {name: {} for name in MANY[:10_000]}}),
    "many choices": lambda: choices(MANY),
    "branches that multiply": lambda: json_schema(overlapping(16)),
    "huge length": lambda: json_schema({"type": "string", "minLength": 10**6, "maxLength": 10**9}),
    "huge array": lambda: json_schema({"type": "array", "items": {"type": "integer"}, "maxItems": 10**9}),
    "huge repetition": lambda: regex("a{1,1000000000}"),
    "nested repetition": lambda: regex("((a{1,100}){1,100}){1,100}"),
    "exponential alternation": lambda: regex("(a|a)*(a|aa)*b"),
    "exponential nesting": lambda: regex("((a+)+)+b"),
    "exponential states": lambda: regex("[ab]*a[ab]{500}"),
    "deep groups": lambda: regex("(" * 5000 + "a" + ")" * 5000),
    "deep grammar": lambda: grammar("start: " + "(" * 5000 + '"a"' + ")" * 5000),
    "long repetition": lambda: grammar('start: ("a" "b"){1,1000000}'),
    "left recursion": lambda: grammar('start: start start | "a" | start'),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_an_error_or_a_mask_in_time(name: str) -> None:
    """Compiled with a first mask, or refused with one line, within 5 s of processor time of this process."""
    begin = time.process_time()
    constraint, message = attempt(HOSTILE[name])
    assert "\n" not in message
    assert len(message) < 700
    if constraint is not None:
        state = constraint.start()
        out = np.empty((1, VOCABULARY.words), np.int32)
        for _ in range(8):
            constraint.masks([state], out)
            tokens = VOCABULARY.tokens_of(out[0])
            assert len(tokens)
            if tokens[0] == 256:
                break
            # A loose mask allows more than may follow, and a text under it may come to a dead end.
            after = (constraint.advance(state, int(token)) for token in tokens)
            state = next((state for state in after if state is not None), None)
            if state is None:
                assert constraint.loose
                break
    assert time.process_time() - begin < 5


def attempt(make):
    """The constraint, or None with the message of the refusal."""
    try:
        return make().compile(VOCABULARY), ""
    except ParameterError as error:
        return None, str(error)


def test_a_large_list_is_fast_as_a_trie() -> None:
    """A list that is too much for a grammar is none for a trie."""
    constraint = trie(MANY).compile(VOCABULARY)
    assert constraint.accepted(constraint.start(), (*MANY[77].encode(), 256)) == len(MANY[77]) + 1


def test_limits_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grammar that takes too long, or too much memory, is refused and says so; its trial ends with it."""
    large = json_schema({"enum": MANY[:2000]})
    assert large.compile(VOCABULARY)
    for limit, value, message in (("SECONDS", 0.01, r"0\.01 s"), ("MEMORY", 24 << 20, "24 MiB")):
        with monkeypatch.context() as patch:
            patch.setattr(bounded, limit, value)
            with pytest.raises(ParameterError, match=f"more than {message} to compile; split"):
                large.compile(VOCABULARY)


def test_errors_of_large_grammars_are_those_of_small_ones() -> None:
    """What the trial refuses is refused with llguidance's reason."""
    with pytest.raises(ParameterError, match="missing"):
        grammar('start: missing | "' + "x" * 9000 + '"').compile(VOCABULARY)
