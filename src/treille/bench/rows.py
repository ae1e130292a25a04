"""Rows: one measured figure each, as JSON, as a table on the terminal, and as tables in the documents."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from treille.bench.measure import Summary


@dataclass(frozen=True, slots=True)
class Row:
    """One figure with everything that it depends on.

    Attributes:
        case: The benchmark case.
        figure: What was measured: `greedy`, `beam 4`, `8 rows` ...
        model: Name or shape of the model.
        dtype: Of its weights.
        device: `cpu` or `cuda`.
        batch: Texts, or rows, that are computed together.
        prompt: Tokens of each prompt.
        new: Tokens generated for each text.
        repeats: Rounds that count.
        unit: Of `value` and `baseline_value`.
        value: Ours.
        baseline: What it is compared with, empty where it stands alone.
        baseline_value: The other side's value.
        ratio: How many times better than the baseline, round by round; for a share, the share itself.
        aim: What the ratio is meant to be.
        note: One line on what to know about this row.
        extra: Counters and further figures.
        environment: Commit, date, hardware, versions.
    """

    case: str
    figure: str
    model: str
    dtype: str
    device: str
    batch: int
    prompt: tuple[int, ...]
    new: tuple[int, ...]
    repeats: int
    unit: str
    value: Summary
    baseline: str = ""
    baseline_value: Summary | None = None
    ratio: Summary | None = None
    aim: str = ""
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    benchmark: str = "core"

    def to_json(self) -> dict[str, Any]:
        """The row as plain values."""
        return asdict(self)


def environment(device: torch.device) -> dict[str, Any]:
    """Commit (`unknown` outside a checkout), date, hardware, threads and versions of this run."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        transformers = version("transformers")
    except PackageNotFoundError:
        transformers = "not installed"
    processor = f"{_processor()}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else '?'} threads"
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": processor if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers,
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def _commit() -> str:
    """The commit of this source tree, with `-dirty` if it was changed since."""
    package = Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(package)]
    try:
        # An installed package may lie inside a checkout of something else, where it is not tracked.
        tracked = subprocess.run([*git, "ls-files", "__init__.py"], capture_output=True, text=True, check=True)  # noqa: S603
        named = subprocess.run(  # noqa: S603
            [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return named.stdout.strip() if tracked.stdout.strip() else "unknown"


# --- files ------------------------------------------------------------------------------------------------------------


def merge(file: Path, fresh: Sequence[Row]) -> None:
    """Write rows to a JSON lines file; a row of the same figure, model and device that it held is replaced."""
    known = {_key(row): row for row in read(file)} if file.exists() else {}
    known |= {_key(row): row for row in (row.to_json() for row in fresh)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in known.values()), encoding="utf-8")


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("case", "figure", "model", "dtype", "device"))


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file.

    Raises:
        ParameterError: there is no such file, or it holds something else.
    """
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        for row in rows:
            _key(row)
    except OSError as error:
        raise ParameterError(f"{file}: cannot be read ({error.strerror}); give a file that --out has written") from None
    except (ValueError, KeyError, TypeError):
        raise ParameterError(f"{file}: holds no rows of `treille bench`; give a file that --out has written") from None
    return rows


# --- tables -----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(summary: dict[str, float] | None, suffix: str = "") -> str:
    """`median (low to high)`; empty for None."""
    if summary is None:
        return ""
    low, high = number(summary["low"]), number(summary["high"])
    return f"{number(summary['median'])}{suffix} ({low} to {high})"


def _percent(share: dict[str, float]) -> dict[str, float]:
    return {name: 100 * value for name, value in share.items()}


CORE = ("what", "model", "Treille", "baseline", "ratio", "aim", "")
FORWARD = ("rows", "model", "Treille, ms", "relative to one row", "torch, ms", "torch / Treille")
OVERHEAD = ("what", "model", "step, ms", "share of the step, %", "aim")


def core_cells(row: dict[str, Any]) -> list[str]:
    """One line of the comparison with `transformers`."""
    theirs = row["baseline_value"]
    return [
        row["figure"],
        f"{row['model']}, {row['dtype']}",
        f"{number(row['value']['median'])} {row['unit']}",
        row["baseline"] if theirs is None else f"{row['baseline']}: {number(theirs['median'])} {row['unit']}",
        spread(row["ratio"], "×") if theirs is not None else spread(_percent(row["ratio"]), " %"),
        row["aim"],
        row["note"],
    ]


def forward_cells(row: dict[str, Any]) -> list[str]:
    """One line of the table of row counts."""
    return [
        str(row["batch"]),
        f"{row['model']}, {row['dtype']}",
        spread(row["value"]),
        spread(row["extra"]["relative"], "×"),
        spread(row["baseline_value"]),
        spread(row["ratio"], "×"),
    ]


def overhead_cells(row: dict[str, Any]) -> list[str]:
    """One line of the table of what a step costs beside its arithmetic."""
    return [
        row["figure"],
        f"{row['model']}, {row['dtype']}",
        spread(row["extra"]["step"]),
        spread(row["value"]),
        row["aim"],
    ]


SPECULATE = (
    "drafter",
    "task",
    "model",
    "tokens/s",
    "against plain",
    "after the prompt",
    "τ",
    "τ predicted",
    "rows",
    "acceptance",
    "draft, µs",
)


def task_and_settings(extra: dict[str, Any]) -> str:
    """The task of a row about a drafter, with the settings that are not the default."""
    changed = [
        "" if extra.get("level") is None else f"level {extra['level']}",
        f"temperature {number(extra['temperature'])}" if extra.get("temperature") else "",
        "rejection" if extra.get("verification") == "rejection" else "",
        "" if extra.get("governor", True) else "no governor",
    ]
    return ", ".join([extra["task"], *filter(None, changed)])


def speculate_cells(row: dict[str, Any]) -> list[str]:
    """One line of the table of drafters."""
    extra = row["extra"]
    return [
        extra["drafter"],
        task_and_settings(extra),
        row["model"],
        number(row["value"]["median"]),
        spread(row["ratio"], "×"),
        spread(extra.get("after_prompt"), "×"),  # rows of older versions do not have it
        number(extra["tau"]),
        number(extra["tau_predicted"]),
        number(extra["rows"]),
        " ".join(number(a) for a in extra["acceptance"][:5]),
        number(extra["draft_us"]),
    ]


CHECK = ("drafter", "texts", "tokens", "equal", "ties", "wrong", "τ", "")


def check_cells(row: dict[str, Any]) -> list[str]:
    """One line of the table of greedy texts that were compared with plain ones."""
    extra = row["extra"]
    counts = [str(extra[name]) for name in ("texts", "tokens", "equal", "ties", "wrong")]
    return [extra["drafter"], *counts, number(extra["tau"]), row["note"]]


TASKS = (
    "task",
    "level",
    "strategy",
    "drafter",
    "constraint",
    "right, % (95 %)",
    "questions",
    "tokens",
    "forwards",
    "rows",
    "τ",
    "tokens/s",
    "",
)


def tasks_cells(row: dict[str, Any]) -> list[str]:
    """One line of the table of tasks: accuracy, and means per answer."""
    extra = row["extra"]
    right, low, high = (f"{100 * extra[name]:.0f}" for name in ("accuracy", "low", "high"))
    return [
        extra["task"],
        str(extra["level"]),
        extra["strategy"],
        extra["drafter"],
        extra["constraint"],
        f"{right} ({low} to {high})",
        str(extra["samples"]),
        *(number(extra[name]) for name in ("tokens", "forwards", "rows", "tau")),
        number(row["value"]["median"]),
        row["note"],
    ]


CONSTRAINTS = ("figure", "tokens or shape", "unit", "Treille", "baseline", "", "ratio", "")


def constraints_cells(row: dict[str, Any]) -> list[str]:
    """One line of the table of constraints."""
    return [
        row["figure"],
        row["model"],
        row["unit"],
        spread(row["value"]),
        spread(row["baseline_value"]),
        row["baseline"],
        spread(row["ratio"], "x"),
        row["note"],
    ]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the documents, made of some of the rows."""

    marker: str
    head: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    hardware: tuple[str, ...]


