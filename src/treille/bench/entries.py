"""Strategies as texts, `best_of_n:n=8,judge=checker`, made ready for one question of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treille.drafters.base import read_plain, split_commas
from treille.errors import ParameterError
from treille.options import split
from treille.strategies.self_consistency import last_number
from treille.strategy import configured, registry
from treille.train.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from treille.requests import ScoredText, Scorer
    from treille.strategy import Configured, StrategyInfo
    from treille.train.tasks import Example

# What the benchmark sets itself, and the flag that says so.
RESERVED = {
    "constraint": "--constraint",
    "draft": "--drafters",
    "governor": "--governor",
    "scorer": "judge=checker or judge=steps",
    "seed": "--seed",
}
VOTES: dict[str, Callable[[str], str | None]] = {
    "text": str.strip,
    "last_line": lambda text: text.strip().rsplit("\n", maxsplit=1)[-1],
    "last_number": last_number,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A strategy with its parameters, for any question.

    Attributes:
        text: as it was written.
        info: the strategy.
        given: its parameters and generation parameters.
        judge: what scores its texts: `checker`, the task's; `steps`, its process reward; None: no judge.
    """

    text: str
    info: StrategyInfo
    given: Mapping[str, Any]
    judge: str | None

    def configure(self, example: Example, options: Mapping[str, Any]) -> Configured:
        """The strategy for one question; `options` are generation parameters beside those that it has.

        Raises:
            ParameterError: the task has no steps to judge, or the parameters cannot be honoured.
        """
        given = {**options, **self.given}
        if self.judge == "checker":
            given["scorer"] = checker(example)
        elif self.judge == "steps":
            if TASKS[example.task].rewards is None:
                having = ", ".join(task.name for task in TASKS.values() if task.rewards is not None)
                raise ParameterError(
                    f"{self.text}: answers of {example.task} have no steps to judge; those of {having} do"
                )
            given = {"step_delimiter": "\n", "aggregate": "min", **given, "scorer": steps(example)}
        split(given, self.info)
        return configured(self.info, given)


def checker(example: Example) -> Scorer:
    """Scores a text 1 if the task's checker accepts it as the answer, else 0: a perfect judge."""

    def score(texts: Sequence[ScoredText]) -> list[float]:
        return [float(TASKS[example.task].check(example, one.text)) for one in texts]

    return score


def steps(example: Example) -> Scorer:
    """Scores a text by the process reward of its last line."""

    def score(texts: Sequence[ScoredText]) -> list[float]:
        rewards = (TASKS[example.task].steps(example, one.text) for one in texts)
        return [values[-1] if values else 0.0 for values in rewards]

    return score


def parse(text: str) -> Entry:
    """The strategy that `name` or `name:key=value,key=value` describes.

    Beside its own parameters and generation parameters it takes `judge=checker` or `judge=steps` where it has a scorer.
    `extract=` takes the name of one of `VOTES`.

    Raises:
        ParameterError: an unknown strategy, parameter or judge, or a part that is no `key=value`.
    """
    name, _, rest = text.partition(":")
    info = registry[name.strip()]
    given: dict[str, Any] = {}
    for part in filter(None, split_commas(rest)):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ParameterError(f"{text!r}: {part!r} is no key=value; write {name}:key=value,key=value")
        if key in RESERVED:
            raise ParameterError(f"{text!r}: {key} is set by {RESERVED[key]}")
        given[key] = _vote(text, value) if key == "extract" else read_plain(value)
    judge = given.pop("judge", None)
    if judge is not None:
        _check_judge(text, info, judge)
    split(given, info)
    return Entry(text, info, given, judge)


def _vote(text: str, name: str) -> Callable[[str], str | None]:
    if name not in VOTES:
        raise ParameterError(f"{text!r}: extract={name} is not known; choose {', '.join(VOTES)}")
    return VOTES[name]


def _check_judge(text: str, info: StrategyInfo, judge: object) -> None:
    needed = {"checker": "scorer", "steps": "step_delimiter"}
    if judge not in needed:
        raise ParameterError(f"{text!r}: judge={judge} is not known; choose {', '.join(needed)}")
    if needed[str(judge)] not in info.parameters:
        having = ", ".join(other.name for other in registry if needed[str(judge)] in other.parameters)
        raise ParameterError(f"{text!r}: strategy {info.name!r} cannot use judge={judge}; these can: {having}")
