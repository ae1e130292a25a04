"""Beam search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.requests import Forward, TopK
from treille.strategies._beams import Beams, EarlyStopping, alive, ranked
from treille.strategies._checks import at_least, deterministic, returns
from treille.strategy import Output, Run, strategy

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.requests import Request


@strategy(
    paper="Wu et al. 2016, arXiv:1609.08144; semantics of transformers 5",
    exactness="approximate; exact maximum of S / length^α for early_stopping='never' and a width that holds every text",
    cost="width rows per step",
)
def beam(
    run: Run, width: int = 4, length_penalty: float = 1.0, early_stopping: EarlyStopping = False
) -> Generator[Request, Any, Output]:
    """Beam search: the `width` best partial texts grow together; finished ones rank by S / length^length_penalty."""
    at_least(1, width=width)
    deterministic(run, "beam")
    returns(run, "beam", width, "raise width")
    beams = Beams(run, width, length_penalty, early_stopping)
    while not beams.done:
        tops = yield Forward([b.node for b in beams.running], TopK(beams.keep, renormalize=False))
        beams.step(beams.continuations(tops, {}))
        if nodes := alive([beams], run.num_return_sequences):
            run.settle(*nodes)
    return Output(tuple(ranked([beams])[: run.num_return_sequences]))