FORMATS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], list[str]]]] = {
    "core": (CORE, core_cells),
    "rows": (FORWARD, forward_cells),
    "overhead": (OVERHEAD, overhead_cells),
    "speculate": (SPECULATE, speculate_cells),
    "check": (CHECK, check_cells),
    "tasks": (TASKS, tasks_cells),
    "constraints": (CONSTRAINTS, constraints_cells),
}


def tables(rows: Iterable[dict[str, Any]]) -> list[Table]:
    """The tables that rows fill: `core`, `rows` and `overhead`, on a GPU `cuda`, `cuda-rows` and `cuda-overhead`."""
    sorted_rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        kind = {"forward": "rows", "overhead": "overhead"}.get(row["case"], "core")
        if row["benchmark"] == "speculate":
            kind = "check" if row["case"] == "check" else f"speculate-{row['batch']}"
        elif row["benchmark"] in ("tasks", "constraints"):
            kind = row["benchmark"]
        sorted_rows.setdefault((row["device"], kind), []).append(row)
    found = []
    for (device, kind), chosen in sorted_rows.items():
        head, cells = FORMATS[kind.rstrip("-0123456789")]
        name = kind if device == "cpu" else f"{device}-{kind}".removesuffix("-core")
        found.append(Table(f"bench:{name}", head, tuple(tuple(cells(row)) for row in chosen), _hardware(chosen)))
    return found


