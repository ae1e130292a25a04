"""Texts that match a regular expression from beginning to end."""

import re
from dataclasses import dataclass

import llguidance

from treille.constraints.guidance import Grammar
from treille.constraints.lark import GrammarSource, check_unicode
from treille.errors import ParameterError


@dataclass(frozen=True, slots=True)
class Regex(GrammarSource):
    """A regular expression; see `regex`."""

    pattern: str

    @property
    def name(self) -> str:
        """The pattern, for messages."""
        return f"regex {_short(self.pattern)}"

    def grammar(self) -> Grammar:
        """One rule that is the pattern."""
        check_unicode(self.pattern, self.name)
        if found := _set_operator(self.pattern):
            raise ParameterError(f"{self.name}: {found!r} in a character class could be an operator; escape it")
        # An empty class of rewritings: \\d, \\w and \\s keep their Unicode meaning, as in Python.
        written = llguidance.regex_to_lark(self.pattern, "").replace("\n", "\\n")
        return Grammar(f"start: /{written}/")


def regex(pattern: str) -> Regex:
    r"""The texts that match `pattern` from beginning to end, as ``re.fullmatch`` matches them.

    Look-around, back-references, word boundaries, and ``^`` or ``$`` inside the pattern are refused: they have no exact
    mask. Everything else means what it means in Python's ``re``, but for a few characters of ``\w`` and ``\s``, which
    are Unicode's word characters (so combining marks are some) and white space (so U+001C to U+001F is none).
    ``\p{L}`` and its like may be used as well.

    Args:
        pattern: Such as ``r"\d{4}-\d\d-\d\d"``.
    """
    return Regex(pattern)


def _set_operator(pattern: str) -> str:
    """What Python reads as characters of a class but llguidance as an operation on classes; empty if nothing is."""
    inside = False
    for found in re.finditer(r"\\.|\[\^?\]?|\]|&&|--|~~", pattern, flags=re.DOTALL):
        piece = found[0]
        if piece.startswith("[") and not inside:
            inside = True
        elif piece == "]":
            inside = False
        elif inside and not piece.startswith("\\"):
            return piece[:2] if piece[0] != "[" else "["
    return ""


def _short(pattern: str) -> str:
    """A pattern for messages."""
    return repr(pattern if len(pattern) <= 60 else pattern[:60] + "…")
