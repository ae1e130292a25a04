"""Texts of the standard library's modules (PSF licence), split by file into training and held-out."""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import textwrap
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from treille.train.tasks.base import HELD_OUT_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator

# Tests repeat themselves; the other folders hold tables or tools that are not part of the library.
EXCLUDED = {"test", "tests", "idle_test", "site-packages", "idlelib", "lib2to3", "encodings", "pydoc_data"}
LONGEST_LINE = 160  # characters; files with longer lines hold data
FUNCTION_LINES = range(2, 81)


def _in_split(path: Path, held_out: bool) -> bool:
    """Whether a file is in the split: its place in the library alone decides."""
    digest = hashlib.blake2b(path.as_posix().encode(), digest_size=4).digest()
    return (int.from_bytes(digest) % HELD_OUT_SHARE == 0) is held_out


def _modules(root: Path) -> Iterator[Path]:
    """Places of all modules under the root, relative to it; excluded folders are not entered."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in EXCLUDED]
        yield from ((Path(folder) / name).relative_to(root) for name in names if name.endswith(".py"))


@cache
def _files(held_out: bool) -> tuple[str, ...]:
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path for path in _modules(root) if _in_split(path, held_out))
    texts = [(root / path).read_text(encoding="utf-8", errors="replace") for path in paths]
    return tuple(text for text in texts if text.strip() and max(map(len, text.splitlines())) <= LONGEST_LINE)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """A syntax tree's statements, level by level; expressions hold none, and are most of the tree."""
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        children = ast.iter_child_nodes(node)
        waiting += [child for child in children if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case)]


def _pieces(text: str) -> list[str]:
    """Sources of all functions, methods and classes of a module, at indentation zero."""
    lines = text.splitlines(keepends=True)
    found = []
    for node in _statements(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            end = node.end_lineno or node.lineno
            if end - node.lineno + 1 in FUNCTION_LINES:
                found.append(textwrap.dedent("".join(lines[node.lineno - 1 : end])).rstrip() + "\n")
    # A text that is not at indentation zero now holds a string whose lines stand further left.
    return [piece for piece in found if not piece[0].isspace()]


@cache
def _functions(held_out: bool) -> tuple[str, ...]:
    unwanted = set() if held_out else set(_functions(held_out=True))
    found = dict.fromkeys(piece for text in _files(held_out) for piece in _pieces(text))
    return tuple(piece for piece in found if piece not in unwanted)


def python_files(held_out: bool) -> list[str]:
    """Texts of whole modules of the split, in the order of their paths; no text is in both splits.

    The place of a file decides. A held-out text that stands in a training file too is left out.
    """
    unwanted = set(_files(held_out=False)) if held_out else set()
    return [text for text in _files(held_out) if text not in unwanted]


def python_functions(held_out: bool) -> list[str]:
    """Functions, methods and classes of 2 to 80 lines, each once, in the order of their files.

    A text that stands in files of both splits is held out.
    """
    return list(_functions(held_out))
