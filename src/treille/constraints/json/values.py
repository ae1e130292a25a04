"""JSON values as the validator compares them: exact numbers, canonical keys, sets that share structure.

Numbers are decimal, of any size: `1`, `1.0` and `10e-1` are one value, and no comparison goes through a float.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any, NamedTuple

# What `int` and `str` convert without being told to (`sys.get_int_max_str_digits`), with room to spare.
MAX_DIGITS = 4000

_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d+))?")


class Number(NamedTuple):
    """`coefficient · 10**exponent`, the coefficient without trailing zeros; zero is `(0, 0)`. Equality is exact."""

    coefficient: int
    exponent: int

    @property
    def is_integer(self) -> bool:
        """Whether the value has no fractional part, however it was spelled."""
        return self.exponent >= 0


def number(sign: str, digits: str, exponent: int) -> Number:
    """The number `sign digits · 10**exponent`, normalised; `digits` are decimal digits, at most `MAX_DIGITS`."""
    kept = digits.rstrip("0")
    coefficient = int(kept or "0")
    if not coefficient:
        return Number(0, 0)
    return Number(-coefficient if sign else coefficient, exponent + len(digits) - len(kept))


def parse_number(text: str) -> Number:
    """The value of a JSON number's text."""
    found = _NUMBER.fullmatch(text)
    assert found is not None, text
    sign, whole, fraction, exponent = found.groups()
    return number(sign, whole + (fraction or ""), int(exponent or 0) - len(fraction or ""))


def from_python(value: float | Decimal) -> Number | None:
    """The number a parsed schema holds, floats as they are written (`0.1` is one tenth); None if it is not finite."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        sign, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        return number("-" if sign else "", "".join(map(str, digits)), exponent)
    if not isinstance(value, int):
        return parse_number(repr(value)) if math.isfinite(value) else None
    if value % 10:
        return Number(value, 0) if value.bit_length() <= 3 * MAX_DIGITS else None
    if value.bit_length() > 3 * MAX_DIGITS:
        return None
    return parse_number(str(value))


def compare(a: Number, b: Number) -> int:
    """Negative, zero or positive as `a` is below, equal to or above `b`; cheap for any exponents."""
    left, right = a.coefficient, b.coefficient
    if (left > 0) != (right > 0) or not left or not right:
        return (left > 0) - (left < 0) - (right > 0) + (right < 0)
    # Same sign: the leading digit's position decides, and only where it is equal are digits aligned.
    sign = 1 if left > 0 else -1
    first, second = magnitude(a), magnitude(b)
    if first != second:
        return sign * (1 if first > second else -1)
    shift = a.exponent - b.exponent
    left, right = (left * 10**shift, right) if shift >= 0 else (left, right * 10**-shift)
    return (left > right) - (left < right)


def magnitude(value: Number) -> int:
    """The power of ten just above the leading digit's: 12 gives 2, 0.5 gives 0."""
    return len(str(abs(value.coefficient))) + value.exponent


def divisible(value: Number, divisor: Number) -> bool:
    """Whether `value` is an integer multiple of the positive `divisor`; exact, cheap for any exponents."""
    shift = value.exponent - divisor.exponent
    coefficient, modulus = value.coefficient, divisor.coefficient
    if shift >= 0:
        return bool(coefficient * pow(10, shift, modulus) % modulus == 0)
    if -shift > len(str(coefficient)):
        return coefficient == 0
    return bool(coefficient % (modulus * 10**-shift) == 0)


def array_key(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """The canonical key of an array, from the keys of its items."""
    return ("[", *items)


def object_key(members: list[tuple[str, Any]]) -> tuple[Any, ...]:
    """The canonical key of an object, from its names and the keys of its values; their order does not matter."""
    return ("{", frozenset(members))


def canonical(value: Any) -> Any:
    """A hashable key, equal for equal JSON values and different otherwise.

    Strings are themselves, numbers are `Number`s, other scalars and containers are marked tuples, so that `1`, `true`
    and `"1"` differ. Recursion is as deep as the value: callers bound its depth.

    Raises:
        TypeError: `value` is not what JSON can hold.
    """
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return (repr(value),)
    if isinstance(value, int | float | Decimal):
        found = from_python(value)
        if found is None:
            msg = f"{value!r} is not a finite number of at most {MAX_DIGITS} digits"
            raise TypeError(msg)
        return found
    if isinstance(value, list | tuple):
        return array_key(tuple(canonical(item) for item in value))
    if isinstance(value, dict):
        return object_key([(name, canonical(item)) for name, item in value.items()])
    msg = f"{type(value).__name__} is not a JSON type"
    raise TypeError(msg)


NULL, TRUE, FALSE = canonical(None), canonical(True), canonical(False)


class Shared(NamedTuple):
    """A set that is never changed: `add` gives a new one that shares all but O(log n) of its parts, amortised."""

    parts: tuple[frozenset[Any], ...] = ()

    def has(self, item: Any) -> bool:
        """Whether `item` is a member; O(log n)."""
        return any(item in part for part in self.parts)

    def add(self, item: Any) -> Shared:
        """This set and `item`."""
        parts = list(self.parts)
        last: frozenset[Any] = frozenset((item,))
        while parts and len(parts[-1]) <= len(last):
            last |= parts.pop()
        return Shared((*parts, last))
