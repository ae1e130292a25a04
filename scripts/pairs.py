"""Write the table of pairs in docs/drafters/index.md from the tests that prove them: `python scripts/pairs.py`.

A cell is ✓ if every test of that pair passes, ✗ if one fails, and empty where there is none.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/drafters/index.md"
FILES = ("tests/laws/test_draft_law.py", "tests/pairs/test_draft_pairs.py")
LAWS = {
    "test_drafted_sampling_has_exactly_the_plain_law": "law",
    "test_processors_see_the_path_of_every_drafted_row": "law with processors",
    "test_a_draft_under_a_constraint_leaves_the_masked_law": "law under a constraint",
}


class Outcomes:
    """Collects what passed, by drafter and column."""

    def __init__(self) -> None:
        self.found: defaultdict[str, dict[str, bool]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        cell = cell_of(report.nodeid)
        if cell is not None and (report.when == "call" or report.failed):
            drafter, column = cell
            self.found[drafter][column] = self.found[drafter].get(column, True) and report.passed


def cell_of(nodeid: str) -> tuple[str, str] | None:
    """Drafter and column of a test, None if it belongs to neither."""
    found = re.match(r".*::(test_\w+)\[([a-z_0-9]+)", nodeid)
    if found is None:
        return None
    test, drafter = found.groups()
    if "/pairs/" in nodeid:
        return drafter, test.removeprefix("test_").replace("_", " ")
    return (drafter, LAWS[test]) if test in LAWS else None


def table(found: dict[str, dict[str, bool]]) -> str:
    """The outcomes as Markdown."""
    columns = list(dict.fromkeys(column for cells in found.values() for column in cells))
    lines = [["drafter", *columns], ["---"] * (len(columns) + 1)]
    for drafter in sorted(found):
        marks = {True: "✓", False: "✗", None: ""}
        lines.append([f"[{drafter}]({drafter}.md)", *(marks[found[drafter].get(column)] for column in columns)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Run the tests and fill the page."""
    outcomes = Outcomes()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *(str(ROOT / file) for file in FILES)], plugins=[outcomes])
    text = PAGE.read_text(encoding="utf-8")
    body = f"<!-- pairs -->\n{table(outcomes.found)}\n<!-- /pairs -->"
    PAGE.write_text(
        re.sub(r"<!-- pairs -->.*?<!-- /pairs -->", lambda _: body, text, flags=re.DOTALL), encoding="utf-8"
    )
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
