"""Self-consistency: several chains of thought vote on the answer."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from treille.requests import Gather
from treille.strategies._checks import at_least, returns, sampling, texts
from treille.strategies.best_of_n import mean_logprob
from treille.strategy import Hypothesis, Output, Run, complete, strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Sequence

    from treille.requests import Request

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+|/\d*[1-9]\d*)?")


def last_number(text: str) -> str | None:
    """The last number of `text` in lowest terms (`0.50` and `2/4` are both `1/2`), None if there is none."""
    numbers = _NUMBER.findall(text)
    return str(Fraction(numbers[-1].replace(",", ""))) if numbers else None


@strategy(
    paper="Wang et al. 2022, arXiv:2203.11171",
    exactness="the answer converges to the most probable one, summed over all chains that lead to it, as n grows",
    cost="n rows per step; the prompt is computed once",
    do_sample=True,
    drafts=True,
)
def self_consistency(
    run: Run,
    n: int = 8,
    extract: Callable[[str], Hashable | None] = last_number,
    weighted: bool = False,
    round_size: int | None = None,
) -> Generator[Request, Any, Output]:
    """Self-consistency: n sampled texts vote on the answer; the first text with the winning answer is returned."""
    round_size = n if round_size is None else round_size
    at_least(1, n=n, round_size=round_size)
    returns(run, "self_consistency", 1, "details['answers'] lists the answer of every text")
    texts(run, "self_consistency")
    if n > 1:
        sampling(run, "self_consistency")
    drawn: list[Hypothesis] = []
    answers: list[Hashable | None] = []
    votes: dict[Hashable, float] = {}
    while len(drawn) < n and not decided(votes, n - len(drawn)):
        indices = range(len(drawn), min(n, len(drawn) + round_size))
        drawn += yield Gather(*[complete(run.branch(i), run.start) for i in indices])
        answers += [extract(run.text(drawn[i].node)) for i in indices]
        votes = count(answers, [math.exp(mean_logprob(run, h)) if weighted else 1.0 for h in drawn])
    mass = count(answers, probabilities(drawn))
    # `votes` is in the order of first appearance, and max returns the first of equals.
    answer = max(votes, key=lambda a: (votes[a], mass[a]), default=None)
    winner = drawn[answers.index(answer)]
    details = {"answer": answer, "votes": votes, "answers": tuple(answers)}
    return Output((replace(winner, score=votes.get(answer, 0.0)),), details)


def count(answers: Sequence[Hashable | None], weights: Sequence[float]) -> dict[Hashable, float]:
    """Sum of the weights per answer; texts without an answer abstain."""
    found: defaultdict[Hashable, list[float]] = defaultdict(list)
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            found[answer].append(weight)
    return {answer: math.fsum(each) for answer, each in found.items()}


def decided(votes: dict[Hashable, float], left: int) -> bool:
    """Whether the leader cannot even be drawn level with by `left` more texts; a vote weighs at most 1."""
    first, second, *_ = [*sorted(votes.values(), reverse=True), 0.0, 0.0]
    return first > second + left


def probabilities(drawn: Sequence[Hypothesis]) -> list[float]:
    """Probabilities of the texts, up to a common factor that keeps the largest from vanishing."""
    highest = max(hypothesis.logprob for hypothesis in drawn)
    return [math.exp(hypothesis.logprob - highest) for hypothesis in drawn]
