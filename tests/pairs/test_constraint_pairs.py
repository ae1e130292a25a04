"""Every constraint with strategies and drafters, through the engine: texts are valid, and the same with a draft."""

from __future__ import annotations

import json
import re

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import random_llama
import treille
from treille.constraints import after, choices, grammar, json_object, json_schema, regex, trie
from treille.strategies import beam, best_of_n, diverse_beam, greedy, sample

PROMPT = "abc abc [1,2] cab"
LONGEST = 14
WORDS = ["ab", "abc", "cab", "true", "b.a"]
UNIQUE = {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 2}
FREE = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [1, 2]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def unique(text):
    """Whether a text is a list without repetitions."""
    found = json.loads(text)
    return isinstance(found, list) and len(set(found)) == len(found) >= 2


SOURCES = {
    "choices": (choices(WORDS), WORDS.__contains__),
    "trie": (trie(WORDS), WORDS.__contains__),
    "regex": (regex("[ab]{2,5}c"), re.compile("[ab]{2,5}c").fullmatch),
    "grammar": (
        grammar('start: "a" start "b" | "ab"'),
        lambda text: text == "a" * (n := len(text) // 2) + "b" * n != "",
    ),
    "json_object": (json_object(whitespace="compact"), lambda text: isinstance(json.loads(text), dict)),
    "json_schema": (json_schema({"enum": ["ab", 12, [True]]}), lambda text: json.loads(text) in ("ab", 12, [True])),
    "second layer": (json_schema(UNIQUE, whitespace="compact"), unique),
    "any order": (
        json_schema(FREE, whitespace="compact", ordered=False),
        lambda text: json.loads(text).keys() == {"a", "b"},
    ),
    "after": (after(".", choices(["yes", "no"])), lambda text: "." not in text or text.split(".")[1] in ("yes", "no")),
}
SPANS = {"greedy": greedy(), "sample": sample(), "best_of_n": best_of_n(n=2)}
BEAMS = {"beam": beam(width=3), "diverse_beam": diverse_beam(width=4, groups=2)}
DRAFTS = ("prompt_lookup", "token_recycling", "draft_model")


def tokenizer():
    """Printable ASCII, a few pairs, and special tokens."""
    characters = [chr(code).replace(" ", "Ġ") for code in range(32, 127)]
    pairs = [("a", "b"), ("t", "r"), ("[", "1"), ("1", ","), ("{", '"'), ('"', ":")]
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate([*characters, *map("".join, pairs)])}, pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([random_llama.EOS, random_llama.USER, random_llama.ASSISTANT])
    return backend


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A random model that drafts for itself."""
    directory = tmp_path_factory.mktemp("model")
    random_llama.save(directory, tokenizer, sharpness=1.0)
    return treille.load(directory, draft_model={"draft": directory}, debug=True)


def decode(lm, name, strategy, **options):
    """Candidates under the constraint of this name; all that are whole are valid."""
    source, valid = SOURCES[name]
    options = {"max_new_tokens": LONGEST, "seed": 5, **options}
    result = lm.generate(PROMPT, strategy, constraint=source, **options)
    assert result.finish_reason in ("eos", "constraint"), result.text
    for candidate in result.candidates:
        if candidate.finish_reason != "length":
            assert valid(candidate.text), candidate.text
    assert result.parsed is not None or result.text == "null"
    return result


@pytest.mark.parametrize("strategy", SPANS)
@pytest.mark.parametrize("name", SOURCES)
def test_drafts_leave_constrained_texts_as_they_are(lm, name, strategy):
    """Texts that are grown in spans: valid, and token for token the same with every drafter."""
    plain = decode(lm, name, SPANS[strategy])
    for draft in DRAFTS:
        drafted = decode(lm, name, SPANS[strategy], draft=draft, governor=False, draft_rows=8)
        assert [c.tokens for c in drafted.candidates] == [c.tokens for c in plain.candidates], draft
        assert drafted.logprob == pytest.approx(plain.logprob, abs=2e-3)


@pytest.mark.parametrize("strategy", BEAMS)
@pytest.mark.parametrize("name", SOURCES)
def test_beams_are_valid(lm, name, strategy):
    """Beams are valid, each with the mask of its own path."""
    decode(lm, name, BEAMS[strategy])


@pytest.mark.parametrize("name", ["trie", "second layer"])
def test_a_wide_beam_lists_the_language_by_p(lm, name):
    """Beam search of width |L| or more returns L, most probable first; each text once in its canonical spelling."""
    texts = WORDS
    source = trie(WORDS)
    if name == "second layer":
        source = json_schema({"enum": [1, 2, 3, 12], "not": {"const": 2}}, whitespace="compact")
        texts = ["1", "3", "12"]
    found = lm.generate(
        PROMPT,
        beam(width=12, num_return_sequences=len(texts), length_penalty=0.0),
        constraint=source,
        tokenization="canonical" if name == "trie" else "any",
        max_new_tokens=LONGEST,
    )
    assert {candidate.text for candidate in found.candidates} == set(texts)
    logprobs = [candidate.logprob for candidate in found.candidates]
    assert logprobs == sorted(logprobs, reverse=True)


def test_a_hostile_constraint_hurts_nobody_else(lm):
    """Side by side with patterns that explode, another prompt's text is what it is alone."""
    alone = lm.generate(PROMPT, greedy(), max_new_tokens=8)
    hostile = [greedy(constraint=regex(p)) for p in ("((a+)+)+b", "(a|aa)*(a|aa)*c", "[ab]*a[ab]{8}")]
    *_, beside = lm.generate([PROMPT] * 4, [*hostile, greedy()], max_new_tokens=8 + 4)
    assert beside.tokens[: len(alone.tokens)] == alone.tokens


def test_a_healed_prompt(lm):
    """A prompt that ends inside a token is cut, and the text begins with what was cut."""
    out = lm.generate("x t", greedy(), heal=True, max_new_tokens=4)
    assert out.prompt == "x "
    assert out.text.startswith("t")
    constrained = lm.generate("x t", greedy(), heal=True, constraint=choices(["rue", "ab"]), max_new_tokens=8)
    assert constrained.text in ("true", "tab")
    assert constrained.parsed is not None


def test_what_was_not_enforced_is_told(lm):
    """With strict=False the stats name the keyword that nothing enforces; without, it is an error."""
    schema = {"enum": ["aa", "ab"], "pattern": "(a)\\1"}
    with pytest.raises(treille.errors.ParameterError, match=r"#/pattern: a backreference"):
        lm.generate(PROMPT, constraint=json_schema(schema))
    out = lm.generate(PROMPT, constraint=json_schema(schema, strict=False), max_new_tokens=LONGEST)
    assert "#/pattern: a backreference" in out.stats.unenforced[0]
    assert out.parsed in ("aa", "ab")
    assert out.to_dict()["parsed"] == out.parsed


def test_a_limit_that_is_too_small_is_refused(lm):
    """Before the first token, with what would be enough."""
    with pytest.raises(treille.errors.ParameterError, match=r"max_new_tokens=2: too few .* has \d+\); allow more"):
        lm.generate(PROMPT, constraint=choices(["true.true"]), max_new_tokens=2)
    cut = lm.generate(PROMPT, constraint=choices(["true.true"]), max_new_tokens=2, close=False)
    assert (cut.finish_reason, cut.parsed) == ("length", None)
