"""What users write: sources, their languages, and their refusals."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pydantic
import pytest

from treille.constraints import Vocabulary, after, choices, grammar, json_object, json_schema, regex, trie
from treille.errors import DecodingError, ParameterError

if TYPE_CHECKING:
    from pathlib import Path

EOS = 256
VOCABULARY = Vocabulary((*(bytes([byte]) for byte in range(256)), b"", b"ab"), frozenset((EOS,)), 258)


def accepts(constraint, text: str | bytes) -> bool:
    """Whether a text belongs to the language."""
    tokens = text if isinstance(text, bytes) else text.encode()
    return constraint.accepted(constraint.start(), (*tokens, EOS)) == len(tokens) + 1


@pytest.mark.parametrize(
    "pattern",
    [
        "", "a", "^ab|b$", "a*?b", "[^a]", r"\s", r"\w-?", ".", "a{2}",
        "(?P<n>a)b", "a||b", "(?i)É", r"\x41", r"\u0041b?",
        r"a\ b", "a#b", r"[\-a]+", r"\"", "(?s:.)", "a/b", r"\d+", r"[\[]a", r"[]a]", "[^]a]", "é+",
        r"\n", "\n", "(a|b)(?:a|-)", "b+?a??",
    ],
)  # fmt: skip
def test_regex_means_what_it_means_in_python(pattern: str) -> None:
    """On all short texts over a small alphabet, `regex` accepts what `re.fullmatch` matches."""
    constraint = regex(pattern).compile(VOCABULARY)
    for size in range(4):
        for word in itertools.product('abA/é \n-1"#[', repeat=size):
            text = "".join(word)
            assert accepts(constraint, text) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bword",
        "a(?=b)",
        "(?<!a)b",
        r"(a)\1",
        "a$b",
        "(",
        "a{2,1}",
        "a{,2}",
        "[",
        "\ud800",
        "[[]a",
        "[a&&b]",
        "[ab--b]",
    ],
)
def test_regex_refusals(pattern: str) -> None:
    """What has no exact mask, and what is no pattern, is refused with one line."""
    with pytest.raises(ParameterError, match=r"^regex") as error:
        regex(pattern).compile(VOCABULARY)
    assert "\n" not in str(error.value)


def test_after() -> None:
    """After the first trigger only the constraint goes on; the trigger is required, or may repeat, as asked."""
    inner = choices(["ok", "no"])
    words = ["", "x", "x<t", "<t>ok", "a<<t>no", "<t>", "<t>x", "<t>okx", "<t>ok<t>no", "<t>ok, <t>", "é\n<t>ok"]
    expected = {
        (False, False): {"", "x", "x<t", "<t>ok", "a<<t>no", "é\n<t>ok"},
        (True, False): {"<t>ok", "a<<t>no", "é\n<t>ok"},
        (False, True): {"", "x", "x<t", "<t>ok", "a<<t>no", "<t>okx", "<t>ok<t>no", "é\n<t>ok"},
        (True, True): {"<t>ok", "a<<t>no", "<t>okx", "<t>ok<t>no", "é\n<t>ok"},
    }
    for (required, repeat), accepted in expected.items():
        constraint = after("<t>", inner, required=required, repeat=repeat).compile(VOCABULARY)
        assert {word for word in words if accepts(constraint, word)} == accepted


def test_json_schema_whitespace() -> None:
    """Whitespace is bounded by the number given, absent if compact, free if asked for."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    texts = ['{"a":1}', '{"a": 1}', '{ "a":\n\n1}', '{"a":' + " " * 99 + "1}"]
    for whitespace, count in (("compact", 1), (0, 1), (1, 2), (2, 3), (32, 3), ("any", 4)):
        constraint = json_schema(schema, whitespace=whitespace).compile(VOCABULARY)
        assert [accepts(constraint, text) for text in texts] == [index < count for index in range(4)]


def test_usual_whitespace() -> None:
    """What formatters write is accepted, indented by spaces or tabs; blank lines and wide gaps are not."""
    value = {"a": [1, {"b": {}, "c": []}], "d": "x"}
    constraint = json_schema({"type": "object"}).compile(VOCABULARY)
    for indent in (None, 0, 1, 4, "\t"):
        assert accepts(constraint, json.dumps(value, indent=indent))
        assert accepts(constraint, json.dumps(value, indent=indent).replace("\n", "\r\n"))
    assert accepts(constraint, json.dumps(value, separators=(",", ":")))
    for text in ('{"a":  1}', '{\n\n"a": 1}', '{"a":\t1}', "{\n" + 33 * " " + '"a": 1}', ' {"a": 1}', '{"a": 1}\n'):
        assert not accepts(constraint, text), text


def test_json_object() -> None:
    """Any object, and nothing else."""
    constraint = json_object().compile(VOCABULARY)
    for text, expected in (('{"a": [1, null, {"b": "\\n\\u00e9"}]}', True), ("[]", False), ("{", False), ("{}", True)):
        assert accepts(constraint, text) == expected, text


