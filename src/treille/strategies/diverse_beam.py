"""Diverse beam search."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from treille.errors import ParameterError
from treille.requests import Forward, TopK
from treille.strategies._beams import Beams, EarlyStopping, alive, ranked
from treille.strategies._checks import at_least, deterministic, returns
from treille.strategy import Output, Run, strategy

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.requests import Request


@strategy(
    paper="Vijayakumar et al. 2016, arXiv:1610.02424",
    exactness="approximate; the first group is beam search of width / groups, whatever the penalty",
    cost="width rows per step",
)
def diverse_beam(
    run: Run,
    width: int = 4,
    groups: int = 2,
    diversity_penalty: float = 0.5,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    penalty_in_score: bool = False,
) -> Generator[Request, Any, Output]:
    """Diverse beam search: groups of beams that avoid the tokens which earlier groups chose at the same step."""
    at_least(1, width=width, groups=groups)
    deterministic(run, "diverse_beam")
    returns(run, "diverse_beam", width, "raise width")
    if width % groups:
        raise ParameterError(f"groups={groups} does not divide width={width}; choose a divisor")
    each = width // groups
    members = [Beams(run, each, length_penalty, early_stopping) for _ in range(groups)]
    while live := [group for group in members if not group.done]:
        # Penalties push at most width - each tokens down, so the best candidates are among so many more.
        readout = TopK(live[0].keep + width - each, renormalize=False)
        tops = yield Forward([b.node for group in live for b in group.running], readout)
        chosen: Counter[int] = Counter()
        for group in live:
            own, tops = tops[: len(group.running)], tops[len(group.running) :]
            penalty = {token: diversity_penalty * count for token, count in chosen.items()}
            group.step(group.continuations(own, penalty, penalty_in_score=penalty_in_score))
            chosen.update(beam.node.token for beam in group.running)
        if nodes := alive(members, run.num_return_sequences):
            run.settle(*nodes)
    best = ranked(members)[: run.num_return_sequences]
    group_of = {id(hypothesis): i for i, group in enumerate(members) for hypothesis in group.pool}
    return Output(tuple(best), {"groups": tuple(group_of[id(hypothesis)] for hypothesis in best)})
