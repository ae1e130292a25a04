"""Pieces of error messages."""

import re


def first_line(message: str) -> str:
    """The first line of llguidance's message, without the position in the grammar that was built around the source."""
    line = next(iter(message.strip().splitlines()), "no reason given")
    return re.sub(r"^(at )?\d+\(\d+\): ", "", line)[:300]


def shorten(text: bytes) -> str:
    """The end of a text, quoted."""
    readable = text.decode("utf-8", "replace")
    return repr(readable if len(readable) <= 60 else "…" + readable[-60:])
