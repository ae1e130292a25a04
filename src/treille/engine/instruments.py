"""Instruments: what can listen to the engine. Metrics, traces and progress bars are no parts of the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.cache.segments import Accounts
    from treille.engine.job import Job
    from treille.requests import Readout
    from treille.tree import Node


@dataclass(frozen=True, slots=True)
class ForwardReport:
    """One forward pass of one model.

    Attributes:
        model: the model's name.
        rows: token rows computed.
        readouts: distributions read.
        jobs: runs that took part.
        seconds: wall time of the pass, of its readouts, and of the Python work around them.
    """

    model: str
    rows: int
    readouts: int
    jobs: int
    forward_seconds: float
    readout_seconds: float
    plan_seconds: float


class Instrument:
    """Does nothing at every hook; override the ones you need."""

    def job_started(self, job: Job) -> None:
        """A run was submitted."""

    def job_finished(self, job: Job) -> None:
        """A run returned, failed or was cancelled."""

    def before_forward(self, model: str, rows: int) -> None:
        """A forward is about to run."""

    def after_forward(self, report: ForwardReport) -> None:
        """A forward and its readouts are done."""

    def computed(self, job: Job, nodes: Sequence[Node], model: str) -> None:
        """These nodes of a run have KV of `model` now."""

    def read(self, job: Job, node: Node, want: Readout, result: object, model: str) -> None:
        """A readout of `model` was answered; a `requests.Choice` names the token that was picked under `node`."""

    def scored(self, job: Job, nodes: Sequence[Node], values: Sequence[float]) -> None:
        """A scorer valued these nodes of a run."""

    def preempted(self, job: Job) -> None:
        """A run lost its KV rows to make room; its tokens will be computed again."""

    def after_step(self, accounts: dict[str, Accounts]) -> None:
        """An engine step ended. Only called in debug mode, where the accounts are checked."""
