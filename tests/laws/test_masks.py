"""Masks are exact: equal, bit for bit, to the brute-force set for ten languages at every reachable text.

E1 (sound), E2 (complete, for every segmentation) and E3 (no dead end) of the card "token masks".
"""

from __future__ import annotations

import itertools
import random
import re
from functools import cache

import pytest
from toy_vocabulary import EOS, OTHER_EOS, SPECIAL, TOKENS, WIDTH, allowed, toy_vocabulary

from treille.constraints import after, choices, grammar, json_schema, regex, trie

VOCABULARY = toy_vocabulary()
LONGEST = 10


def texts(alphabet: str, longest: int, pattern: str) -> frozenset[bytes]:
    """All texts over an alphabet that match a pattern, as bytes."""
    words = ("".join(word) for size in range(longest + 1) for word in itertools.product(alphabet, repeat=size))
    return frozenset(word.encode() for word in words if re.fullmatch(pattern, word))


def balanced(longest: int) -> frozenset[bytes]:
    """Balanced brackets."""
    found = {b""}
    for _ in range(longest // 2):
        found |= {b"(" + a + b")" + b for a in found for b in found if len(a) + len(b) + 2 <= longest}
    return frozenset(found)


STRING = r'"([ab]|\\n|\\")*"'
LISTS = ["", "ab", "aab", "aé", "éa", "é", "ba\n", "a/b"]
WORDS = ["ab", "abab", "abba", "b"]
LANGUAGES = {
    "list": (choices(LISTS), frozenset(text.encode() for text in LISTS)),
    "trie": (trie(LISTS), frozenset(text.encode() for text in LISTS)),
    "anbn": (grammar('start: "a" start "b" | "ab"'), frozenset(b"a" * n + b"b" * n for n in range(1, 7))),
    "brackets": (grammar('start: ("(" start ")")*'), balanced(8)),
    "string": (regex(STRING), texts('ab"\\n', 5, STRING)),
    "repetition": (regex("(ab|b){2,3}a?"), texts("ab", 8, "(ab|b){2,3}a?")),
    "characters": (regex("[aé]{1,3}"), texts("aé", 3, "[aé]{1,3}")),
    "json": (
        json_schema({"enum": [{"a": 1}, [10, 1], "é", True, None]}, whitespace="compact"),
        frozenset(text.encode() for text in ('{"a":1}', "[10,1]", '"é"', "true", "null")),
    ),
    "prefixed": (choices(WORDS).prefixed("(a"), frozenset(b"(a" + text.encode() for text in WORDS)),
    "intersection": (grammar("start: A\nA: /[ab]{0,6}/ & /(aa|b)*/"), texts("ab", 6, "(aa|b)*")),
}
# Languages of which only the texts up to a length are listed: longer ones continue every text of at most this length.
UNBOUNDED = {"anbn": 6, "brackets": 4, "string": 3}


@cache
def prefixes(name: str) -> frozenset[bytes]:
    """All prefixes of the texts of a language."""
    return frozenset(text[:size] for text in LANGUAGES[name][1] for size in range(len(text) + 1))


def brute_force(name: str, text: bytes) -> set[int]:
    """The tokens that may follow: their bytes lead to a prefix, or the text may end."""
    follow = {t for t, piece in enumerate(TOKENS) if text + piece in prefixes(name)}
    return follow | ({EOS, OTHER_EOS} if text in LANGUAGES[name][1] else set())


@pytest.mark.parametrize("name", LANGUAGES)
def test_masks_equal_brute_force(name: str) -> None:
    """At every reachable text, along every segmentation first found, mask, advance and is_final equal brute force."""
    constraint = LANGUAGES[name][0].compile(VOCABULARY)
    waiting, seen = [(b"", constraint.start())], {b""}
    while waiting:
        text, state = waiting.pop()
        expected = brute_force(name, text)
        if name in UNBOUNDED and len(text) + max(map(len, TOKENS)) > UNBOUNDED[name]:
            expected = {t for t in expected if t >= EOS or len(text + TOKENS[t]) <= UNBOUNDED[name]}
            found = {t for t in allowed(constraint, state) if t >= EOS or len(text + TOKENS[t]) <= UNBOUNDED[name]}
        else:
            found = allowed(constraint, state)
        assert found == expected, text
        assert constraint.is_final(state) == (text in LANGUAGES[name][1])
        assert constraint.text(state) == text
        for token in found:
            after_token = constraint.advance(state, token)
            assert after_token is not None
            if token < EOS and text + TOKENS[token] not in seen:
                seen.add(text + TOKENS[token])
                waiting.append((text + TOKENS[token], after_token))
    assert seen == {p for p in prefixes(name) if name not in UNBOUNDED or len(p) <= UNBOUNDED[name]}


ALL = {
    **{name: source for name, (source, _) in LANGUAGES.items()},
    "free": regex("(?s:.*)"),
    "call": after("<t>", choices(["ok", "oab"])),
    "calls": after("<t>", choices(["ok", "oab"]), repeat=True),
    "special": after("<|tool|>", choices(["ok"]), special=True, required=True),
    "object": json_schema({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
}


def walk(constraint, generator: random.Random, steps: int = 12) -> list:
    """A random tree of states: every new one follows one that was chosen at random."""
    states = [constraint.start()]
    for _ in range(steps):
        state = generator.choice(states)
        tokens = sorted(allowed(constraint, state) - {EOS, OTHER_EOS})
        if tokens:
            states.append(constraint.advance(state, generator.choice(tokens)))
    return states


@pytest.mark.parametrize("tokenization", ["any", "canonical"])
@pytest.mark.parametrize("name", ALL)
def test_advance_iff_bit(name: str, tokenization: str) -> None:
    """`advance` takes exactly the tokens of the mask; ends are set iff the text is final, and nothing follows them."""
    constraint = ALL[name].compile(VOCABULARY, tokenization)
    generator = random.Random(name)
    for state in walk(constraint, generator):
        tokens = allowed(constraint, state)
        assert {t for t in range(-2, WIDTH + 3) if constraint.advance(state, t) is not None} == tokens
        assert tokens, "a dead end"
        ended = constraint.advance(state, EOS)
        assert (ended is not None) == constraint.is_final(state) == ({EOS, OTHER_EOS} <= tokens)
        assert SPECIAL not in tokens or name == "special"
        if ended is not None:
            assert allowed(constraint, ended) == set()
            assert constraint.advance(ended, EOS) is None
            assert constraint.text(ended) == constraint.text(state)


@pytest.mark.parametrize("tokenization", ["any", "canonical"])
@pytest.mark.parametrize("name", ALL)
def test_states_are_values(name: str, tokenization: str) -> None:
    """States of a random tree, asked together and in any order, equal fresh replays, whatever was done in between."""
    constraint = ALL[name].compile(VOCABULARY, tokenization)
    generator = random.Random(name)
    for _ in range(6):
        paths, states = [()], [constraint.start()]
        for _ in range(20):
            index = generator.randrange(len(states))
            tokens = sorted(allowed(constraint, states[index]) - {EOS, OTHER_EOS})
            if tokens:
                token = generator.choice(tokens)
                paths.append((*paths[index], token))
                states.append(constraint.advance(states[index], token))
            if generator.random() < 0.2 and len(states) > 3:  # a branch is dropped
                gone = generator.randrange(1, len(states))
                del paths[gone], states[gone]
        order = list(range(len(states)))
        generator.shuffle(order)
        for index in order:
            fresh = constraint.start()
            for token in paths[index]:
                fresh = constraint.advance(fresh, token)
            assert allowed(constraint, states[index]) == allowed(constraint, fresh)
            assert constraint.is_final(states[index]) == constraint.is_final(fresh)
            assert constraint.forced(states[index]) == constraint.forced(fresh)


@pytest.mark.parametrize("tokenization", ["any", "canonical"])
@pytest.mark.parametrize("name", ALL)
def test_forced_is_the_chain_of_single_bits(name: str, tokenization: str) -> None:
    """`forced` is the tokens of masks with one bit, to the first mask with more or an end; so it changes no law."""
    constraint = ALL[name].compile(VOCABULARY, tokenization)
    for state in walk(constraint, random.Random(name)):
        expected, at = [], state
        while len(tokens := allowed(constraint, at)) == 1 and len(expected) < 50:
            expected += tokens
            at = constraint.advance(at, *tokens)
        assert constraint.forced(state) == tuple(expected)


@pytest.mark.parametrize("tokenization", ["any", "canonical"])
@pytest.mark.parametrize("name", ALL)
def test_accepted_counts_what_advance_takes(name: str, tokenization: str) -> None:
    """`accepted` of a drafted chain is the number of tokens that `advance` takes one after the other."""
    constraint = ALL[name].compile(VOCABULARY, tokenization)
    generator = random.Random(name)
    for state in walk(constraint, generator):
        for _ in range(6):
            chain, at = [], state
            while len(chain) < 5 and (tokens := sorted(allowed(constraint, at))):
                chain.append(generator.choice(tokens))
                at = constraint.advance(at, chain[-1])
            expected = len(chain)
            if chain and generator.random() < 0.5:
                chain.insert(generator.randrange(len(chain) + 1), generator.choice([0, EOS, WIDTH + 1, -1, SPECIAL]))
                expected, at = 0, state
                for token in chain:
                    at = constraint.advance(at, token)
                    if at is None:
                        break
                    expected += 1
            assert constraint.accepted(state, chain) == expected, chain


@pytest.mark.parametrize("tokenization", ["any", "canonical"])
@pytest.mark.parametrize("name", ALL)
def test_closing_completes(name: str, tokenization: str) -> None:
    """`closing` is allowed token by token and ends where the text may end."""
    constraint = ALL[name].compile(VOCABULARY, tokenization)
    for state in walk(constraint, random.Random(name)):
        if constraint.is_final(state):
            continue
        tokens = constraint.closing(state)
        assert tokens is not None, constraint.text(state)
        for token in tokens:
            state = constraint.advance(state, token)
        assert constraint.is_final(state)
