"""Code edits: rename a variable in a function; the output copies most of the input."""

from __future__ import annotations

import ast
from functools import partial
from typing import TYPE_CHECKING

from treille.train.tasks import python_fill
from treille.train.tasks.base import Drawn, Example, Task, ask
from treille.train.tasks.sources import python_functions

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

# Shortest and longest function, in characters, per level.
LENGTHS = ((0, 120), (80, 200), (160, 320), (280, 500), (450, 800))
GENERATED = (0.6, 0.3, 0.1, 0.0, 0.0)  # share of generated functions, per level
NEW_NAMES = (
    "value", "item", "result", "text", "data", "index", "other", "name", "count", "node", "key", "total", "line",
    "path", "size", "mode", "code", "start", "end", "left", "right", "first", "last", "source", "target", "word",
    "number", "size", "row", "table",
)  # fmt: skip


def rename(source: str, old: str, new: str) -> str:
    """The function with every variable and argument `old` called `new`; attributes, keywords and texts stay.

    The source is ASCII, so that byte columns of the syntax tree are character columns.
    """
    lines = source.splitlines(keepends=True)
    places = {(line, column) for name, line, column in _variables(ast.parse(source)) if name == old}
    for line, column in sorted(places, reverse=True):
        text = lines[line - 1]
        lines[line - 1] = text[:column] + new + text[column + len(old) :]
    return "".join(lines)


def _variables(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno, node.col_offset
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno, node.col_offset


def _fixed(tree: ast.AST) -> Iterator[str]:
    """Names that stand where the syntax tree gives no column: they are not renamed."""
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr():
                yield from (part.id for part in ast.walk(node) if isinstance(part, ast.Name))
            case ast.ExceptHandler(name=str(name)) | ast.alias(name=name):
                yield name
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                yield from names
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.MatchAs() | ast.MatchStar() | ast.MatchMapping():
                yield "*"


def renamable(source: str) -> list[str]:
    """Arguments and variables that the function binds and that can be renamed, in the order of the alphabet."""
    tree = ast.parse(source)
    fixed = {*_fixed(tree), "self", "cls", "_"}
    if "*" in fixed or not source.isascii():
        return []
    bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return sorted(name for name in bound - fixed if not name.startswith("__"))


def _source(rng: random.Random, level: int, held_out: bool) -> str:
    """A function whose length suits the level, generated or from the standard library."""
    shortest, longest = LENGTHS[level]
    if rng.random() < GENERATED[level]:
        return python_fill.function(rng, rng.randint(0, level + 1))
    pool = python_functions(held_out)
    while True:
        source = rng.choice(pool).rstrip()
        if shortest <= len(source) <= longest and source.startswith(("def ", "async def ")):
            return source


def draw(rng: random.Random, level: int, *, held_out: bool) -> Drawn:
    """A function, a name it binds and a new name that it does not use."""
    while True:
        source = _source(rng, level, held_out)
        names = renamable(source)
        if names:
            break
    old = rng.choice(names)
    new = rng.choice([name for name in NEW_NAMES if name not in source])
    question = f"Rename {old} to {new}:\n{source}"
    return Drawn(ask(question), rename(source, old, new), {"source": source, "old": old, "new": new})


def accepts(example: Example, answer: str) -> bool:
    """Whether the answer is the renamed function, letter by letter."""
    data = example.data
    return answer == rename(data["source"], data["old"], data["new"])


PYTHON_EDIT = Task(
    "python_edit", "rename a variable in a function", len(LENGTHS), 0, partial(draw, held_out=False), accepts,
    draw_held_out=partial(draw, held_out=True),
)  # fmt: skip
