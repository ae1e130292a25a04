"""Strings, numbers and words, as far as they have been read, under the checks of their site."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from treille.constraints.json import values
from treille.constraints.json.checks import Members
from treille.constraints.json.frames import Cause, Digits, Scalar, Text, Values, Word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treille.constraints.json.lexer import Ranges
    from treille.constraints.json.plans import Site, Use
    from treille.constraints.json.report import Violation

FEW = 16
"""So few values that are left for a scalar are tried one by one."""


def open_word(use: Use, site: Site, word: bytes, key: Any) -> Word:
    """`null`, `true` or `false` at its first byte, which decides all that is asked of it."""
    found = Word(use, site, word, 0, site.failed, key)
    for bit, node in site.literals:
        if node.literals is not None and key not in node.literals:
            _fail(found, bit, node.members_keyword, f"{word.decode()} is not allowed")
    return found


def _fail(scalar: Text | Digits | Word, bit: int, keyword: str, reason: str) -> None:
    """Notes that an entry has failed; only on a fresh scalar."""
    if not scalar.failed & bit:
        scalar.failed |= bit
        scalar.causes = Cause(bit, keyword, reason, None, scalar.causes)


def values_left(scalar: Scalar) -> Iterator[tuple[int, str, list[bytes]]]:
    """The checks that leave few values: entry, keyword, and one spelling of each value with which it may end."""
    if isinstance(scalar, Text):
        for state, (bit, check) in zip(scalar.states, scalar.site.strings, strict=True):
            if isinstance(check, Members) and not scalar.failed & bit and state is not None:
                left = check.left(state, FEW)
                if left is not None:
                    yield bit, check.keyword, [json.dumps(text).encode() for text in left]
    elif isinstance(scalar, Digits):
        for bit, number in scalar.site.numbers:
            if number.members is not None and not scalar.failed & bit:
                members = number.left(scalar.text, FEW)
                if members is not None:
                    spelled = [f"{member.coefficient}e{member.exponent} ".encode() for member in members]
                    yield bit, dict(number.keywords)["members"], spelled


def fail_one_of(scalar: Text | Digits, bit: int, keyword: str, violation: Violation) -> Text | Digits:
    """The scalar with an entry failed, because with each value that is left the document is rejected."""
    after = replace(scalar)
    _fail(after, bit, keyword, f"no value that is left is allowed ({violation.reason if violation else ''})")
    return after


def begin_character(scalar: Text, characters: Ranges) -> Text:
    """The string if one of `characters` comes next."""
    length = scalar.length + 1
    after = replace(scalar)
    for state, (bit, check) in zip(scalar.states, scalar.site.strings, strict=True):
        if not scalar.failed & bit and not any(check.may_go_on(state, *span, length) for span in characters):
            _fail(after, bit, check.keyword, "no character that has begun like this is allowed")
    return after


def failed_after(scalar: Text, piece: str) -> int | None:
    """The entries that fail with a further piece of text; None where what is left has to be tried one by one."""
    failed, length = scalar.failed, scalar.length + len(piece)
    for state, (bit, check) in zip(scalar.states, scalar.site.strings, strict=True):
        if isinstance(check, Members):
            return None
        if not failed & bit and check.step(state, piece, length) is None:
            failed |= bit
    return failed


def advance_text(scalar: Text, piece: str) -> Text:
    """The string after a piece of text."""
    site = scalar.site
    length = scalar.length + len(piece)
    after = replace(scalar, length=length)
    if scalar.kept:
        after.pieces = Values(piece, scalar.pieces)
    if site.strings:
        states = list(scalar.states)
        for place, (bit, check) in enumerate(site.strings):
            state = states[place]
            if state is None or after.failed & bit:
                continue
            states[place] = state = check.step(state, piece, length)
            if state is None:
                _fail(after, bit, check.keyword, f"no continuation of {_quoted(after, piece)} is allowed")
        after.states = tuple(states)
    return after


def _quoted(scalar: Text, piece: str) -> str:
    """The text so far, for messages."""
    text = scalar.joined() if scalar.kept else f"…{piece}"
    return repr(text if len(text) <= 40 else f"{text[:20]}…{text[-20:]}")


def finish_text(scalar: Text) -> tuple[Text, str]:
    """The string at its end, and the text if it is needed."""
    text = scalar.joined() if scalar.kept else ""
    if not scalar.site.strings:
        return scalar, text
    after = Text(
        scalar.use, scalar.site, scalar.is_name, scalar.failed, scalar.states, scalar.length, None, scalar.causes
    )
    for state, (bit, check) in zip(scalar.states, scalar.site.strings, strict=True):
        if not after.failed & bit and not check.accepts(state, text, scalar.length):
            what = _quoted(scalar, "") if scalar.kept else f"a string of length {scalar.length}"
            _fail(after, bit, check.keyword, f"{what} is not allowed")
    return after, text


def advance_digits(scalar: Digits, text: str) -> Digits:
    """The number whose text so far is `text`."""
    after = Digits(scalar.use, scalar.site, text, scalar.failed, scalar.causes)
    for bit, check in scalar.site.numbers:
        if not after.failed & bit and (keyword := check.hopeless(text)):
            _fail(after, bit, keyword, f"no number that starts with {text[:40]} is allowed")
    return after


def finish_digits(scalar: Digits) -> tuple[Digits, values.Number]:
    """The number at its end, and its value."""
    value = values.parse_number(scalar.text)
    after = Digits(scalar.use, scalar.site, scalar.text, scalar.failed, scalar.causes)
    for bit, check in scalar.site.numbers:
        if not after.failed & bit and (keyword := check.failure(value)):
            _fail(after, bit, keyword, f"{scalar.text[:40]} is not allowed")
    return after, value
