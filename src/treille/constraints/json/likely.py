"""What may come next on the shortest way to the end of a document: guesses, which the validator may refuse."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

from treille.constraints.json.checks import Length, Matching, Members
from treille.constraints.json.frames import Digits, Text
from treille.constraints.json.machine import AFTER, COLON, FIRST_ITEM, FIRST_NAME, NAME, VALUE
from treille.constraints.json.nodes import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treille.constraints.json.checks import NumberCheck
    from treille.constraints.json.frames import Frame
    from treille.constraints.json.nodes import Node
    from treille.constraints.json.program import State
    from treille.constraints.json.values import Number

_PLAIN = ((Kind.NUMBER, b"0"), (Kind.STRING, b'"'), (Kind.ARRAY, b"["), (Kind.OBJECT, b"{"), (Kind.NULL, b"null"))
_WORDS = {"True": b"true", "False": b"false", "None": b"null"}
_LONGEST = 64
"""Characters of a text or a number that is guessed whole."""


def likely_next(state: State) -> tuple[bytes, ...]:
    """Pieces of text, the one first that ends the most; none may follow in fact."""
    frame, scalar = state.frame, state.scalar
    found: Iterator[bytes]
    if isinstance(scalar, Text):
        found = _in_text(scalar, frame) if not state.half else iter(())
    elif scalar is not None:
        found = _after(frame) if isinstance(scalar, Digits) else iter(())
    elif state.mode in {VALUE, FIRST_ITEM}:
        found = _values(state, frame)
    elif state.mode in {NAME, FIRST_NAME}:
        found = _names(frame, first=state.mode == FIRST_NAME)
    else:
        found = iter((b":",)) if state.mode == COLON else _after(frame) if state.mode == AFTER else iter(())
    return tuple(dict.fromkeys(found))


def _after(frame: Frame | None) -> Iterator[bytes]:
    """After a value."""
    if frame is not None:
        yield b"]" if frame.site.kind == Kind.ARRAY else b"}"
        yield b","


def _names(frame: Frame | None, *, first: bool) -> Iterator[bytes]:
    """Where a name begins."""
    if first:
        yield b"}"
    for name in _wanted(frame):
        yield json.dumps(name, ensure_ascii=False).encode() + b":"


def _wanted(frame: Frame | None) -> Iterator[str]:
    """Names that an object may still need."""
    for bit, rules in frame.site.objects if frame is not None else ():
        if frame is not None and not frame.failed & bit:
            dependent = (name for given, names in rules.dependent if frame.seen.has(given) for name in names)
            for name in (*rules.required, *dependent, *(rules.properties or ())):
                if not frame.seen.has(name) and len(name) <= _LONGEST:
                    yield name


def _in_text(scalar: Text, frame: Frame | None) -> Iterator[bytes]:
    """Inside a string or a name."""
    yield b'"'
    if scalar.is_name:
        text = scalar.joined()
        yield from (_characters(name[len(text) :]) + b'"' for name in _wanted(frame) if name.startswith(text))
    for state, (bit, check) in zip(scalar.states, scalar.site.strings, strict=True):
        if scalar.failed & bit or state is None:
            continue
        if isinstance(check, Members):
            yield from (_characters(rest) + b'"' for rest in check.rests(state, 4))
        elif isinstance(check, Length) and scalar.length < check.least <= scalar.length + _LONGEST:
            yield b"a" * (check.least - scalar.length)
        elif isinstance(check, Matching):
            yield from (_characters(char) for char in check.nearest(state, scalar.length))


def _characters(text: str) -> bytes:
    """The text inside a string."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")


def _values(state: State, frame: Frame | None) -> Iterator[bytes]:
    """Where a value begins."""
    use = state.program.top if frame is None else frame.child
    if state.mode == FIRST_ITEM and frame is not None:
        yield b"]"
        if use is None:  # which schemas look at the item is decided when it begins
            use = state.program.cursor(state).first_item()
    if use is None:
        return
    kinds = Kind(0)
    open_nodes = [node for index, node in enumerate(use.plan.nodes) if not use.plan.failed >> index & 1]
    for node in open_nodes:
        kinds |= node.kinds
        yield from _constants(node)
    checks = (node.number for node in open_nodes if node.number is not None)
    yield from (_digits(number) for check in checks for number in _bounds(check) if abs(number.exponent) < _LONGEST)
    yield from (text for kind, text in _PLAIN if kind & kinds)
    if kinds & Kind.BOOLEAN:
        yield b"true"


def _constants(node: Node) -> Iterator[bytes]:
    """Values that one schema names."""
    for key in node.literals or ():
        yield _WORDS[key[0]]
    for check in node.strings:
        if isinstance(check, Members):
            yield from (b'"' + _characters(text) + b'"' for text in check.rests(check.start(), 4))
    if node.number is not None:
        members = sorted(node.number.members or ())[:4]
        yield from (_digits(number) for number in members if abs(number.exponent) < _LONGEST)


def _bounds(check: NumberCheck) -> Iterator[Number]:
    """Numbers at the bounds of a check."""
    for bound in (check.low, check.high):
        if bound is not None:
            yield bound[0]
    if check.divisor is not None:
        yield check.divisor


def _digits(number: Number) -> bytes:
    """The number without an exponent."""
    return f"{Decimal(number.coefficient).scaleb(number.exponent):f}".encode()
