"""Rounds of decoding: all texts by one drafter, with the time until the prompts were read and after, and its counts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from treille.engine.instruments import Instrument
from treille.hooks import DraftCounts
from treille.strategies import greedy, sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from treille.bench.texts import Text
    from treille.engine.job import Job
    from treille.language_model import LanguageModel, StrategyLike
    from treille.output import Generation
    from treille.requests import Readout
    from treille.tree import Node


@dataclass(frozen=True, slots=True)
class Round:
    """One decoding of all texts.

    Attributes:
        seconds: of all of it.
        after_prompt: of these, the seconds that were left when the target had read the prompts.
        tokens: written.
        counts: of drafting.
    """

    seconds: float
    after_prompt: float
    tokens: int
    counts: DraftCounts


class PromptsRead(Instrument):
    """When the target gave its first distribution after the last of the prompts."""

    def __init__(self) -> None:
        self.at = time.perf_counter()
        self._jobs: set[int] = set()

    def read(self, job: Job, node: Node, want: Readout, result: object, model: str) -> None:  # noqa: ARG002 - the hook's signature
        """Look at the clock if this run had none so far."""
        if model == "target" and job.number not in self._jobs:
            self._jobs.add(job.number)
            self.at = time.perf_counter()


@dataclass(slots=True)
class Decoding:
    """A side of a benchmark: decodes all texts each time it is called, and keeps every round.

    Attributes:
        lm: the model.
        texts: what is decoded.
        batch: how many at once.
        given: generation parameters.
        replayed: the texts are recorded ones, which the model is made to write.
        rounds: so far.
    """

    lm: LanguageModel
    texts: Sequence[Text]
    batch: int
    given: Mapping[str, Any]
    replayed: bool
    rounds: list[Round] = field(default_factory=list)
    _seconds: float = 0.0
    _after: float = 0.0
    _results: list[Generation] = field(default_factory=list)

    def __call__(self) -> float:
        """The seconds of one more round.

        Raises:
            ParameterError: the drafter cannot be run with this model.
        """
        return in_turns(self)

    def decode(self, first: int) -> None:
        """One batch of the present round."""
        chosen = self.texts[first : first + self.batch]
        read = PromptsRead()
        self.lm.engine.instruments.append(read)
        start = time.perf_counter()
        try:
            self._results += self.lm.generate(
                [text.prompt for text in chosen], self._strategies(chosen), **self._options()
            )
        finally:
            self.lm.engine.instruments.remove(read)
        end = time.perf_counter()
        self._seconds += end - start
        self._after += end - read.at

    def end(self) -> Round:
        """The round that is complete; the next one begins."""
        tokens = sum(result.stats.emitted for result in self._results)
        self.rounds.append(
            Round(self._seconds, self._after, tokens, total([result.stats.drafts for result in self._results]))
        )
        self._seconds, self._after, self._results = 0.0, 0.0, []
        return self.rounds[-1]

    def _options(self) -> dict[str, Any]:
        if not self.replayed:
            return dict(self.given)
        # Each recorded text has a length of its own.
        return {**{name: value for name, value in self.given.items() if name != "max_new_tokens"}, "eos_token_id": []}

    def _strategies(self, texts: Sequence[Text]) -> StrategyLike | list[StrategyLike]:
        kind = sample if self.given.get("temperature") else greedy
        if not self.replayed:
            return kind()
        return [kind(logits_processor=text.replay, max_new_tokens=max(1, len(text.answer))) for text in texts]


def in_turns(*sides: Decoding) -> float:
    """Seconds of one more round of every side: they take turns batch by batch, so that a slow moment hurts all alike.

    One of them drafts at the most, as all draft from what was learned in this round.
    """
    assert sum("draft" in side.given for side in sides) <= 1, "they would draft from what the others have learned"
    one = sides[0]
    one.lm.forget_drafts()  # or a round would find the texts of the one before in the drafters' tables
    for number, first in enumerate(range(0, len(one.texts), one.batch)):
        for side in sides if (len(one.rounds) + number) % 2 else sides[::-1]:
            side.decode(first)
    return sum(side.end().seconds for side in sides)


def total(counts: Sequence[DraftCounts]) -> DraftCounts:
    """The sum over runs."""
    whole = DraftCounts()
    for one in counts:
        for name in (each.name for each in fields(DraftCounts)):
            known, more = getattr(whole, name), getattr(one, name)
            summed = map(sum, zip_longest(known, more, fillvalue=0)) if isinstance(known, list) else None
            setattr(whole, name, known + more if summed is None else list(summed))
    return whole
