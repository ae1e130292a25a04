"""Running beams and finished texts: the bookkeeping of `transformers` 5, shared by the beam strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from treille.errors import NoTokenLeft, ParameterError
from treille.requests import Choice

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from treille.requests import Top
    from treille.strategy import Hypothesis, Run
    from treille.tree import Node

EarlyStopping: TypeAlias = bool | Literal["never"]
STEEPEST = 50  # a length penalty beyond it overflows with the longest texts


@dataclass(frozen=True, slots=True)
class Continuation:
    """A beam and its next token. `rank` orders the candidates, `score` is what the grown beam accumulates."""

    rank: float
    beam: Hypothesis
    choice: Choice
    score: float


class Beams:
    """Running beams, best first, and the pool of finished ones, best first; at most `width` of each.

    A running hypothesis carries its accumulated score S in `score`, a finished one S / length^α with the length counted
    in generated tokens, the end token included.
    """

    def __init__(self, run: Run, width: int, length_penalty: float, early_stopping: EarlyStopping) -> None:
        if not isinstance(early_stopping, bool) and early_stopping != "never":
            raise ParameterError(f"early_stopping={early_stopping!r} is not known; choose False, True or 'never'")
        if not abs(length_penalty) <= STEEPEST:
            raise ParameterError(
                f"length_penalty={length_penalty!r}: the power of a length has to fit a number; "
                f"choose one from -{STEEPEST} to {STEEPEST}"
            )
        self.run = run
        self.width = width
        self.length_penalty = length_penalty
        self.early_stopping = early_stopping
        # Enough candidates that `width` of them can go on even if all others end the text.
        self.keep = width * max(2, 1 + len(run.limits.eos_token_ids))
        self.running = [replace(run.start, score=0.0)]
        self.pool: list[Hypothesis] = []
        self.done = False

    def continuations(
        self, tops: Sequence[Top], penalty: Mapping[int, float], *, penalty_in_score: bool = False
    ) -> list[Continuation]:
        """The best `keep` continuations: higher rank first, then the earlier beam, then the lower token id.

        `penalty` per token is taken off the rank, and with `penalty_in_score` off the accumulated score too.
        """
        found: list[tuple[float, int, int, Continuation]] = []
        for index, (beam, top) in enumerate(zip(self.running, tops, strict=True)):
            for token, logprob, raw in zip(top.tokens, top.logprobs, top.raw_logprobs, strict=True):
                plain = (beam.score or 0.0) + logprob
                rank = plain - penalty.get(token, 0.0)
                score = rank if penalty_in_score else plain
                found.append((-rank, index, token, Continuation(rank, beam, Choice(token, logprob, raw), score)))
        return [item[-1] for item in sorted(found, key=lambda item: item[:3])[: self.keep]]

    def step(self, continuations: Sequence[Continuation]) -> None:
        """Grow by one token: the best unfinished texts run on; those that end at a rank below `width` join the pool."""
        running: list[Hypothesis] = []
        for rank, continuation in enumerate(continuations):
            if rank >= self.width and len(running) == self.width:
                break
            grown = replace(self.run.extend(continuation.beam, continuation.choice), score=continuation.score)
            if grown.finish_reason is None:
                running.append(grown)
            elif rank < self.width:  # a text that ends at a later rank is lost, as in `transformers`
                length = self.run.generated(grown.node)
                self.pool.append(replace(grown, score=normalised(continuation.score, length, self.length_penalty)))
        self.pool.sort(key=lambda hypothesis: -(hypothesis.score or 0.0))  # stable: the earlier one first on ties
        del self.pool[self.width :]
        self.running = running[: self.width]
        self.done = not running or self._settled()

    def _settled(self) -> bool:
        """Whether no running beam is expected to enter the pool any more."""
        if len(self.pool) < self.width:
            return False
        if self.early_stopping is True:
            return True
        best = self.running[0]
        longest = self.early_stopping == "never" and self.length_penalty > 0
        # With "never" this bounds what `best` can reach (scores only fall); otherwise it is a heuristic.
        length = self.run.limits.max_new_tokens if longest else self.run.generated(best.node)
        return (self.pool[-1].score or 0.0) >= normalised(best.score or 0.0, length, self.length_penalty)


def normalised(score: float, length: int, penalty: float) -> float:
    """S / length^penalty."""
    return float(score / length**penalty)


def alive(groups: Collection[Beams], returned: int) -> list[Node]:
    """The last nodes of everything that can still be part of the output or grow into it."""
    running = [beam.node for group in groups if not group.done for beam in group.running]
    return running + [hypothesis.node for group in groups for hypothesis in group.pool[:returned]]


def ranked(groups: Collection[Beams]) -> list[Hypothesis]:
    """All finished texts, best first, the earlier group first on ties.

    Raises:
        NoTokenLeft: no text could be finished.
    """
    pool = sorted((h for group in groups for h in group.pool), key=lambda hypothesis: -(hypothesis.score or 0.0))
    if not pool:
        raise NoTokenLeft("no beam could be finished: processors or a constraint left no token to any of them")
    return pool
