"""Best-of-N: draw several texts, return the one that a scorer likes best."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from treille.errors import ParameterError
from treille.requests import Gather, Score
from treille.strategies._checks import at_least, returns, sampling, texts
from treille.strategy import Hypothesis, Output, Run, complete, strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Sequence

    from treille.requests import Request, Scorer
    from treille.tree import Node

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {"last": lambda v: v[-1], "min": min, "prod": math.prod}


@strategy(
    paper="Stiennon et al. 2020, arXiv:2009.01325; weighted: Li et al. 2022, arXiv:2206.02336",
    exactness="P(score ≤ s) = F(s)^n, F the scores' distribution under sampling; KL to sampling ≤ ln n − (n − 1) / n",
    cost="n rows per step; the prompt is computed once; one scorer call",
    do_sample=True,
    drafts=True,
)
def best_of_n(
    run: Run,
    n: int = 4,
    scorer: Scorer | None = None,
    step_delimiter: str | None = None,
    aggregate: Literal["last", "min", "prod"] = "last",
    extract: Callable[[str], Hashable | None] | None = None,
) -> Generator[Request, Any, Output]:
    """Best of n samples by a scorer, or without one by the model's own mean log-probability per token."""
    at_least(1, n=n)
    returns(run, "best_of_n", n, "raise n")
    if scorer is not None and not callable(scorer):
        raise ParameterError(f"scorer={scorer!r}: a function from texts to scores is wanted; leave it out for the mean")
    if aggregate not in AGGREGATES:
        raise ParameterError(f"aggregate={aggregate!r} is not known; choose one of {', '.join(AGGREGATES)}")
    if scorer is None and (step_delimiter is not None or extract is not None):
        raise ParameterError("step_delimiter and extract need a scorer; strategy='self_consistency' votes without one")
    if step_delimiter == "":
        raise ParameterError("step_delimiter='' ends no step; leave it out to score whole texts")
    if step_delimiter is not None or extract is not None:
        texts(run, "step_delimiter or extract")
    if n > 1:
        sampling(run, "best_of_n")
    drawn: list[Hypothesis] = yield Gather(*[complete(run.branch(i), run.start) for i in range(n)])
    if scorer is None:
        scores = [mean_logprob(run, hypothesis) for hypothesis in drawn]
    else:
        ends = [step_ends(run, hypothesis.node, step_delimiter) for hypothesis in drawn]
        values = iter((yield Score(scorer, [node for nodes in ends for node in nodes])))
        scores = [AGGREGATES[aggregate]([next(values) for _ in nodes]) for nodes in ends]
    ranks = scores if extract is None else group_sums([extract(run.text(h.node)) for h in drawn], scores)
    # Python's sort is stable: the text drawn first wins on ties.
    order = sorted(range(n), key=lambda i: (ranks[i], scores[i]), reverse=True)
    candidates = [replace(drawn[i], score=ranks[i]) for i in order[: run.num_return_sequences]]
    return Output(tuple(candidates), {"scores": tuple(scores), "expected_best": expected_best(scores)})


def mean_logprob(run: Run, hypothesis: Hypothesis) -> float:
    """Log-probability per generated token under the model alone, nats."""
    return hypothesis.raw_logprob / run.generated(hypothesis.node)


def step_ends(run: Run, node: Node, delimiter: str | None) -> list[Node]:
    """The nodes at which a step of the text is complete, the last node always included."""
    if delimiter is None:
        return [node]
    chain = [node]
    while (parent := chain[-1].parent) is not None and parent.length > run.tip.length:
        chain.append(parent)
    chain.reverse()
    text, ends, at = run.text(node), [], 0
    while (at := text.find(delimiter, at)) >= 0:
        at += len(delimiter)
        ends.append(chain[bisect_left(chain, at, key=lambda inner: len(run.text(inner)))])
    return [*(end for i, end in enumerate(ends) if end is not node and end not in ends[:i]), node]


def group_sums(answers: Sequence[Hashable | None], scores: Sequence[float]) -> list[float]:
    """Per text, the sum of the scores of all texts with its answer; a text without an answer ranks below all others."""
    sums: defaultdict[Hashable, list[float]] = defaultdict(list)
    for answer, score in zip(answers, scores, strict=True):
        sums[answer].append(score)
    return [-math.inf if answer is None else math.fsum(sums[answer]) for answer in answers]


def expected_best(scores: Sequence[float]) -> tuple[float, ...]:
    """For k = 1 … n, the mean best score of k texts chosen from the n at random: what a smaller n would have given."""
    n, ascending = len(scores), sorted(scores)
    return tuple(
        math.fsum(s * (math.comb(i, k) - math.comb(i - 1, k)) for i, s in enumerate(ascending, 1)) / math.comb(n, k)
        for k in range(1, n + 1)
    )