def _hardware(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What the rows ran on, each machine and commit once."""
    lines = []
    for row in rows:
        ran = row["environment"]
        repeats = row["repeats"]
        rounds = "one run" if repeats == 1 else f"median of {repeats} (smallest to largest)"
        lines.append(
            f"{ran['hardware']}, {ran['threads']} threads used, torch {ran['torch']}, "
            f"transformers {ran['transformers']}, commit {ran['commit']}, {ran['date'][:10]}, {rounds}"
        )
    return tuple(dict.fromkeys(lines))


def show(rows: Iterable[dict[str, Any]]) -> None:
    """Print the tables."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False, markup=False)
    for table in tables(rows):
        drawn = RichTable(*table.head, box=box.SIMPLE_HEAD, pad_edge=False)
        for cells in table.cells:
            drawn.add_row(*cells)
        console.print(drawn)
        for line in table.hardware:
            console.print(line)


def markdown(table: Table) -> str:
    """A table as Markdown, with what it was measured on below."""
    lines = [table.head, ("---",) * len(table.head), *table.cells]
    drawn = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{drawn}\n\n" + "\n\n".join(f"{line}." for line in table.hardware)


def fill(document: Path, rows: Iterable[dict[str, Any]]) -> list[str]:
    """Put the tables between their markers, `<!-- bench:core -->` and `<!-- /bench:core -->`; the markers filled.

    Raises:
        ParameterError: the document cannot be read, or has no place for any of the tables.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"{document}: cannot be read ({error.strerror}); give a Markdown file") from None
    filled = []
    for table in tables(rows):
        begin, end = f"<!-- {table.marker} -->", f"<!-- /{table.marker} -->"
        place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        body = f"{begin}\n{markdown(table)}\n{end}"
        text, count = place.subn(lambda _, body=body: body, text)  # type: ignore[misc]
        filled += [table.marker] * bool(count)
    if not filled:
        raise ParameterError(f"{document}: has no marker such as <!-- bench:core --> … <!-- /bench:core --> to fill")
    document.write_text(text, encoding="utf-8")
    return filled
