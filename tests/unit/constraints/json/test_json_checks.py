"""Patterns, formats and numbers by themselves: agreement with other implementations, sound prefixes."""

from __future__ import annotations

import re
from random import Random

import pytest

from treille.constraints.json import FORMATS
from treille.constraints.json.automaton import Pattern
from treille.constraints.json.checks import Members, NumberCheck
from treille.constraints.json.patterns import PatternError
from treille.constraints.json.values import Number, compare, divisible, parse_number

ATOMS = ["a", "b", "[ab]", "[^a]", ".", "c", r"\b", r"\B", "^", "$", r"\w", r"\d", r"\s", "(?:)"]


def random_pattern(random: Random, depth: int) -> str:
    """A random pattern that ECMA-262 and Python read alike, ASCII flag and end of text aside."""
    choice = random.random()
    if depth == 0 or choice < 0.35:
        return random.choice(ATOMS)
    if choice < 0.6:
        return random_pattern(random, depth - 1) + random_pattern(random, depth - 1)
    inner = random_pattern(random, depth - 1)
    if choice < 0.75:
        return f"(?:{inner}|{random_pattern(random, depth - 1)})"
    return f"(?:{inner})" + random.choice(["*", "+", "?", "{2}", "{1,2}", "{0,}", "+?"])


def test_patterns_agree_with_re_and_prefixes_are_sound() -> None:
    """A search gives what `re` gives; no prefix of a match is hopeless, and the missing length is a lower bound."""
    for seed in range(400):
        random = Random(seed)
        text = random_pattern(random, 3)
        pattern = Pattern(text)
        expected = re.compile(text.replace("$", r"\Z"), re.ASCII)
        for _ in range(8):
            subject = "".join(random.choice("abc -1") for _ in range(random.randrange(1, 7)))
            found = expected.search(subject) is not None
            assert pattern.matches(subject) == found, (text, subject)
            for at in range(len(subject) + 1) if found else ():
                states = pattern.step(pattern.start, subject[:at])
                assert states is not None, (text, subject, at)
                assert pattern.distance(states) <= len(subject) - at, (text, subject, at)


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        (r"^\d+$", "42", "\u09ea"),
        (r"^\w$", "a", "é"),
        (r"^\s$", "\ufeff", "\u200b"),
        (r"^\p{Letter}+$", "éa", "1"),
        (r"^\P{Lu}$", "a", "A"),
        (r"^[\d-z]+$", "1-z", "y"),
        (r"^\u{1F600}$", "😀", "u"),
        (r"^\ud83d\ude00$", "😀", "\ufffd"),
        (r"^.$", "😀", "\u2028"),
        (r"^a$", "a", "a\n"),
        (r"^\cA\x41\0$", "\x01A\0", "A"),
        (r"^(?!foo)(?=.*\d)[a-z\d]+$", "fo1", "foo1"),
        (r"^(?<name>a|b){2,}?$", "ab", "a"),
        (r"^[^]$", "x", ""),
        (r"^a{,2}$", "a{,2}", "aa"),
        (r"^\-\_\/$", "-_/", "-"),
    ],
)
def test_patterns_are_those_of_ecma_262(text: str, yes: str, no: str) -> None:
    """Classes are ASCII, `$` is the end, dots are no line ends, characters are code points."""
    assert Pattern(text).matches(yes)
    assert not Pattern(text).matches(no)


@pytest.mark.parametrize(
    "text",
    ["(", ")", "[", "a**", "*", "^*", "a{2,1}", "[b-a]", "\\", r"\Z", r"\a", "(?i:a)", r"(a)\1", "a(?=b)", r"\u12"],
)
def test_other_patterns_are_refused(text: str) -> None:
    """What is malformed or not regular is an error that says so, with the position."""
    with pytest.raises(PatternError):
        Pattern(text)


def test_formats_accept_only_what_has_their_shape() -> None:
    """What a format's checker accepts, the shape that prefixes are held to accepts too."""
    texts = [
        "2024-02-29", "0000-01-01", "23:59:60Z", "2024-02-29t01:29:60.5+01:30", "P1Y2M3DT4H5M6S", "P2W", "PT0S",
        "a-b.example", "1.2.3.4", "255.249.199.99", "::1", "1:2:3:4:5:6:1.2.3.4", "http://[::1]:80/a?b#c", "urn:x:y",
        "//a/b", "", "é", "http://é/", "{+x,y*}", "00000000-0000-0000-0000-00000000000f", "/a~1b", "0#", "1/a", "a@b",
        '"a b"@[127.0.0.1]', "a@[IPv6:::1]", "(a|b)+", "xn--ihqwcrb4cv8a8dqg056pqjye", "a" * 63, "é@é",
    ]  # fmt: skip
    for name, found in FORMATS.items():
        accepted = [text for text in texts if found.accepts(text)]
        assert accepted, name
        assert found.shape is None or all(Pattern(found.shape).matches(text) for text in accepted), name


