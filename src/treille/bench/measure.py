"""Timing: sides that alternate in one process, and what is said of their times: median, smallest, largest."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Side: TypeAlias = "Callable[[], float]"  # does its work once and returns the seconds that count


@dataclass(frozen=True, slots=True)
class Summary:
    """Median and range of a figure over the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """The summary of at least one value."""
        known = sorted(values)
        return cls(statistics.median(known), known[0], known[-1])


def timed(call: Callable[[], object], device: torch.device, threads: int | None = None) -> Side:
    """A side whose whole call counts; on CUDA until the device is done.

    Args:
        call: The work.
        device: Where it runs.
        threads: Threads of torch while it runs; None: as they are.
    """

    def side() -> float:
        with torch_threads(threads or torch.get_num_threads()):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() - start

    return side


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Torch has so many threads as long as the context lasts."""
    known = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(known)


def best_threads(call: Callable[[], object], device: torch.device) -> int:
    """The number of torch threads, one or all, with which `call` is faster: small models often prefer one.

    The better of three alternating runs counts for each, after one that warms up.
    """
    every = torch.get_num_threads()
    if device.type != "cpu" or every == 1:
        return every
    best = dict.fromkeys((every, 1), float("inf"))
    call()
    for _ in range(3):
        for threads in best:
            best[threads] = min(best[threads], timed(call, device, threads)())
    return min(best, key=lambda threads: best[threads])


def alternate(sides: Mapping[str, Side], repeats: int, progress: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds of every side in each of `repeats` rounds, after a round that warms up and is thrown away.

    A round runs every side once, and each round begins with another one: a machine that slows down for a while slows
    all of them, and no side always runs after the same one.

    Args:
        sides: What to measure, by name.
        repeats: Rounds that count.
        progress: Told the name of every side before it runs.
    """
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            progress(name)
            took = sides[name]()
            if turn:
                seconds[name].append(took)
    return seconds


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Summary:
    """Median and range of the ratio within each round."""
    return Summary.of(a / b for a, b in zip(numerators, denominators, strict=True))
