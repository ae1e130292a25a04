"""Checks of scalars: each can tell before the end of the value that no continuation satisfies it.

A string check is a state machine over pieces of decoded text; `step` gives None as soon as nothing that follows can
help. Number checks look at the text so far, for which RFC 8259 leaves surprisingly much open: `12` may become `12e-5`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from treille.constraints.json import values
from treille.constraints.json.values import Number

if TYPE_CHECKING:
    from treille.constraints.json.automaton import Pattern
    from treille.constraints.json.formats import Format

MAX_EXACT_CANDIDATES = 64
FREE = 1 << 30
"""Room where there is no limit."""


class StringCheck(Protocol):
    """What a keyword asks of a string, or of a name; states are values."""

    @property
    def keyword(self) -> str:
        """The keyword that asks."""

    @property
    def needs_text(self) -> bool:
        """Whether `accepts` looks at the whole text."""

    def start(self) -> Any:
        """The state of the empty prefix."""

    def step(self, state: Any, piece: str, length: int) -> Any | None:
        """The state after `piece`, `length` characters in all; None if no continuation satisfies the keyword."""

    def may_go_on(self, state: Any, low: int, high: int, length: int) -> bool:
        """Whether `step` allows a character from `low` to `high`, which makes `length` in all; if in doubt, yes."""

    def room(self, length: int) -> int:
        """How many characters, whatever they are, `step` allows after `length` of them; 0 if that depends on them."""

    def accepts(self, state: Any, text: str, length: int) -> bool:
        """Whether the string may end here; `text` is empty unless `needs_text`."""


@dataclass(frozen=True, slots=True)
class Length:
    """`minLength` and `maxLength`, in code points."""

    least: int
    most: int | None
    keyword: str
    needs_text: bool = False

    def start(self) -> bool:
        """There is no state."""
        return True

    def step(self, state: bool, piece: str, length: int) -> bool | None:
        """None beyond the maximum."""
        del piece
        return None if self.most is not None and length > self.most else state

    def may_go_on(self, state: bool, low: int, high: int, length: int) -> bool:
        """Whether there is room; which character it is does not matter."""
        del state, low, high
        return self.most is None or length <= self.most

    def room(self, length: int) -> int:
        """Up to the maximum."""
        return FREE if self.most is None else self.most - length

    def accepts(self, state: bool, text: str, length: int) -> bool:
        """Whether the length is within the bounds."""
        del state, text
        return length >= self.least


@dataclass(frozen=True, slots=True)
class Members:
    """The string is one of `sorted_texts`; a state is the range of those left, and how many characters were read."""

    sorted_texts: tuple[str, ...]
    keyword: str
    needs_text: bool = False

    def start(self) -> tuple[int, int, int]:
        """All are left."""
        return 0, len(self.sorted_texts), 0

    def step(self, state: tuple[int, int, int], piece: str, length: int) -> tuple[int, int, int] | None:
        """Those that go on with `piece`; O(log n)."""
        low, high, offset = state
        texts = self.sorted_texts

        def part(text: str) -> str:
            return text[offset:length]

        low = bisect_left(texts, piece, low, high, key=part)
        high = bisect_right(texts, piece, low, high, key=part)
        return (low, high, length) if low < high else None

    def may_go_on(self, state: tuple[int, int, int], low: int, high: int, length: int) -> bool:
        """Whether a text that is left has such a character next."""
        first, last, offset = state
        texts = self.sorted_texts
        place = bisect_left(texts, chr(low), first, last, key=lambda text: text[offset:length])
        return place < last and ord(texts[place][offset]) <= high

    def room(self, length: int) -> int:
        """None: every character counts."""
        del length
        return 0

    def accepts(self, state: tuple[int, int, int], text: str, length: int) -> bool:
        """Whether the shortest that is left ends here: it is the first of the range."""
        del text
        low, high, _ = state
        return low < high and len(self.sorted_texts[low]) == length

    def left(self, state: tuple[int, int, int], most: int) -> tuple[str, ...] | None:
        """The texts that are left, if there are at most `most`."""
        low, high, _ = state
        return self.sorted_texts[low:high] if high - low <= most else None

    def rests(self, state: tuple[int, int, int], most: int) -> tuple[str, ...]:
        """What is missing of the first texts that are left, at most `most`."""
        low, high, offset = state
        return tuple(text[offset:] for text in self.sorted_texts[low : min(high, low + most)])


@dataclass(frozen=True, slots=True)
class Matching:
    """`pattern`; with the node's `maxLength` at hand, also whether a match still fits."""

    pattern: Pattern
    most: int | None
    keyword: str = "pattern"
    needs_text: bool = False

    def start(self) -> Any:
        """The automata's start."""
        return self.pattern.start

    def step(self, state: Any, piece: str, length: int) -> Any | None:
        """None if no continuation matches, or none that is short enough."""
        after = self.pattern.step(state, piece)
        if after is not None and self.most is not None and length + self.pattern.distance(after) > self.most:
            return None
        return after

    def may_go_on(self, state: Any, low: int, high: int, length: int) -> bool:
        """Whether one of the characters leads on; those of one class do the same, so one of each is tried."""
        return any(self.step(state, chr(point), length) is not None for point in self.pattern.samples(low, high))

    def room(self, length: int) -> int:
        """None: every character counts."""
        del length
        return 0

    def nearest(self, state: Any, length: int) -> list[str]:
        """Characters after which the least number of further ones is missing, as far as that is known."""
        found: dict[int, list[str]] = {}
        for low, high in ((0x20, 0xD7FF), (0xE000, 0x10FFFF)):
            for char in map(chr, self.pattern.samples(low, high)):
                if (after := self.step(state, char, length + 1)) is not None:
                    found.setdefault(self.pattern.distance(after), []).append(char)
        return found[min(found)][:2] if found else []

    def accepts(self, state: Any, text: str, length: int) -> bool:
        """Whether the text so far matches."""
        del text, length
        return self.pattern.accepts(state)


