"""Runs the Python blocks of a page and writes what they print into the `text` blocks marked `<!-- shown -->`.

Such blocks hold texts of the bundled model, so run this after replacing it: `python scripts/show.py README.md`. Tests
run the Python blocks too, but do not compare these texts, which may differ where two tokens are equally probable.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(
    r"(?P<skipped><!-- no-run -->\n```python\n.*?^```$)"
    r"|^```python\n(?P<code>.*?)^```$"
    r"|(?P<head><!-- shown -->\n```text\n)(?P<text>.*?)(?P<tail>^```$)",
    re.MULTILINE | re.DOTALL,
)


def refresh(page: Path) -> None:
    """Rewrite the shown texts of a page."""
    namespace: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
    printed = ""

    def run(found: re.Match[str]) -> str:
        nonlocal printed
        if found["code"] is not None:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(found["code"], str(page), "exec", dont_inherit=True), namespace)  # noqa: S102
            printed = out.getvalue()
        elif found["head"] is not None:
            lines = [line.rstrip() for line in printed.rstrip().splitlines()]
            return found["head"] + "\n".join(lines) + "\n" + found["tail"]
        return found[0]

    page.write_text(BLOCK.sub(run, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        refresh(Path(argument))
