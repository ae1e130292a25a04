"""Runs the official JSON Schema test suite against the validator and both layers, and writes the tables of the page.

The suite comes from the source distribution of the `jsonschema` package, which carries it; it is fetched with pip on
the first run and kept in the user's cache. Every schema is compiled; every instance is fed byte by byte and in random
pieces, compact, with usual spacing, and with its names in reverse order. Then the same through `json_schema`, mask and
validator together, token by token.

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

from treille.constraints import Vocabulary, json_schema
from treille.constraints.json import Program, SchemaRefused, State, Violation
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION = "4.26.0"
DRAFTS = {"draft2020-12": 2020, "draft2019-09": 2019, "draft7": 7}
REMOTE = "http://localhost:1234/"
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/json-schema.md"
OUTCOMES = ("right", "refused", "under", "over")
METASCHEMAS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
EOS = 256
VOCABULARY = Vocabulary((*(bytes([byte]) for byte in range(256)), b"", b'{"', b'":', b"12"), frozenset((EOS,)), 260)
"""Single bytes and a few longer tokens."""
Key = tuple[str, str, str]
"""Draft, part and keyword."""


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


def judge_layers(case: Case, registry: Mapping[str, Any], *, ordered: bool) -> str:
    """One of `OUTCOMES` for mask and validator together; when `ordered`, names in reverse order need not be taken."""
    schema = case.schema
    if isinstance(schema, dict) and "$schema" not in schema:
        schema = {"$schema": METASCHEMAS[case.draft], **schema}
    formats = case.part == "format" or (case.part, case.keyword) == ("optional", "content")
    try:
        source = json_schema(schema, ordered=ordered, formats=formats, registry=registry)
        constraint = source.compile(VOCABULARY)
    except ParameterError:
        return "refused" if any(test["valid"] for test in case.tests) else "right"
    outcome = "right"
    for test in case.tests:
        for index, document in enumerate(spellings(test["data"])):
            tokens = (*document, EOS)
            taken = constraint.accepted(constraint.start(), tokens) == len(tokens)
            if taken and not test["valid"]:
                return "under"
            if test["valid"] and not taken and not (ordered and index == 2):
                outcome = "over"
    return outcome


def run_layers(suite: list[Case], registry: Mapping[str, Any], *, ordered: bool) -> dict[Key, Counter[str]]:
    """The outcomes of both layers per draft, part and keyword."""
    counts: dict[Key, Counter[str]] = {}
    for case in suite:
        outcome = judge_layers(case, registry, ordered=ordered)
        counts.setdefault((case.draft, case.part, case.keyword), Counter())[outcome] += 1
    return counts


def run(suite: list[Case], registry: Mapping[str, Any]) -> dict[Key, Counter[str]]:
    """The outcomes per draft, part and keyword."""
    counts: dict[Key, Counter[str]] = {}
    for case in suite:
        counts.setdefault((case.draft, case.part, case.keyword), Counter())[judge(case, registry)] += 1
    return counts


@dataclass(frozen=True)
class Results:
    """The outcomes per draft, part and keyword.

    Attributes:
        alone: of the validator, without the documents that schemas refer to.
        given: of the validator, with them.
        ordered, free: of both layers with them, by default and with `ordered=False`.
    """

    alone: Mapping[Key, Counter[str]]
    given: Mapping[Key, Counter[str]]
    ordered: Mapping[Key, Counter[str]]
    free: Mapping[Key, Counter[str]]

    def cells(self, keys: Iterable[Key]) -> tuple[int, ...]:
        """The numbers of a row that is about `keys`."""
        chosen = list(keys)
        alone, given, ordered, free = (
            sum((counts[key] for key in chosen), Counter[str]())
            for counts in (self.alone, self.given, self.ordered, self.free)
        )
        wrong = sum(one[outcome] for one in (alone, given) for outcome in ("under", "over"))
        return (
            alone.total(), alone["right"], alone["refused"], given["right"], ordered["right"], ordered["over"],
            free["right"], free["over"], ordered["refused"], wrong + ordered["under"] + free["under"],
        )  # fmt: skip

    def wrong(self, key: Key) -> bool:
        """Whether an instance was judged wrongly, other orders and spellings aside."""
        validator = self.alone[key]["under"] + self.alone[key]["over"] + self.given[key]["under"]
        return bool(validator + self.ordered[key]["under"] + self.free[key]["under"])


HEAD = (
    "schemas", "validator", "refused", "with `registry=`", "both layers", "other spelling", "`ordered=False`",
    "other spelling", "refused", "wrong",
)  # fmt: skip


def tables(results: Results) -> str:
    """The tables of the documentation, in Markdown."""

    def row(name: str, keys: Iterable[Key]) -> str:
        return f"| {name} | " + " | ".join(map(str, results.cells(keys))) + " |\n"

    def head(name: str) -> str:
        return f"| {name} | " + " | ".join(HEAD) + " |\n" + "|---" * (len(HEAD) + 1) + "|\n"

    text = head("part of the suite")
    for draft in DRAFTS:
        for part in ("required", "optional", "format"):
            text += row(f"{draft}, {part}", [key for key in results.alone if key[:2] == (draft, part)])
    for part, name in (("required", "keyword"), ("format", "format")):
        text += "\n" + head(f"{name} (draft 2020-12, {part})")
        for key in results.alone:
            if key[:2] == ("draft2020-12", part):
                text += row(f"`{key[2]}`", [key])
    return text


def cells(results: Results, key: Key) -> dict[str, int]:
    """The numbers of one keyword, by the outcome and by who judged."""
    names = ("alone", "given", "ordered", "free")
    return {f"{name}_{outcome}": getattr(results, name)[key][outcome] for name in names for outcome in OUTCOMES}


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
    registry = remotes(folder)
    layers = (run_layers(suite, registry, ordered=ordered) for ordered in (True, False))
    results = Results(run(suite, {}), run(suite, registry), *layers)
    text = tables(results)
    print(text)
    if arguments.write:
        write(text)
    if arguments.json:
        rows = ({"draft": key[0], "part": key[1], "keyword": key[2], **cells(results, key)} for key in results.alone)
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return int(any(results.wrong(key) for key in results.alone if key[1] == "required"))


if __name__ == "__main__":
    raise SystemExit(main())
