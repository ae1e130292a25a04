"""The application: its commands, its exit codes, and how it complains.

Whatever is wrong with what the user gave is one line on stderr that names the value, the reason and the way out, with
exit code 2; a run that fails while decoding is one line with exit code 1. torch is imported inside the commands only.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

import treille
from treille.cli.generate import generate
from treille.cli.tables import drafters, processors, strategies
from treille.cli.train import app as train
from treille.errors import ParameterError, TreilleError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

BENCHMARKS = ("constraints", "core", "speculate", "tasks")

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Decode text with language models: every strategy on one engine.",
)
app.command()(generate)
app.command()(strategies)
app.command()(drafters)
app.command()(processors)
app.add_typer(train, name="train")

# Base class of everything that is wrong with a command line itself; typer does not export it.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[2])


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 decoding failed, 2 bad input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character still shows the rest
    try:
        code = app(args=arguments or ["--help"], prog_name="treille", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        code = 1
    except UserError as error:
        code = _complain(str(error), 2)
    except TreilleError as error:
        code = _complain(str(error), 1)
    except _UsageError as error:
        code = _complain(_usage(error), 2)
    _quit(code or 0)


def _quit(code: int) -> NoReturn:
    """Exit; output that nobody reads any more is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _complain(message: str, code: int) -> int:
    """Say what is wrong in one line; the exit code."""
    print("treille:", " ".join(message.split()), file=sys.stderr)
    return code


def _usage(error: Any) -> str:
    """A complaint of the argument parser, with the way out."""
    context = getattr(error, "ctx", None)
    command = "treille" if context is None else context.command_path
    return f"{error.format_message().rstrip('.')}; `{command} --help` lists what there is"


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"treille {treille.__version__}")
        raise typer.Exit


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=", ".join(BENCHMARKS))],
) -> None:
    """Measure: `treille bench core --help`."""
    if name not in BENCHMARKS:
        raise ParameterError(f"bench {name}: there is no such benchmark; there are {', '.join(BENCHMARKS)}")
    code = import_module(f"treille.bench.{name}").main(context.args)
    raise typer.Exit(code or 0)
