"""Ancestral sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.requests import Gather
from treille.strategies._checks import sampling
from treille.strategy import Output, Run, complete, strategy

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.requests import Request


@strategy(
    exactness="a text has probability Π p(token | path), p after processors and constraint",
    cost="1 forward per token",
    do_sample=True,
    drafts=True,
)
def sample(run: Run) -> Generator[Request, Any, Output]:
    """Ancestral sampling: every token is drawn from p. Several texts are independent branches, in the order drawn."""
    if run.num_return_sequences == 1:
        hypothesis = yield from complete(run, run.start)
        return Output((hypothesis,))
    sampling(run, "sample(num_return_sequences > 1)")
    branches = [complete(run.branch(i), run.start) for i in range(run.num_return_sequences)]
    # Not sorted: the first candidate has to be a draw from p.
    return Output(tuple((yield Gather(*branches))))
