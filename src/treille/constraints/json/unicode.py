"""Character classes as sorted, disjoint ranges of code points, both ends included."""

from __future__ import annotations

import unicodedata
from functools import cache
from sys import maxunicode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]

ANY: Ranges = ((0, maxunicode),)
DIGIT: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
# White space and line terminators of ECMA-262; the space separators are the Zs category.
SPACE: Ranges = (
    (0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
LINE_END: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))

_CATEGORY_NAMES = {
    "letter": "L", "cased_letter": "LC", "uppercase_letter": "Lu", "lowercase_letter": "Ll", "titlecase_letter": "Lt",
    "modifier_letter": "Lm", "other_letter": "Lo", "mark": "M", "combining_mark": "M", "nonspacing_mark": "Mn",
    "spacing_mark": "Mc", "enclosing_mark": "Me", "number": "N", "decimal_number": "Nd", "digit": "Nd",
    "letter_number": "Nl", "other_number": "No", "punctuation": "P", "punct": "P", "connector_punctuation": "Pc",
    "dash_punctuation": "Pd", "open_punctuation": "Ps", "close_punctuation": "Pe", "initial_punctuation": "Pi",
    "final_punctuation": "Pf", "other_punctuation": "Po", "symbol": "S", "math_symbol": "Sm", "currency_symbol": "Sc",
    "modifier_symbol": "Sk", "other_symbol": "So", "separator": "Z", "space_separator": "Zs", "line_separator": "Zl",
    "paragraph_separator": "Zp", "other": "C", "control": "Cc", "cntrl": "Cc", "format": "Cf", "surrogate": "Cs",
    "private_use": "Co", "unassigned": "Cn",
}  # fmt: skip


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The ranges sorted, with those that overlap or touch joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)


def complement(ranges: Ranges) -> Ranges:
    """All code points outside `ranges`, which are sorted and disjoint."""
    left, low = [], 0
    for first, last in ranges:
        if low < first:
            left.append((low, first - 1))
        low = last + 1
    if low <= maxunicode:
        left.append((low, maxunicode))
    return tuple(left)


@cache
def _categories() -> dict[str, Ranges]:
    """The ranges of every general category of two letters, from the interpreter's Unicode database."""
    found: dict[str, list[tuple[int, int]]] = {}
    start, current = 0, unicodedata.category("\0")
    for point in range(1, maxunicode + 2):
        kind = unicodedata.category(chr(point)) if point <= maxunicode else ""
        if kind != current:
            found.setdefault(current, []).append((start, point - 1))
            start, current = point, kind
    return {name: tuple(ranges) for name, ranges in found.items()}


@cache
def category(name: str) -> Ranges | None:
    r"""The ranges of `\p{name}`: a general category (`Lu`, `Letter`, `gc=Nd`), `ASCII`, `Any` or `Assigned`; else None.

    Category names are matched without regard to case (`\p{digit}`).
    """
    key, _, value = name.rpartition("=")
    if key not in {"", "gc", "General_Category"}:
        return None
    if value == "ASCII":
        return ((0, 0x7F),)
    if value == "Any":
        return ANY
    if value == "Assigned":
        return complement(_categories()["Cn"])
    short = _CATEGORY_NAMES.get(value.lower(), value)
    if short == "LC":
        kinds = ["Lu", "Ll", "Lt"]
    else:
        kinds = [kind for kind in _categories() if kind == short or kind[0] == short]
    return union(pair for kind in kinds for pair in _categories()[kind]) if kinds else None