class Person(pydantic.BaseModel):
    """A model to parse into."""

    name: str
    age: int = pydantic.Field(ge=0)


def test_pydantic_models_come_back(tmp_path: Path) -> None:
    """A model class is a schema whose texts parse into its objects; a dict and a file of the same schema give dicts."""
    source = json_schema(Person)
    constraint = source.compile(VOCABULARY)
    text = '{"name": "Ada", "age": 36}'
    assert accepts(constraint, text)
    assert not accepts(constraint, '{"name": "Ada", "age": -1}')
    assert source.parse(text) == Person(name="Ada", age=36)
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(Person.model_json_schema()))
    for same in (json_schema(path), json_schema(str(path)), json_schema(Person.model_json_schema())):
        assert same == source
        assert same.parse(text) == {"name": "Ada", "age": 36}


def test_sources_are_values() -> None:
    """Equal descriptions are equal and hash alike, so that compiled constraints can be kept by them."""
    made = [lambda: regex("a"), lambda: choices(["a", "b"]), lambda: trie("ab"[i] for i in (0, 1)), json_object]
    made += [lambda: grammar('start: "a"'), lambda: after("x", regex("a")), lambda: regex("a").prefixed("b")]
    for make in made:
        assert make() == make()
        assert hash(make()) == hash(make())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: choices([]), "choices: the list is empty"),
        (lambda: choices("ab"), "one text"),
        (lambda: choices(["a", 1]), "1 is not text"),
        (lambda: choices(["\ud800"]).compile(VOCABULARY), "half of a surrogate pair"),
        (lambda: trie(["a\udfff"]), "half of a surrogate pair"),
        (lambda: grammar("rule: 'a'").compile(VOCABULARY), "no rule named start"),
        (lambda: grammar('start: "a" other').compile(VOCABULARY), "^grammar: .*other"),
        (lambda: grammar('%llguidance {}\nstart: "a"').compile(VOCABULARY), "set by tokenization="),
        (lambda: after("", regex("a")), "the trigger is empty"),
        (lambda: after("tool", regex("a"), special=True), "must be written <…>"),
        (lambda: after("<tool>", regex("a"), special=True).compile(VOCABULARY), "tool"),
        (lambda: after("x", trie(["a"])), "Trie cannot stand inside a grammar"),
        (lambda: json_schema(3), "int is not a schema"),
        (lambda: json_schema("no-such-file.json"), "no-such-file.json: No such file"),
        (lambda: json_schema({"const": float("nan")}), "not JSON"),
        (lambda: json_schema({"const": object()}), "not JSON"),
        (lambda: json_schema({"enum": ["\ud800"]}), "half of a surrogate pair"),
        (lambda: json_schema({}, whitespace=-1), "whitespace=-1: give 'usual', a number"),
        (lambda: json_schema({"not": {}}).compile(VOCABULARY), "^json_schema: "),
        (lambda: json_schema({"$ref": "#"}).compile(VOCABULARY), "no text that this vocabulary can spell"),
        (lambda: regex("a").compile(VOCABULARY, "exact"), "tokenization='exact': known are any, canonical"),
        (lambda: trie(["a"]).compile(VOCABULARY, "exact"), "tokenization='exact': known are any, canonical"),
    ],
)
def test_refusals(make, message: str) -> None:
    """What cannot be honoured is refused with the value, the reason and the way out, before the first token."""
    with pytest.raises(ParameterError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_dead_end_is_an_empty_mask() -> None:
    """Where the vocabulary cannot spell what must follow, the mask is empty; states before it are unharmed."""
    vocabulary = Vocabulary((b"a", b"c", b"bc", b"x", b""), frozenset((4,)), 5)
    constraint = regex("ab|axc").compile(vocabulary)
    start = constraint.start()
    state = constraint.advance(start, 0)
    out = np.empty((2, 1), np.int32)
    constraint.masks([state, start], out)
    assert out.ravel().tolist() == [0b01000, 0b00001]
    stuck = regex("ab").compile(vocabulary)
    begun = stuck.start()
    after_a = stuck.advance(begun, 0)
    stuck.masks([after_a, begun], out)
    assert out.ravel().tolist() == [0, 1]
    assert stuck.text(after_a) == b"a"
    assert stuck.advance(begun, 0) is not None


def test_a_limit_of_the_recognizer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If llguidance gives up, the error names the source and the place, and other states go on."""
    constraint = regex("(ab)*").compile(VOCABULARY)
    state = constraint.advance(constraint.start(), ord("a"))

    class Exhausted:
        """A matcher that has reached a limit."""

        def __getattr__(self, name: str):
            return {"is_error": lambda: True, "get_error": lambda: "too many items\n<state>"}.get(name, lambda *_: 0)

    monkeypatch.setattr(state.line, "matcher", Exhausted())
    with pytest.raises(DecodingError, match=r"regex '\(ab\)\*': after 'a': the recognizer gave up \(too many items\)"):
        constraint.masks([state], np.empty((1, VOCABULARY.words), np.int32))
    assert constraint.advance(state, ord("b")) is not None
