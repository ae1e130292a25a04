"""Greedy decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.strategies._checks import deterministic, returns
from treille.strategy import Output, Run, complete, strategy

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.requests import Request


@strategy(
    exactness="the most probable token at every step, the lowest id on ties",
    cost="1 forward per token",
    drafts=True,
)
def greedy(run: Run) -> Generator[Request, Any, Output]:
    """Greedy decoding: the most probable token at every step."""
    deterministic(run, "greedy")
    returns(run, "greedy", 1, "use strategy='beam' or 'sample' for several texts")
    hypothesis = yield from complete(run, run.start)
    return Output((hypothesis,))
