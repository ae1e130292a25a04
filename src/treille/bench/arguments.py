"""What the benchmarks' command lines share: a parser that complains like the rest of the command line, and progress."""

from __future__ import annotations

import argparse
import getpass
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
