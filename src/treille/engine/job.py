"""Jobs and tasks: what the engine knows of a running strategy."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from treille.errors import Cancelled
from treille.hooks import DraftCounts
from treille.strategy import Hypothesis, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from treille.cache.segments import Rows
    from treille.engine.variant import Variant
    from treille.requests import Forward, Request
    from treille.sampling.chain import Chain
    from treille.strategy import Configured, Run


@dataclass(slots=True)
class Stats:
    """Counters of one run.

    Attributes:
        forwards: forward passes of the target this run took part in.
        rows: token rows computed for it, of every model.
        prompt_rows: of these, rows of the prompt.
        cached_rows: prompt tokens whose KV came from the prefix cache.
        emitted: tokens of the returned candidates.
        generated: tokens picked by `Argmax` or `Sample` readouts, also in branches that were dropped.
        scored: texts given to scorers.
        preemptions: times it lost its KV rows.
        drafts: what drafting did.
        unenforced: what the constraint asks for and nothing enforces, because its user allowed that.
        seconds: wall time per phase: `queue`, `prefill` and `decode` forwards, `readout`, and `total`.
    """

    forwards: int = 0
    rows: int = 0
    prompt_rows: int = 0
    cached_rows: int = 0
    emitted: int = 0
    generated: int = 0
    scored: int = 0
    preemptions: int = 0
    drafts: DraftCounts = field(default_factory=DraftCounts)
    unenforced: tuple[str, ...] = ()
    seconds: dict[str, float] = field(
        default_factory=lambda: {"queue": 0.0, "prefill": 0.0, "decode": 0.0, "readout": 0.0, "total": 0.0}
    )


class Job:
    """One run of one strategy: its root task, its settings, its result.

    Attributes:
        number: order of submission; the youngest job is preempted first.
        chain: processors applied to every readout, None when there are none.
        handles: KV handles of its nodes, to be released on preemption.
        output: the strategy's output once `done`; `error` instead if it failed.
        on_done: called with the job when it ends, in the thread that steps the engine; None: nobody waits.
    """

    __slots__ = (
        "__weakref__",
        "chain",
        "configured",
        "done",
        "error",
        "handles",
        "number",
        "on_done",
        "output",
        "run",
        "started",
        "stats",
        "submitted",
    )  # fmt: skip

    def __init__(self, number: int, configured: Configured, run: Run, chain: Chain | None) -> None:
        self.number = number
        self.configured = configured
        self.run = run
        self.chain = chain
        self.handles: weakref.WeakSet[Rows] = weakref.WeakSet()
        self.output: Output | None = None
        self.error: BaseException | None = None
        self.done = False
        self.stats = Stats(drafts=run.drafts, unenforced=() if run.constraint is None else run.constraint.unenforced)
        self.submitted = time.perf_counter()
        self.started: float | None = None
        self.on_done: Callable[[Job], None] | None = None

    def result(self) -> Output:
        """The output; raises the run's error, or Cancelled."""
        if self.error is not None:
            raise self.error
        if self.output is None:
            raise Cancelled("the run was cancelled")
        return self.output

    def release(self, *, scratch_only: bool = False) -> bool:
        """Let go of its rows, or of those that are scratch; False if there were none.

        Its nodes keep their tokens and can be computed again.
        """
        gone = [rows for rows in self.handles if rows.alive and (rows.segment.scratch or not scratch_only)]
        for rows in gone:
            rows.release()
            self.handles.discard(rows)
        return bool(gone)


def is_output(value: object) -> bool:
    """Whether a strategy may return `value`."""
    if not isinstance(value, Output) or not value.candidates:
        return False
    return all(isinstance(candidate, Hypothesis) for candidate in value.candidates)


class Task:
    """One generator being driven: the root of a job, or a branch of a `Gather` or `Race`.

    Attributes:
        progress: the least length of the nodes it asked for last: its text has at least so many tokens.
        group: the branches it is waiting for.
    """

    __slots__ = ("closed", "generator", "group", "index", "job", "parent", "progress")

    def __init__(self, job: Job, generator: Generator[Request, Any, Any], parent: Group | None, index: int) -> None:
        self.job = job
        self.generator = generator
        self.parent = parent
        self.index = index
        self.group: Group | None = None
        self.progress = 0
        self.closed = False


class Group:
    """The branches of a `Gather` or `Race`, and what they have returned so far."""

    __slots__ = ("finished", "kind", "owner", "results", "tasks")

    def __init__(self, kind: Literal["gather", "race"], owner: Task, strategies: Sequence[Any]) -> None:
        self.kind = kind
        self.owner = owner
        self.tasks = [Task(owner.job, generator, self, i) for i, generator in enumerate(strategies)]
        self.results: list[Any] = [None] * len(self.tasks)
        self.finished: list[bool] = [False] * len(self.tasks)


class Pending:
    """A `Forward` that waits for its nodes; readout results are filled in as their rows are computed."""

    __slots__ = ("failures", "missing", "request", "results", "task", "variant", "wants")

    def __init__(self, task: Task, request: Forward, variant: Variant) -> None:
        self.task = task
        self.request = request
        self.variant = variant
        self.wants = request.want if isinstance(request.want, tuple) else (request.want,)
        self.results: list[tuple[Any, ...] | None] = [None] * len(request.nodes)
        self.failures: dict[int, Exception] = {}
        self.missing = set(range(len(request.nodes)))

    def fail(self, index: int, error: Exception) -> None:
        """One node has no answer, but the others may; its error is its result."""
        self.failures[index] = error
        self.missing.discard(index)

    def give_up(self, error: Exception) -> tuple[list[Any] | None, Exception | None]:
        """What the strategy is sent when nothing more can be computed: an answer with failures, or the error."""
        if not self.request.may_fail:
            return None, error
        for index in tuple(self.missing):
            self.fail(index, error)
        return self.answer(), None

    def answer(self) -> list[Any]:
        """What the strategy is sent: one result per node, or a tuple of results if it asked for a tuple."""
        found: list[Any] = list(self.results)
        if not isinstance(self.request.want, tuple):
            found = [None if result is None else result[0] for result in self.results]
        for index, error in self.failures.items():
            found[index] = error
        return found
