"""ECMA-262 regular expressions as trees.

The whole syntax with the `u` flag is read, plus two habits of schemas in the wild: an escaped punctuation character is
itself, and a brace that opens no quantifier is a brace. Flags inside groups, backreferences and Unicode properties
other than general categories are refused by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from treille.constraints.json import unicode

if TYPE_CHECKING:
    from treille.constraints.json.unicode import Ranges

MAX_DEPTH = 100

MAX_BOUND = 10**9

_QUANTIFIER = re.compile(r"\{([0-9]+)(?:(,)([0-9]+)?)?\}")
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_CLASSES = {
    "d": unicode.DIGIT, "D": unicode.complement(unicode.DIGIT),
    "w": unicode.WORD, "W": unicode.complement(unicode.WORD),
    "s": unicode.SPACE, "S": unicode.complement(unicode.SPACE),
}  # fmt: skip
_BACKREFERENCE = re.compile(r"[1-9][0-9]*|k<[A-Za-z_$][\w$]*>")
_PROPERTY = re.compile(r"\{[A-Za-z_]+(?:=[A-Za-z_0-9]+)?\}")
_GROUP_NAME = re.compile(r"[A-Za-z_$][\w$]*>")


class PatternError(ValueError):
    """The text is no pattern this module reads; the message says why."""


class Assertion(Enum):
    """A place between characters."""

    START = "^"
    END = "$"
    BOUNDARY = r"\b"
    INSIDE = r"\B"


@dataclass(frozen=True, slots=True)
class Char:
    """One character out of `ranges`."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    """`parts`, one after the other."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `options`."""

    options: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`body`, between `least` and `most` times (None: without end)."""

    body: Tree
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """A look around: nothing is consumed."""

    body: Tree
    ahead: bool
    negated: bool


Tree = Char | Sequence | Choice | Repeat | Look | Assertion


def parse(text: str, *, syntax_only: bool = False) -> Tree:
    """The tree of an ECMA-262 pattern.

    Args:
        text: the pattern.
        syntax_only: accept what is well-formed but cannot be an automaton (backreferences, properties this module does
            not know); the tree is then not to be used.

    Raises:
        PatternError: the syntax is wrong, or asks for what an automaton cannot do.
    """
    reader = _Reader(text, syntax_only=syntax_only)
    tree = reader.choice(0)
    if reader.at < len(text):
        reader.fail("unbalanced )")
    return tree


class _Reader:
    """A recursive-descent reader; `at` is the position of the next character."""

    def __init__(self, text: str, *, syntax_only: bool) -> None:
        self.text = text
        self.syntax_only = syntax_only
        self.at = 0

    def fail(self, reason: str) -> NoReturn:
        """Raises `PatternError` with the position."""
        msg = f"{reason} at position {self.at} of the pattern {self.text[:80]!r}"
        raise PatternError(msg)

    def peek(self) -> str:
        """The next character, empty at the end."""
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> bool:
        """Whether `wanted` comes next; it is consumed."""
        if self.text.startswith(wanted, self.at):
            self.at += len(wanted)
            return True
        return False

    def choice(self, depth: int) -> Tree:
        """Alternatives up to the end or a closing parenthesis."""
        if depth > MAX_DEPTH:
            self.fail(f"groups are nested deeper than {MAX_DEPTH}")
        options = [self.sequence(depth)]
        while self.take("|"):
            options.append(self.sequence(depth))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self, depth: int) -> Tree:
        """Terms up to the end, a bar or a closing parenthesis."""
        parts: list[Tree] = []
        while self.peek() not in {"", "|", ")"}:
            start = self.at
            body = self.term(depth)
            bare = isinstance(body, Look) or (isinstance(body, Assertion) and self.text[start] != "(")
            parts.append(self.quantified(body, bare=bare))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def term(self, depth: int) -> Tree:
        """One atom or assertion."""
        char = self.peek()
        if char in "*+?":
            self.fail("nothing to repeat")
        self.at += 1
        match char:
            case "^":
                return Assertion.START
            case "$":
                return Assertion.END
            case ".":
                return Char(unicode.complement(unicode.LINE_END))
            case "(":
                return self.group(depth)
            case "[":
                return Char(self.bracket())
            case "\\":
                return self.escape()
        return Char(((ord(char), ord(char)),))

    def group(self, depth: int) -> Tree:
        """What follows an opening parenthesis, with its closing one."""
        look: tuple[bool, bool] | None = None
        if self.take("?"):
            for mark, found in (
                ("=", (True, False)),
                ("!", (True, True)),
                ("<=", (False, False)),
                ("<!", (False, True)),
            ):
                if self.take(mark):
                    look = found
                    break
            else:
                self.group_mark()
        body = self.choice(depth + 1)
        if not self.take(")"):
            self.fail("missing )")
        return body if look is None else Look(body, ahead=look[0], negated=look[1])

    def group_mark(self) -> None:
        """Consumes `:` or a group's name; flags are refused."""
        if self.take(":"):
            return
        if self.take("<") and (name := _GROUP_NAME.match(self.text, self.at)):
            self.at = name.end()
            return
        self.fail("this kind of group is not supported")

    def quantified(self, body: Tree, *, bare: bool) -> Tree:
        """`body` with the quantifier that follows it, if any; a `bare` assertion has none."""
        bounds: tuple[int, int | None]
        if self.take("*"):
            bounds = (0, None)
        elif self.take("+"):
            bounds = (1, None)
        elif self.take("?"):
            bounds = (0, 1)
        elif found := _QUANTIFIER.match(self.text, self.at):
            bounds = self.bounds(found)
        else:
            return body
        self.take("?")  # lazy: the same language
        if bare:
            self.fail("an assertion cannot be repeated")
        if bounds[1] is not None and bounds[1] < bounds[0]:
            self.fail(f"the bounds {bounds[0]},{bounds[1]} are out of order")
        if self.peek() in {"*", "+", "?"} or _QUANTIFIER.match(self.text, self.at):
            self.fail("nothing to repeat")
        return Repeat(body, *bounds)

    def bounds(self, found: re.Match[str]) -> tuple[int, int | None]:
        """The bounds of a quantifier in braces, which is consumed."""
        if max(len(found[1]), len(found[3] or "")) > len(str(MAX_BOUND)):
            self.fail(f"a repetition bound above {MAX_BOUND}")
        self.at = found.end()
        least = int(found[1])
        return least, int(found[3]) if found[3] else None if found[2] else least

    def escape(self) -> Tree:
        """What follows a backslash outside of brackets."""
        if self.take("b"):
            return Assertion.BOUNDARY
        if self.take("B"):
            return Assertion.INSIDE
        if found := _BACKREFERENCE.match(self.text, self.at):
            if not self.syntax_only:
                self.fail("a backreference is not regular: it is not supported")
            self.at = found.end()
            return Sequence(())
        return Char(self.class_escape())

    def class_escape(self) -> Ranges:
        """The characters of an escape, inside or outside of brackets."""
        char = self.peek()
        if not char:
            self.fail("a backslash at the end")
        self.at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if char in {"p", "P"}:
            found = self.property_name()
            return unicode.complement(found) if char == "P" else found
        point = self.character_escape(char)
        return ((point, point),)

    def property_name(self) -> Ranges:
        r"""The characters of `{name}` after `\p`."""
        name = _PROPERTY.match(self.text, self.at)
        if name is None:
            self.fail(r"\p needs a property's name in braces")
        found = unicode.category(name[0][1:-1])
        if found is None and not self.syntax_only:
            self.fail(f"the Unicode property {name[0]} is not supported (general categories are)")
        self.at = name.end()
        return found or unicode.ANY

    def character_escape(self, char: str) -> int:
        """The code point of an escape that stands for one character; `char` is already consumed."""
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char == "0" and not self.peek().isdecimal():
            return 0
        if char == "c" and re.match(r"[A-Za-z]", self.peek()):
            self.at += 1
            return ord(self.text[self.at - 1]) % 32
        if char in {"x", "u"}:
            return self.hexadecimal(char)
        if char.isalnum():
            self.at -= 1
            self.fail(f"\\{char} is no escape of ECMA-262")
        return ord(char)

    def hexadecimal(self, kind: str) -> int:
        r"""The code point of `\xhh`, `\uhhhh`, `\u{h…}`, or of a pair of surrogates."""
        form = r"([0-9A-Fa-f]{2})" if kind == "x" else r"(?:([0-9A-Fa-f]{4})|\{([0-9A-Fa-f]{1,6})\})"
        found = re.compile(form).match(self.text, self.at)
        point = int(found[found.lastindex or 1], 16) if found else -1
        if found is None or point > 0x10FFFF:
            self.fail(f"\\{kind} needs hexadecimal digits of a code point")
        self.at = found.end()
        low = re.compile(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})").match(self.text, self.at)
        if kind == "u" and 0xD800 <= point < 0xDC00 and low:
            self.at = low.end()
            return 0x10000 + ((point - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        return point

    def bracket(self) -> Ranges:
        """The characters of `[…]`, whose opening bracket is already consumed."""
        negated = self.take("^")
        found: list[tuple[int, int]] = []
        while not self.take("]"):
            if not self.peek():
                self.fail("missing ]")
            low = self.bracket_atom()
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in {"]", ""}:
                self.at += 1
                found.extend(self.bracket_range(low, self.bracket_atom()))
            else:
                found.extend(low)
        ranges = unicode.union(found)
        return unicode.complement(ranges) if negated else ranges

    def bracket_range(self, low: Ranges, high: Ranges) -> Ranges:
        """The range from `low` to `high`; a class at either end makes the hyphen a character."""
        if any(len(end) != 1 or end[0][0] != end[0][1] for end in (low, high)):
            return (*low, (0x2D, 0x2D), *high)
        if high[0][0] < low[0][0]:
            self.fail("a range is out of order")
        return ((low[0][0], high[0][0]),)

    def bracket_atom(self) -> Ranges:
        """One character or class inside brackets."""
        char = self.peek()
        if not char:
            self.fail("missing ]")
        self.at += 1
        if char != "\\":
            return ((ord(char), ord(char)),)
        if self.take("b"):
            return ((8, 8),)
        return self.class_escape()
