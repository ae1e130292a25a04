"""What an engine step costs beside its arithmetic, at batch 1.

Two figures, both of real steps of a greedy run, each step's share taken and their median reported:

- *engine*: (step - forward - readout) / step. Forward and readout are clocked by the engine itself and reported to its
  instruments; what is left is resuming the strategy, packing, planning and answering: the Python of the engine.
- *outside the kernels* (CPU): (step - kernels) / step. Every compiled kernel runs while the kernel team's lock is held
  and nothing else does, so the time of the kernels is the time between taking and releasing it. What is left is all
  Python of the step, the engine's and the decoder's, and besides it torch's small operations (embedding, rotary tables,
  final norm, argmax) and the calls into the kernels. It is therefore an upper bound of Python's share.

The second is not measured on CUDA, where the kernels run while Python goes on.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

from treille.bench.measure import Summary
from treille.engine.instruments import ForwardReport, Instrument
from treille.kernels.team import shared_team

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from treille.bench.rows import Row
    from treille.bench.subject import Subject

AIM = "≤ 15 %"


class ClockedLock:
    """A lock that knows how long it was held.

    Attributes:
        seconds: Time between acquisition and release, summed up.
    """

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._taken = 0.0
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._taken = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._taken
        self._lock.release()


class Computed(Instrument):
    """Seconds of forward and readout since they were last set to 0."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def after_forward(self, report: ForwardReport) -> None:
        """Add them up."""
        self.seconds += report.forward_seconds + report.readout_seconds


@contextmanager
def clocked_kernels() -> Iterator[ClockedLock]:
    """The kernel team's lock, clocked as long as the context lasts."""
    team = shared_team()
    plain = team.lock
    clock = ClockedLock(plain)
    team.lock = clock  # type: ignore[assignment]
    try:
        yield clock
    finally:
        team.lock = plain


def overhead(subject: Subject) -> list[Row]:
    """The share of a greedy step at batch 1 that is not arithmetic."""
    settings = subject.settings
    length, new = (4, 6) if settings.quick else (16, 96)
    runs = []
    for turn in range(settings.repeats + 1):
        settings.progress(f"overhead: {subject.title}")
        steps = _steps(subject, length, new)
        if turn:  # the first run warms up
            runs.append(steps)
    step_times = Summary.of(1e3 * median(step for step, _, _ in steps) for steps in runs)
    known: dict[str, Any] = {
        "batch": 1,
        "prompt": (length,),
        "new": (new,),
        "aim": AIM,
        "extra": {"step": {"median": step_times.median, "low": step_times.low, "high": step_times.high}},
    }
    engine = [100 * median((step - model) / step for step, model, _ in steps) for steps in runs]
    rows = [subject.row("overhead", "engine", "%", engine, **known)]
    if settings.device.type == "cpu" and any(kernels for steps in runs for _, _, kernels in steps):
        outside = [100 * median((step - kernels) / step for step, _, kernels in steps) for steps in runs]
        rows.append(subject.row("overhead", "everything outside the kernels", "%", outside, **known))
    return rows


def _steps(subject: Subject, length: int, new: int) -> list[tuple[float, float, float]]:
    """Seconds `(step, forward and readout, kernels)` of each decoding step of one greedy run."""
    found: list[tuple[float, float, float]] = []
    model, computed, prompt = subject.ours, Computed(), subject.prompt(length)
    engine = model.engine
    engine.instruments.append(computed)
    try:
        with model.stream(prompt, "greedy", max_new_tokens=new, eos_token_id=[]), clocked_kernels() as clock:
            while engine.jobs:
                clock.seconds = computed.seconds = 0.0
                start = time.perf_counter()
                engine.step()
                found.append((time.perf_counter() - start, computed.seconds, clock.seconds))
    finally:
        engine.instruments.remove(computed)
    return found[1:-1]  # the first computed the prompt, and in the last the strategy returned
