"""The documentation is run: Python blocks, commands, links.

Blocks of one page share a namespace and run in order, without a network. A block after `<!-- no-run -->` is left out; a
`text` block after `<!-- output -->` is what the Python block before it prints. One after `<!-- shown -->` is written by
scripts/show.py and not compared.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from treille.drafters import registry as drafters
from treille.strategy import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NO_RUN, OUTPUT = "<!-- no-run -->", "<!-- output -->"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
COMMAND_SECONDS = 300


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it starts at, and the comment on the line before it."""

    language: str
    text: str
    line: int
    mark: str


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    opened: tuple[str, int, str] | None = None
    inside: list[str] = []
    before = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.startswith("```"):
            inside.append(line)
            before = line.strip() or before
        elif opened is None:
            opened, inside = (line[3:].strip(), number, before), []
        else:
            found.append(Block(opened[0], "\n".join(inside) + "\n", opened[1], opened[2]))
            opened, before = None, ""
    assert opened is None, f"{page}: the block at line {opened} is not closed"
    return tuple(found)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """What a page links to; what looks like a link in inline code is none."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """The fragments that the headings of a page can be linked by."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[str]:
    """The shell lines of a page that call `treille`, continued lines joined."""
    for block in blocks(page):
        if block.language not in {"console", "bash", "sh"} or block.mark == NO_RUN:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if block.language == "console" and not line.startswith("$ "):
                continue
            command = line.removeprefix("$ ").strip()
            if command.startswith("treille ") or "| treille " in command:
                yield command


def name(page: Path) -> str:
    """A page's path in the repository."""
    return str(page.relative_to(ROOT))


COMMANDS = sorted({command for page in PAGES for command in commands(page)})
PYTHON_PAGES = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty working directory, no network, and a registry that forgets what the page has added."""

    def refuse(*_: object) -> NoReturn:
        msg = "the documentation runs without a network"
        raise OSError(msg)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    known = [(one, dict(one._infos)) for one in (registry, drafters)]
    yield
    for one, infos in known:
        one._infos.clear()
        one._infos.update(infos)


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name)
def test_python_blocks_run(page: Path) -> None:
    """Every Python block of a page runs, after those before it, and prints what the page says."""
    namespace: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
    printed = ""
    for block in blocks(page):
        if block.language == "python" and block.mark != NO_RUN:
            # Line numbers of a traceback are those of the page.
            code = compile("\n" * block.line + block.text, name(page), "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, namespace)
            printed = out.getvalue()
        elif block.mark == OUTPUT:
            assert block.text.split() == printed.split(), f"{name(page)}:{block.line} does not show what is printed"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path) -> None:
    """Every `treille` command of the documentation ends with exit code 0, without a network."""
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path) -> None:
    """Every relative link leads to a file of the repository, and to a heading where it names one."""
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name(page)} links to {target}, which does not exist"
        if fragment and other.suffix == ".md":
            assert fragment in anchors(other), f"{name(page)} links to {target}, which has no such heading"


def pages_linked_from(page: Path) -> set[Path]:
    """The files that a page links to."""
    return {(page.parent / target.partition("#")[0]).resolve() for target in links(page)}


def test_every_page_is_in_the_index() -> None:
    """docs/index.md leads to every page of docs/, or to an index of its folder that does."""
    index = ROOT / "docs/index.md"
    linked = pages_linked_from(index)
    for folder in [page for page in linked if page.name == "index.md"]:
        linked |= pages_linked_from(folder)
    missing = [name(page) for page in sorted((ROOT / "docs").rglob("*.md")) if page not in {index, *linked}]
    assert not missing, f"not linked from docs/index.md: {missing}"
