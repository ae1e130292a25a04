"""Pieces of error messages."""

import re


def first_line(message: str) -> str:
    """What llguidance's message says, in one line, without places in the grammar that was built around the source."""
    lines = [line.strip() for line in message.strip().splitlines()] or ["no reason given"]
    first = re.sub(r"^(at )?\d+\(\d+\): ", "", lines[0])
    # A regular expression's error is drawn under it: the reason stands on a line of its own.
    reasons = [line for line in lines[1:] if line.startswith("error: ")]
    return " ".join([first[:300], *reasons[:1]])


def shorten(text: bytes) -> str:
    """The end of a text, quoted."""
    readable = text.decode("utf-8", "replace")
    return repr(readable if len(readable) <= 60 else "…" + readable[-60:])
