"""Runs the official JSON Schema test suite against the incremental validator and writes the table of the documentation.

The suite comes from the source distribution of the `jsonschema` package, which carries it; it is fetched with pip on
the first run and kept in the user's cache. Every schema is compiled; every instance is fed byte by byte and in random
pieces, compact, with usual spacing, and with its names in reverse order.

    python scripts/schema_suite.py                # print the tables
    python scripts/schema_suite.py --write        # and write them into docs/json-schema.md
    python scripts/schema_suite.py --json FILE    # and one JSON row per keyword and draft
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from treille.constraints.json import Program, SchemaRefused, State, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION = "4.26.0"
DRAFTS = {"draft2020-12": 2020, "draft2019-09": 2019, "draft7": 7}
REMOTE = "http://localhost:1234/"
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/json-schema.md"
OUTCOMES = ("right", "refused", "under", "over")


def cache_folder() -> Path:
    """Where the suite is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "treille" / f"json-schema-suite-{VERSION}"


def fetch() -> Path:
    """The suite's folder; downloaded if it is not in the cache.

    Raises:
        RuntimeError: pip could not fetch the source distribution.
    """
    folder = cache_folder()
    if (folder / "tests").is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-binary", ":all:", "--no-deps", "--quiet"]
        done = subprocess.run(
            [*command, "--dest", scratch, f"jsonschema=={VERSION}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            msg = f"pip could not fetch the source distribution of jsonschema {VERSION}:\n{done.stderr.strip()}"
            raise RuntimeError(msg)
        with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
            archive.extractall(scratch, filter="data")
        (Path(scratch) / f"jsonschema-{VERSION}" / "json").rename(folder)
    return folder


def remotes(folder: Path) -> dict[str, Any]:
    """The documents that the suite's schemas refer to, by URI."""
    base = folder / "remotes"
    paths = (path for path in base.rglob("*.json"))
    return {REMOTE + path.relative_to(base).as_posix(): json.loads(path.read_text()) for path in paths}


@dataclass(frozen=True)
class Case:
    """One schema of the suite: the file it stands in, which is the keyword it is about, and its instances."""

    draft: str
    keyword: str
    part: str
    description: str
    schema: Any
    tests: tuple[Mapping[str, Any], ...]


def cases(folder: Path, drafts: Iterable[str] = tuple(DRAFTS)) -> list[Case]:
    """All schemas of the suite; `part` is "required", "optional" or "format"."""
    found: list[Case] = []
    for draft in drafts:
        for part, place in (("required", "."), ("optional", "optional"), ("format", "optional/format")):
            for path in sorted((folder / "tests" / draft / place).glob("*.json")):
                for case in json.loads(path.read_text()):
                    tests = tuple(case["tests"])
                    found.append(Case(draft, path.stem, part, case["description"], case["schema"], tests))
    return found


def spellings(value: Any) -> list[bytes]:
    """A document compact, with usual spacing, and indented with all names in reverse order."""
    texts = [
        json.dumps(value, separators=(",", ":"), ensure_ascii=False),
        json.dumps(value),
        json.dumps(_reversed(value), indent=1, ensure_ascii=False),
    ]
    return [text.encode() for text in texts]


def _reversed(value: Any) -> Any:
    """The value with the names of all objects in reverse order."""
    if isinstance(value, dict):
        return {name: _reversed(value[name]) for name in reversed(value)}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


def accepts(program: Program, document: bytes, cuts: Iterable[int]) -> bool:
    """Whether a document that is fed in pieces, cut at `cuts`, is accepted."""
    state, last = program.start(), 0
    for cut in (*cuts, len(document)):
        after = state.feed(document[last:cut])
        if isinstance(after, Violation):
            return False
        assert isinstance(after, State)
        state, last = after, cut
    return state.complete


def judge(case: Case, registry: Mapping[str, Any]) -> str:
    """One of `OUTCOMES`: all right, refused, an invalid instance accepted (under), a valid one rejected (over)."""
    default = None if "$schema" in json.dumps(case.schema) else DRAFTS[case.draft]
    # In the required part, and where the metaschema decides, formats are annotations.
    formats = case.part == "format" or (case.part, case.keyword) == ("optional", "content")
    try:
        program = Program.compile(case.schema, draft=default, formats=formats, registry=registry)
    except SchemaRefused:
        return "refused"
    random = Random(case.description)
    for test in case.tests:
        for document in spellings(test["data"]):
            some = sorted(random.sample(range(len(document)), min(len(document), 3)))
            for cuts in (range(1, len(document)), some):
                if accepts(program, document, cuts) != test["valid"]:
                    return "over" if test["valid"] else "under"
    return "right"


def run(suite: list[Case], registry: Mapping[str, Any]) -> dict[tuple[str, str, str], Counter[str]]:
    """The outcomes per draft, part and keyword."""
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for case in suite:
        counts.setdefault((case.draft, case.part, case.keyword), Counter())[judge(case, registry)] += 1
    return counts


def total(counts: Mapping[tuple[str, str, str], Counter[str]], draft: str, part: str) -> Counter[str]:
    """The outcomes of one part of one draft."""
    return sum((found for key, found in counts.items() if key[:2] == (draft, part)), Counter())


def tables(
    alone: Mapping[tuple[str, str, str], Counter[str]], given: Mapping[tuple[str, str, str], Counter[str]]
) -> str:
    """The tables of the documentation, in Markdown."""
    head = "| {} | schemas | right | refused | under | over | right with `registry=` |\n|---|---|---|---|---|---|---|\n"

    def row(name: str, one: Counter[str], other: Counter[str]) -> str:
        cells = [one.total(), *(one[outcome] for outcome in OUTCOMES), other["right"]]
        return f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |\n"

    text = head.format("part of the suite")
    for draft in DRAFTS:
        for part in ("required", "optional", "format"):
            text += row(f"{draft}, {part}", total(alone, draft, part), total(given, draft, part))
    text += "\n" + head.format("keyword (draft 2020-12, required)")
    for key, found in alone.items():
        if key[:2] == ("draft2020-12", "required"):
            text += row(f"`{key[2]}`", found, given[key])
    return text


def write(text: str) -> None:
    """Replaces what stands between the markers of the documentation's page."""
    start, end = "<!-- suite -->\n", "<!-- /suite -->"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(start)
    PAGE.write_text(before + start + "\n" + text + "\n" + end + rest.split(end)[1], encoding="utf-8")


def main() -> int:
    """Runs the suite; the exit code is 1 if an instance was judged wrongly in its required part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the tables into docs/json-schema.md")
    parser.add_argument("--json", type=Path, help="write one row per draft and keyword")
    arguments = parser.parse_args()
    folder = fetch()
    suite = cases(folder)
    alone, given = run(suite, {}), run(suite, remotes(folder))
    text = tables(alone, given)
    print(text)
    if arguments.write:
        write(text)
    if arguments.json:
        rows = (
            {"draft": key[0], "part": key[1], "keyword": key[2], **{name: found[name] for name in OUTCOMES},
             "right_with_registry": given[key]["right"]}
            for key, found in alone.items()
        )  # fmt: skip
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return int(any(found["under"] + found["over"] for key, found in alone.items() if key[1] == "required"))


if __name__ == "__main__":
    raise SystemExit(main())
