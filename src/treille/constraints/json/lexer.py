"""Pieces of JSON text over bytes (RFC 8259, and of RFC 7493 that strings are Unicode text and names are unique)."""

from __future__ import annotations

import re

WHITE_SPACE = re.compile(rb"[ \t\n\r]*")

_CHARACTER = (
    rb"[\x20\x21\x23-\x5b\x5d-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}"
    rb"|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
# What stands in a string as it is, as much as there is.
PLAIN = re.compile(rb"(?:[\x20\x21\x23-\x5b\x5d-\x7f]+|" + _CHARACTER + rb")*")
_HALF_CHARACTER = (
    rb"[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xec\xee\xef][\x80-\xbf]?|\xed[\x80-\x9f]?|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?"
    rb"|[\xf1-\xf3][\x80-\xbf]{0,2}|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?"
)
# An escape; the two halves of a pair of surrogates are one.
ESCAPE = re.compile(
    rb'\\(?:(["\\/bfnrt])|u([0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})'
    rb"|u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2}))"
)
_LOW_HALF = rb"(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?"
_HALF_ESCAPE = (
    rb"\\(?:u(?:[0-9a-cefA-CEF][0-9a-fA-F]{0,2}|[dD](?:[0-7][0-9a-fA-F]?)?"
    rb"|[dD][89abAB](?:[0-9a-fA-F](?:[0-9a-fA-F]" + _LOW_HALF + rb")?)?)?)?"
)
# What may stand at the end of the bytes so far, and needs more of them.
HALF = re.compile(_HALF_ESCAPE + rb"|" + _HALF_CHARACTER)

NUMBER_BYTES = re.compile(rb"[-+.0-9eE]*")
NUMBER_PREFIX = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.(?:[0-9]+(?:[eE](?:[+-]?[0-9]*)?)?)?|[eE](?:[+-]?[0-9]*)?)?)?")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

Ranges = tuple[tuple[int, int], ...]
"""Code points: first and last of each range, surrogates left out."""
_SHORT = {b'"': '"', b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}


def unescape(found: re.Match[bytes]) -> str:
    """The character that a match of `ESCAPE` stands for."""
    short, single, high, low = found.groups()
    if short is not None:
        return _SHORT[short]
    if single is not None:
        return chr(int(single, 16))
    return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)


def characters(half: bytes) -> Ranges:
    """The characters that an unfinished one, or an unfinished escape, may become; `HALF` matches it."""
    if half[:1] != b"\\":
        return (_of_utf8(half),)
    digits = half[2:].partition(b"\\")[0].decode()
    if digits[:1].lower() == "d" and digits[1:2].lower() > "7":  # a pair of surrogates, its second half to come
        return (_of_pair(half, digits),)
    low, high = int(digits.ljust(4, "0"), 16), int(digits.ljust(4, "f"), 16)
    plain = tuple((max(low, first), min(high, last)) for first, last in ((0, 0xD7FF), (0xE000, 0xFFFF)))
    found = tuple((first, last) for first, last in plain if first <= last)
    return (*found, (0x10000, 0x10FFFF)) if low <= 0xD800 <= high else found


def _of_utf8(half: bytes) -> tuple[int, int]:
    """The characters whose UTF-8 starts like this."""
    size = 2 if half[0] < 0xE0 else 3 if half[0] < 0xF0 else 4
    least = {0xE0: b"\xe0\xa0", 0xF0: b"\xf0\x90"}.get(half[0], half) if len(half) == 1 else half
    most = {0xED: b"\xed\x9f", 0xF4: b"\xf4\x8f"}.get(half[0], half) if len(half) == 1 else half
    return ord(least.ljust(size, b"\x80").decode()), ord(most.ljust(size, b"\xbf").decode())


def _of_pair(half: bytes, digits: str) -> tuple[int, int]:
    """The characters of a pair of surrogates of which at least half a digit too much for a single one has come."""
    first = int(digits.ljust(4, "0"), 16), int(digits.ljust(4, "f"), 16)
    rest = half[6:].partition(b"u")[2].decode() if len(digits) == 4 else ""
    least, most = (rest, rest) if len(rest) > 1 else ("dc", "df")
    second = int(least.ljust(4, "0"), 16), int(most.ljust(4, "f"), 16)
    low, high = (0x10000 + ((a - 0xD800) << 10) + b - 0xDC00 for a, b in zip(first, second, strict=True))
    return low, high
