"""What the benchmarks' command lines share: a parser that complains like the rest, where rows go, and progress."""

from __future__ import annotations

import argparse
import getpass
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from treille.bench import rows
from treille.bench.bars import save
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from treille.bench.rows import Row

LEAST_REPEATS = 5
QUICK_REPEATS = 2


class Parser(argparse.ArgumentParser):
    """Complains by raising, like the rest of the command line.

    Args:
        name: of the benchmark: `treille bench NAME`.
        description: shown by `--help`.
    """

    def __init__(self, name: str, description: str | None) -> None:
        super().__init__(prog=f"treille bench {name}", description=description, add_help=False)
        self._name = name
        self.add_argument("-h", "--help", action="store_true", help="show this and exit")

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, with the way out."""
        raise ParameterError(f"bench {self._name}: {message}; `treille bench {self._name} --help` lists what there is")


def work_folder() -> Path:
    """Where random checkpoints are kept between runs."""
    return Path(tempfile.gettempdir()) / f"treille-bench-{getpass.getuser()}"


def repeats_of(given: int | None, *, quick: bool) -> int:
    """Rounds that count.

    Raises:
        ParameterError: too few for a median and its spread.
    """
    least = QUICK_REPEATS if quick else LEAST_REPEATS
    if given is not None and given < least:
        raise ParameterError(f"--repeats={given}: a median and its spread need at least {least}")
    return least if given is None else given


def device_of(name: str) -> torch.device:
    """The device that `--device` names.

    Raises:
        ParameterError: it is not there.
    """
    if name.split(":", maxsplit=1)[0] not in ("cpu", "cuda"):
        raise ParameterError(f"--device={name}: choose cpu or cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ParameterError(f"--device={name}: this machine or this build of torch has no CUDA; use --device cpu")
    return torch.device(name)


def written(parser: Parser, arguments: Sequence[str]) -> set[str]:
    """The names of the options that stand on the command line, also of those that say what is the default anyway."""
    names = vars(parser.parse_args(arguments))
    untouched = object()
    found = parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(names, untouched)))
    return {name for name, value in vars(found).items() if value is not untouched}


def add_output(parser: Parser, name: str, picture: str | None = None) -> None:
    """Gives a parser the options that say where rows go: `--out`, `--fill`, `--render`, and perhaps `--picture`.

    Args:
        parser: of the benchmark.
        name: of the file in `benchmarks/out`.
        picture: what the picture of the rows shows; None: there is none.
    """
    add = parser.add_argument
    out = Path(f"benchmarks/out/{name}.jsonl")
    add("--out", type=Path, default=out, help="the rows, as JSON lines (default: %(default)s)")
    if picture is not None:
        add("--picture", type=Path, help=f"draw {picture} of all rows in --out as SVG into this file")
    add("--fill", type=Path, nargs="+", metavar="DOCUMENT", help="put the tables of all rows in --out into these files")
    shown = "show and --fill" if picture is None else "show, draw and --fill"
    add("--render", action="store_true", help=f"measure nothing: {shown} the rows that --out holds")


def collect(options: argparse.Namespace, measured: Iterable[Sequence[Row]]) -> list[Row]:
    """The measured rows, each part written to `--out` as soon as it is there, and all of them shown.

    With `--render` nothing is taken from `measured`: what `--out` holds is shown, and the list is empty.
    """
    if options.render:
        rows.show(rows.read(options.out))
        return []
    fresh: list[Row] = []
    for part in measured:
        rows.merge(options.out, part)  # what was measured is kept, whatever happens to the next part
        fresh += part
    rows.show(row.to_json() for row in fresh)
    print(f"{len(fresh)} rows written to {options.out}")
    return fresh


def publish(options: argparse.Namespace, draw: Callable[[list[dict[str, Any]]], str] | None = None) -> None:
    """Draw and fill what `--picture` and `--fill` name from all rows in `--out`; `draw` makes an SVG of rows."""
    if draw is not None and options.picture is not None:
        save(options.picture, draw(rows.read(options.out)))
        print(f"{options.picture}: drawn")
    for document in options.fill or ():
        print(f"{document}: filled {', '.join(rows.fill(document, rows.read(options.out)))}")


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Says on stderr what is running, if that is a terminal."""
    from rich.console import Console

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    console = Console(stderr=True)
    with console.status("loading") as status:
        yield status.update
