"""First finish search: several texts race, the shortest wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.requests import Race
from treille.strategies._checks import at_least, returns, sampling
from treille.strategy import Output, Run, complete, strategy

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.requests import Request


@strategy(
    paper="Agarwal et al. 2025, arXiv:2505.18149",
    exactness="P(length = l) = (1 − F(l − 1))^n − (1 − F(l))^n, F the lengths' distribution under sampling; given its "
    "length, the text is a sample",
    cost="n rows per step until the first text ends; the prompt is computed once",
    do_sample=True,
    drafts=True,
)
def first_finish(run: Run, n: int = 4) -> Generator[Request, Any, Output]:
    """First finish search: the shortest of n sampled texts; the others are stopped as soon as it ends."""
    at_least(1, n=n)
    returns(run, "first_finish", 1, "use strategy='sample' for several texts")
    if n > 1:
        sampling(run, "first_finish")
    winner, hypothesis = yield Race(*[complete(run.branch(i), run.start) for i in range(n)])
    return Output((hypothesis,), {"winner": winner})
