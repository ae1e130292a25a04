"""Prints lines per folder and the lengths of functions; fails when a file, a strategy or the functions are too long.

Lines of a function are counted from `def` to its end, docstring included. Lines of a strategy are lines of code:
without docstrings, comments and blank lines.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "tests", "scripts", "examples", "benchmarks")
FILE_LIMIT = 500  # lines
STRATEGY_LIMIT = 80  # lines of code
FUNCTION_LIMIT = 35  # lines; 90 % of the functions of the package are shorter
IGNORED_TOKENS = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def python_files(folder: Path) -> list[Path]:
    """The Python files below `folder`, by path."""
    found = (path for path in folder.rglob("*.py") if not any(p.startswith(".") for p in path.relative_to(ROOT).parts))
    return sorted(found)


def code_lines(text: str) -> int:
    """Number of lines that hold code: no docstring, no comment, not blank."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in IGNORED_TOKENS and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def function_lengths(text: str) -> list[int]:
    """Length in lines of every function and method."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def percentile(values: list[int], percent: int) -> float:
    """The value below which `percent` of `values` lie."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def print_folders() -> None:
    """One row per folder that holds Python files: files, lines, lines of code."""
    print(f"{'folder':<36}{'files':>6}{'lines':>8}{'code':>8}")
    for top in FOLDERS:
        rows: dict[Path, list[Path]] = {}
        for path in python_files(ROOT / top):
            rows.setdefault(path.parent.relative_to(ROOT), []).append(path)
        files = lines = code = 0
        for folder, paths in sorted(rows.items()):
            texts = [path.read_text(encoding="utf-8") for path in paths]
            own_lines, own_code = sum(len(t.splitlines()) for t in texts), sum(map(code_lines, texts))
            print(f"{folder!s:<36}{len(paths):>6}{own_lines:>8}{own_code:>8}")
            files, lines, code = files + len(paths), lines + own_lines, code + own_code
        if len(rows) > 1:
            print(f"{top + ', all':<36}{files:>6}{lines:>8}{code:>8}")


def too_long() -> list[str]:
    """One line per limit that is broken."""
    found: list[str] = []
    for path in (path for top in FOLDERS for path in python_files(ROOT / top)):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        if (count := len(text.splitlines())) > FILE_LIMIT:
            found.append(f"{name}: {count} lines; a file has at most {FILE_LIMIT}")
        is_strategy = path.parent == ROOT / "src/treille/strategies" and not path.name.startswith("_")
        if is_strategy and (count := code_lines(text)) > STRATEGY_LIMIT:
            found.append(f"{name}: {count} lines of code; a strategy has at most {STRATEGY_LIMIT}")
    return found


def main() -> int:
    """0 if everything is within its limit, 1 otherwise."""
    print_folders()
    found = too_long()
    texts = [path.read_text(encoding="utf-8") for path in python_files(ROOT / "src")]
    lengths = [length for text in texts for length in function_lengths(text)]
    median, p90 = statistics.median(lengths), percentile(lengths, 90)
    print(f"\n{len(lengths)} functions in src: median {median:.0f}, p90 {p90:.0f}, longest {max(lengths)} lines")
    if p90 >= FUNCTION_LIMIT:
        found.append(f"src: the p90 of function lengths is {p90:.0f}; it stays below {FUNCTION_LIMIT}")
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