def spelled(random: Random, value: Number) -> str:
    """One of the many spellings of a number."""
    digits, exponent = str(abs(value.coefficient)), value.exponent
    zeros = random.randrange(3)
    digits, exponent = digits + "0" * zeros, exponent - zeros
    point = random.randrange(len(digits) + 1)
    whole, fraction = digits[:point] or "0", digits[point:]
    exponent += len(fraction)
    if whole != "0" and whole.startswith("0"):
        whole = "0"
    text = whole + (f".{fraction}" if fraction else "")
    if exponent or random.random() < 0.5:
        sign = "-" if exponent < 0 else random.choice(["", "+"])
        text += random.choice("eE") + sign + "0" * random.randrange(2) + str(abs(exponent))
    return ("-" if value.coefficient < 0 else "") + text


def test_number_prefixes_are_sound() -> None:
    """No prefix of any spelling of a number that satisfies the schema is hopeless."""
    satisfied = 0
    for seed in range(2000):
        random = Random(seed)
        low, high, value = (parse_number(f"{random.randrange(-200, 200)}e{random.randrange(-2, 2)}") for _ in range(3))
        check = NumberCheck(
            integer=random.random() < 0.3,
            low=(low, random.random() < 0.5) if random.random() < 0.7 else None,
            high=(high, random.random() < 0.5) if random.random() < 0.7 else None,
            members=frozenset([value, low, high]) if random.random() < 0.3 else None,
            keywords=(("low", "minimum"), ("high", "maximum"), ("members", "enum")),
        )
        text = spelled(random, value)
        assert parse_number(text) == value
        if check.failure(value) is None:
            satisfied += 1
            for at in range(1, len(text) + 1):
                assert check.hopeless(text[:at]) is None, (check, text[:at], text)
    assert satisfied > 500


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (NumberCheck(members=frozenset([Number(12, 0)]), keywords=(("members", "const"),)), "13"),
        (NumberCheck(members=frozenset([Number(12, 0)]), keywords=(("members", "const"),)), "1.2e2"),
        (NumberCheck(members=frozenset([Number(12, 0)]), keywords=(("members", "const"),)), "-"),
        (NumberCheck(low=(Number(5, 1), False), keywords=(("low", "minimum"),)), "-"),
        (NumberCheck(low=(Number(5, 1), False), keywords=(("low", "minimum"),)), "9e-"),
        (NumberCheck(high=(Number(0, 0), False), keywords=(("high", "maximum"),)), "1"),
        (NumberCheck(integer=True, high=(Number(12, 0), False), keywords=(("high", "maximum"),)), "13"),
    ],
)
def test_hopeless_numbers_are_known_early(check: NumberCheck, text: str) -> None:
    """A prefix that no digits, fraction or exponent can save is known as such."""
    assert check.hopeless(text) is not None


def test_arithmetic_is_exact() -> None:
    """Order and divisibility are those of rationals, also where no float and no integer of that size would do."""
    assert compare(parse_number("1e1000000000"), parse_number("1e999999999")) > 0
    assert compare(parse_number("-1e1000000000"), parse_number("1e-5")) < 0
    assert compare(parse_number("10e-1"), parse_number("1")) == 0
    assert divisible(parse_number("1e1000000000"), parse_number("0.3")) is False
    assert divisible(parse_number("3e1000000000"), parse_number("0.3")) is True
    assert divisible(parse_number("1e-1000000000"), parse_number("1")) is False


def test_members_are_narrowed_by_pieces() -> None:
    """However a text is cut, what is left is what starts with it."""
    texts = tuple(sorted(["", "a", "ab", "abc", "b", "é", "éa"]))
    check = Members(texts, "enum")
    for text in (*texts, "abcd", "x"):
        for cut in range(len(text) + 1):
            state, length = check.start(), 0
            for piece in (text[:cut], text[cut:]):
                length += len(piece)
                after = check.step(state, piece, length) if piece else state
                if after is None:
                    break
                state = after
            assert (after is not None and check.accepts(state, "", len(text))) == (text in texts)
