"""The repository's contract: which way imports point, where a strategy's name stands, what the error tree shows."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import pytest

import treille
from treille import errors
from treille.drafters import PARTS
from treille.drafters import registry as drafters
from treille.strategy import registry

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/treille"

# Imports point only to what stands above (or to the same layer). A name stands for a module or for a whole folder.
LAYERS = (
    "errors", "parameters", "tree", "requests", "draft_tree", "hooks", "strategy", "sampling", "constraints",
    "drafters", "strategies", "cache", "kernels", "attention", "models", "engine", "trace", "options", "output",
    "stream", "language_model", "testing", "__init__", "train", "bench", "cli", "__main__",
)  # fmt: skip
NOTHING_IMPORTS = {"bench", "serve", "cli", "__main__"}

MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:home|root|work|Users)/\w")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".cfg", ".yml", ".yaml", ".sh", ".html", ""}
TEXT_PLACES = (
    ".ci", "benchmarks", "docs", "examples", "scripts", "src", "tests", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE",
    "Makefile", "README.md", "constraints.txt", "pyproject.toml",
)  # fmt: skip


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found: dict[str, Path] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("treille", *path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer(module: str) -> str:
    """The layer a module belongs to."""
    return "__init__" if module == "treille" else module.split(".")[1]


def is_type_checking(node: ast.AST) -> bool:
    """Whether `node` is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def runtime_nodes(tree: ast.AST) -> list[ast.AST]:
    """All nodes, except what only a type checker sees."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            found += [inner for other in child.orelse for inner in (other, *runtime_nodes(other))]
        else:
            found += [child, *runtime_nodes(child)]
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of the package that `module` imports when it runs, also inside functions."""
    found: set[str] = set()
    for node in runtime_nodes(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "treille")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import; write the module's full name"
            if (node.module or "").split(".")[0] == "treille":
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                found.update(name if name in modules() else str(node.module) for name in names)
    return frozenset(found)


def test_every_module_has_a_layer() -> None:
    """A new folder or top-level module is given its place in the order."""
    unknown = {layer(module) for module in modules()} - set(LAYERS)
    assert not unknown, f"give {sorted(unknown)} a place in LAYERS"


def test_imports_point_upwards() -> None:
    """A module imports from its own layer and those above only."""
    place = {name: i for i, name in enumerate(LAYERS)}
    wrong = [
        f"{module} imports {other}"
        for module in modules()
        for other in sorted(imports(module))
        if place[layer(other)] > place[layer(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_ends() -> None:
    """Benchmarks, server and command line are ends: only the command line reaches the others."""
    wrong = [
        f"{module} imports {other}"
        for module in modules()
        for other in sorted(imports(module))
        if layer(other) in NOTHING_IMPORTS and layer(module) not in {layer(other), "cli", "__main__"}
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_cycles() -> None:
    """Modules can be sorted such that each imports earlier ones only."""
    waiting = {module: set(imports(module)) - {module} for module in modules()}
    for (
        module,
        others,
    ) in waiting.items():  # a package's own `__init__` re-exports; importing a part of it runs it first
        others.difference_update(other for other in list(others) if module.startswith(f"{other}."))
    while ready := [module for module, others in waiting.items() if not others]:
        for module in ready:
            del waiting[module]
        for others in waiting.values():
            others.difference_update(ready)
    assert not waiting, "\n".join(f"{module} waits for {sorted(others)}" for module, others in waiting.items())


def test_a_strategy_has_one_name_in_five_places() -> None:
    """File, registry (and with it `strategy=` and the command line), docs page and test carry the same name."""
    names = {info.name for info in registry if info.function.__module__.startswith("treille.strategies.")}
    assert names == {path.stem for path in (SOURCE / "strategies").glob("[!_]*.py")}
    assert names == {path.stem for path in (ROOT / "docs/strategies").glob("*.md")} - {"index"}
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests/unit/strategies").glob("test_*.py")}
    assert names <= tested, f"without a test: {sorted(names - tested)}"


def test_a_drafter_has_one_name_in_five_places() -> None:
    """File, registry (and with it `draft=` and the command line), docs page and test carry the same name."""
    infos = [info for info in drafters if info.kind.__module__.startswith("treille.drafters.")]
    names = {info.name for info in infos}
    assert names == {path.stem for path in (SOURCE / "drafters").glob("[!_]*.py")} - PARTS
    assert names == {path.stem for path in (ROOT / "docs/drafters").glob("*.md")} - {"index"}
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests/unit/drafters").glob("test_*.py")}
    assert names <= tested, f"without a test: {sorted(names - tested)}"
    for info in infos:
        assert info.kind.__module__ == f"treille.drafters.{info.name}"
        assert info.summary, f"{info.name} has no docstring"
        assert info.exactness, f"{info.name} does not say how exact it is"
        assert info.cost, f"{info.name} does not say what it costs"


def test_the_table_of_pairs_has_every_drafter() -> None:
    """A new drafter is in the table that `scripts/pairs.py` writes; no cell of it says that a pair fails."""
    page = (ROOT / "docs/drafters/index.md").read_text(encoding="utf-8")
    table = page.partition("<!-- pairs -->")[2].partition("<!-- /pairs -->")[0]
    rows = re.findall(r"^\| \[(\w+)\]", table, re.MULTILINE)
    assert set(rows) == {i.name for i in drafters if i.kind.__module__.startswith("treille.drafters.")}
    assert "✗" not in table


def test_a_strategy_stands_in_the_file_of_its_name() -> None:
    """`strategies/beam.py` defines `beam`, and its registry entry says what it guarantees and costs."""
    for info in registry:
        if info.function.__module__.startswith("treille.strategies."):
            assert info.function.__module__ == f"treille.strategies.{info.name}"
            assert info.summary, f"{info.name} has no docstring"
            assert info.exactness, f"{info.name} does not say how exact it is"
            assert info.cost, f"{info.name} does not say what it costs"


def test_the_error_tree_is_complete() -> None:
    """The tree at the top of errors.py shows every exception under its base."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^    ((?:│   |    )*)(?:[├└]── )?([A-Z]\w+)", line):
            depth = len(found[1]) // 4 + ("──" in line)
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else ""
    defined = {
        name: kind.__bases__[0].__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    assert drawn == {name: base if base in defined else "" for name, base in defined.items()}


def test_exports_are_chosen() -> None:
    """`treille.__all__` is sorted, without repetition, holds existing names, and is all that `dir` shows."""
    assert list(treille.__all__) == sorted(set(treille.__all__))
    assert set(dir(treille)) == set(treille.__all__)
    for name in treille.__all__:
        assert hasattr(treille, name), f"treille.{name} does not exist"


def text_files() -> list[Path]:
    """The files of the repository that are text."""
    places = [ROOT / place for place in TEXT_PLACES]
    files = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    kept = [path for path in files if path.suffix in TEXT_SUFFIXES and path.is_file()]
    return [path for path in kept if not any(part.startswith(".") for part in path.relative_to(ROOT).parts[1:])]


def test_no_file_names_a_machine_path() -> None:
    """What is in the repository means the same on every machine."""
    wrong = []
    for path in text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", ".ci/run"])
def test_the_repository_is_complete(name: str) -> None:
    """The files that a newcomer looks for exist and are not empty."""
    assert (ROOT / name).stat().st_size > 0