@dataclass(frozen=True, slots=True)
class Formatted:
    """`format`: its shape while the text grows, its exact check at the end."""

    format: Format
    shape: Pattern | None
    keyword: str = "format"
    needs_text: bool = True

    def start(self) -> Any:
        """The shape's start."""
        return self.shape.start if self.shape is not None else ()

    def step(self, state: Any, piece: str, length: int) -> Any | None:
        """None if no continuation has the format's shape."""
        del length
        return state if self.shape is None else self.shape.step(state, piece)

    def may_go_on(self, state: Any, low: int, high: int, length: int) -> bool:
        """Whether the shape allows one of the characters."""
        return self.shape is None or Matching(self.shape, None).may_go_on(state, low, high, length)

    def room(self, length: int) -> int:
        """Without a shape no character is refused before the end."""
        del length
        return FREE if self.shape is None else 0

    def accepts(self, state: Any, text: str, length: int) -> bool:
        """Whether the format's checker accepts the text."""
        del state, length
        return self.format.accepts(text)


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the text of a number says before it ends.

    Attributes:
        negative: there is a minus sign.
        digits: significant digits so far, without leading zeros; of the mantissa.
        scale: the exponent that goes with `digits` if no further digit or exponent follows.
        exponent: None while the mantissa may grow; then the sign (empty: not yet known) and the digits so far.
    """

    negative: bool
    digits: str
    scale: int
    exponent: tuple[str, str] | None

    @staticmethod
    def read(text: str) -> Prefix:
        """The prefix that `text` is; it follows the grammar."""
        negative = text.startswith("-")
        mantissa, mark, power = text.lstrip("-").replace("E", "e").partition("e")
        whole, _, fraction = mantissa.partition(".")
        exponent = None
        if mark:
            sign = power[:1] if power[:1] in {"+", "-"} else ""
            exponent = (sign or ("+" if power else ""), power.lstrip("+-"))
        return Prefix(negative, (whole + fraction).lstrip("0"), -len(fraction), exponent)


@dataclass(frozen=True, slots=True)
class NumberCheck:
    """All that one schema asks of a number.

    Attributes:
        integer: only integers (`1.0` is one).
        low, high: bounds; the flag says that the bound itself is excluded.
        divisor: `multipleOf`.
        members: the numbers of `enum` or `const`.
        keywords: the keyword of each part, by the part's name here.
    """

    integer: bool = False
    low: tuple[Number, bool] | None = None
    high: tuple[Number, bool] | None = None
    divisor: Number | None = None
    members: frozenset[Number] | None = None
    keywords: tuple[tuple[str, str], ...] = ()

    def _name(self, part: str) -> str:
        return dict(self.keywords)[part]

    @property
    def late(self) -> tuple[str, ...]:
        """The keywords that can still fail at the end of the number."""
        names = [keyword for _, keyword in self.keywords]
        return (*(["type"] if self.integer else []), *names, *(["multipleOf"] if self.divisor is not None else []))

    def failure(self, value: Number) -> str | None:
        """The keyword that a finished number violates."""
        if self.integer and not value.is_integer:
            return "type"
        if self.members is not None and value not in self.members:
            return self._name("members")
        if self.low is not None and values.compare(value, self.low[0]) < self.low[1]:
            return self._name("low")
        if self.high is not None and values.compare(self.high[0], value) < self.high[1]:
            return self._name("high")
        if self.divisor is not None and not values.divisible(value, self.divisor):
            return "multipleOf"
        return None

    def hopeless(self, text: str) -> str | None:
        """The keyword that no number which starts with `text` satisfies; None may also mean that it is not known."""
        prefix = Prefix.read(text)
        if (self.low is not None or self.high is not None) and not _bounds_reachable(
            prefix, self.low, self.high, integer=self.integer
        ):
            return self._name("high" if self._above_low(prefix) else "low")
        if self.members is not None and len(self.members) <= MAX_EXACT_CANDIDATES:
            return None if any(_reaches(prefix, member) for member in self.members) else self._name("members")
        return None

    def left(self, text: str, most: int) -> list[Number] | None:
        """The members that numbers which start with `text` may be, if there are at most `most`."""
        if self.members is None or len(self.members) > MAX_EXACT_CANDIDATES:
            return None
        prefix = Prefix.read(text)
        left = [member for member in sorted(self.members) if _reaches(prefix, member)]
        return left if len(left) <= most else None

    def _above_low(self, prefix: Prefix) -> bool:
        """Whether the upper bound is to blame."""
        return _bounds_reachable(prefix, self.low, None, integer=self.integer)


def _bounds_reachable(
    prefix: Prefix, low: tuple[Number, bool] | None, high: tuple[Number, bool] | None, *, integer: bool
) -> bool:
    """Whether some continuation lies within the bounds (excluded ends are taken to be included but for zero)."""
    if prefix.negative:  # mirrored: magnitudes are compared from here on
        low, high = (_negated(high), _negated(low))
    if high is not None and high[0].coefficient <= 0:
        # Only zero can help, and only as long as every digit is zero.
        return not high[0].coefficient and not high[1] and not prefix.digits
    least = low[0] if low is not None and low[0].coefficient > 0 else None
    most = high[0] if high is not None else None
    if not prefix.digits:
        return prefix.exponent is None or least is None
    if prefix.exponent is None:
        return _magnitude_reachable(prefix.digits, least, most, integer=integer)
    return _power_reachable(prefix, least, most)


def _negated(bound: tuple[Number, bool] | None) -> tuple[Number, bool] | None:
    """The bound for the number with the other sign."""
    return None if bound is None else (Number(-bound[0].coefficient, bound[0].exponent), bound[1])


def _magnitude_reachable(digits: str, low: Number | None, high: Number | None, *, integer: bool) -> bool:
    """Whether some number whose significant digits start with `digits`, at any scale, lies within `low` and `high`."""
    if high is None:
        return True
    scale = values.magnitude(high) - len(digits)
    if values.compare(values.number("", digits, scale), high) > 0:
        scale -= 1  # the largest scale at which the digits alone do not exceed the bound
    smallest = len(digits.rstrip("0")) - len(digits)
    if integer and scale < smallest:
        return False
    if low is None:
        return True
    if integer and scale < 0:
        return values.compare(values.number("", digits, scale), low) >= 0
    return values.compare(values.number("", str(int(digits) + 1), scale), low) > 0


def _power_reachable(prefix: Prefix, low: Number | None, high: Number | None) -> bool:
    """Whether an exponent that goes on as it has begun leads within `low` and `high`."""
    assert prefix.exponent is not None
    sign, power = prefix.exponent
    if not sign:
        return True
    shift = int(power or 0) * (-1 if sign == "-" else 1)
    nearest = values.number("", prefix.digits, prefix.scale + shift)
    if sign == "+":  # further digits only raise it
        return high is None or values.compare(nearest, high) <= 0
    return low is None or values.compare(nearest, low) >= 0


def _reaches(prefix: Prefix, member: Number) -> bool:
    """Whether some spelling of `member` starts with the prefix."""
    if not member.coefficient:
        return not prefix.digits  # `-0` is zero too
    if prefix.negative != (member.coefficient < 0):
        return False
    digits = str(abs(member.coefficient))
    if prefix.exponent is None:
        seen = prefix.digits
        return digits.startswith(seen) or (seen.startswith(digits) and not seen[len(digits) :].strip("0"))
    kept = prefix.digits.rstrip("0")
    if kept != digits:
        return False
    wanted = member.exponent - (prefix.scale + len(prefix.digits) - len(kept))
    sign, power = prefix.exponent
    if not sign:
        return True
    if (sign == "-") != (wanted < 0) and wanted:
        return False
    power = power.lstrip("0")
    return str(abs(wanted)).startswith(power) if wanted else not power
