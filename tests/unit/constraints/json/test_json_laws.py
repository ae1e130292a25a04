"""Random schemas × random documents: the same answer as the jsonschema library, prefixes sound, forks independent."""

from __future__ import annotations

import json
from random import Random

import jsonschema
import pytest
from random_schemas import document, rooted, spelled

from treille.constraints.json import Program, SchemaRefused, State, Violation

SCHEMAS, DOCUMENTS = 250, 8


def feed_all(program: Program, text: bytes, random: Random) -> tuple[list[State], Violation | None]:
    """The states after each of a few random pieces, and the violation that ended it."""
    states, at = [program.start()], 0
    while at < len(text):
        size = random.choice([1, 1, 2, 5, 40])
        after = states[-1].feed(text[at : at + size])
        if isinstance(after, Violation):
            return states, after
        states.append(after)
        at += size
    return states, None


@pytest.mark.parametrize("block", range(4))
def test_agrees_with_the_jsonschema_library(block: int) -> None:
    """At the end of a document the answer is that of an independent validator; no prefix of a valid one is rejected."""
    checker = jsonschema.FormatChecker(["date", "ipv4"])
    valid = 0
    for seed in range(block * SCHEMAS, (block + 1) * SCHEMAS):
        random = Random(seed)
        schema = rooted(random)
        program = Program.compile(schema)
        validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
        for _ in range(DOCUMENTS):
            value = document(random)
            text = spelled(random, value)
            states, violation = feed_all(program, text.encode(), random)
            accepted = violation is None and states[-1].complete
            expected = validator.is_valid(value)
            assert accepted == expected, f"seed {seed}: {json.dumps(schema)} with {text!r}: {violation}"
            valid += expected
    assert SCHEMAS * DOCUMENTS / 4 < valid < SCHEMAS * DOCUMENTS * 3 / 4


def test_a_state_is_a_value() -> None:
    """Feeding a state changes neither it nor what its other continuations come to."""
    for seed in range(150):
        random = Random(seed)
        program = Program.compile(rooted(random))
        texts = [spelled(random, document(random)).encode() for _ in range(3)]
        alone = [feed_all(program, text, Random(0))[1] for text in texts]
        for text in texts:
            states, violation = feed_all(program, text, Random(0))
            for state in random.sample(states, min(3, len(states))):
                for other in texts:
                    state.feed(other)  # any bytes at all
            again, after = feed_all(program, text, Random(0))
            assert after == violation
            assert [state.complete for state in again] == [state.complete for state in states]
        assert [feed_all(program, text, Random(0))[1] for text in texts] == alone


def test_pieces_do_not_matter() -> None:
    """However the bytes are cut, the answer is the same."""
    for seed in range(150):
        random = Random(seed)
        program = Program.compile(rooted(random))
        for _ in range(4):
            text = spelled(random, document(random)).encode()
            whole = program.start().feed(text)
            for cut in range(1, len(text), 3):
                first = program.start().feed(text[:cut])
                second = first.feed(text[cut:]) if isinstance(first, State) else first
                assert isinstance(second, State) == isinstance(whole, State)
                if isinstance(second, State) and isinstance(whole, State):
                    assert second.complete == whole.complete


def test_rejected_prefixes_have_no_valid_completion() -> None:
    """What is rejected early is rejected because of all completions: no valid document of a sample starts with it."""
    for seed in range(120):
        random = Random(seed)
        try:
            program = Program.compile(rooted(random))
        except SchemaRefused:
            continue
        accepted, rejected = [], []
        for _ in range(40):
            text = spelled(random, document(random)).encode()
            state: State | Violation = program.start()
            for at in range(len(text)):
                assert isinstance(state, State)
                state = state.feed(text[at : at + 1])
                if isinstance(state, Violation):
                    rejected.append(text[: at + 1])
                    break
            else:
                assert isinstance(state, State)
                accepted += [text] if state.complete else []
        assert not [(prefix, text) for prefix in rejected for text in accepted if text.startswith(prefix)]
