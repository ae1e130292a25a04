"""`treille bench core`: decoding against `transformers`, the forward by row count, the overhead of a step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from treille.bench import decoding
from treille.bench.arguments import (
    LEAST_REPEATS,
    Parser,
    add_output,
    collect,
    device_of,
    progress,
    publish,
    repeats_of,
    work_folder,
)
from treille.bench.forward import forward
from treille.bench.overhead import overhead
from treille.bench.shapes import SHAPES
from treille.bench.subject import Settings, Subject
from treille.errors import ParameterError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from treille.bench.rows import Row


@dataclass(frozen=True, slots=True)
class Case:
    """One entry of the benchmark.

    Attributes:
        run: Measures it on one model.
        cpu: The models it is measured on, by default, on CPU.
        cuda: The same on CUDA.
    """

    run: Callable[[Subject], list[Row]]
    cpu: tuple[str, ...]
    cuda: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line."""
        return (self.run.__doc__ or "").splitlines()[0]


# With 16-bit weights torch takes minutes for many long prompts of the larger shape on a CPU: two cases have the small
# model only, unless --model says otherwise.
CASES = {
    "greedy": Case(decoding.greedy, ("bundled", "135m"), ("1b",)),
    "samples": Case(decoding.samples, ("bundled",), ("1b",)),
    "beam": Case(decoding.beams, ("bundled", "135m"), ("1b",)),
    "best_of": Case(decoding.best_of, ("bundled",), ("1b",)),
    "overhead": Case(overhead, ("135m",), ("1b",)),
    "forward": Case(forward, ("135m",), ("1b",)),
}


def _parser() -> Parser:
    parser = Parser("core", __doc__)
    add = parser.add_argument
    add("--list", action="store_true", help="list the cases and exit")
    add("--only", metavar="CASES", help="the cases to run, separated by commas (default: all)")
    add("--model", metavar="MODELS", help=f"bundled, {', '.join(SHAPES)}, a directory or a Hub name; commas between")
    add("--device", default="cpu", help="cpu or cuda, on both sides (default: cpu)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the checkpoint's own")
    add("--repeats", type=int, help=f"rounds that count, at least {LEAST_REPEATS} (default: {LEAST_REPEATS})")
    add("--threads", type=int, help="threads of both sides (default: torch's)")
    add("--work", type=Path, default=work_folder(), help="where random checkpoints are kept (default: %(default)s)")
    add("--quick", action="store_true", help="tiny texts, two rounds: shows that it runs, measures nothing")
    add_output(parser, "core")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit code.

    Raises:
        UserError: an argument that cannot be honoured, or `transformers` is missing.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.help:
        parser.print_help()
        return 0
    if options.list:
        print("\n".join(f"{name:<10}{case.summary}" for name, case in CASES.items()))
        return 0
    collect(options, _measure(options))
    publish(options)
    return 0


def _measure(options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of one case after the other."""
    names = _cases(options.only)
    repeats = repeats_of(options.repeats, quick=options.quick)
    device = device_of(options.device)
    if options.threads is not None:
        if options.threads < 1:
            raise ParameterError(f"--threads={options.threads}: must be at least 1")
        torch.set_num_threads(options.threads)
    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    with progress() as told:
        settings = Settings(device, dtype, repeats, options.quick, options.work, told)
        subjects: dict[str, Subject] = {}
        for name in names:
            case = CASES[name]
            default = case.cpu if device.type == "cpu" else case.cuda
            for model in options.model.split(",") if options.model else default:
                if model not in subjects:
                    subjects[model] = Subject(model, settings)
                yield case.run(subjects[model])


def _cases(only: str | None) -> list[str]:
    names = list(CASES) if only is None else only.split(",")
    for name in names:
        if name not in CASES:
            raise ParameterError(f"--only={only}: there is no case {name!r}; choose from {', '.join(CASES)}")
    return names
