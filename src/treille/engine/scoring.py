"""Scores: each scorer is called once with the texts of every run that waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.errors import DecodingError
from treille.requests import ScoredText

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from treille.engine.job import Task
    from treille.requests import Score
    from treille.strategy import Run
    from treille.tree import Node


def scored(waiting: Sequence[tuple[Task, Score]]) -> Iterator[tuple[Task, Score, list[float] | Exception]]:
    """The values of every request, or the failure of its scorer, which belongs to the runs that asked."""
    by_scorer: dict[int, list[tuple[Task, Score]]] = {}
    for entry in waiting:
        by_scorer.setdefault(id(entry[1].scorer), []).append(entry)
    for entries in by_scorer.values():
        try:
            texts = [_scored_text(task.job.run, node) for task, score in entries for node in score.nodes]
            values = [float(value) for value in entries[0][1].scorer(texts)]
            if len(values) != len(texts):
                raise DecodingError(f"the scorer returned {len(values)} values for {len(texts)} texts")  # noqa: TRY301
        except Exception as failure:  # noqa: BLE001 - whatever a scorer raises
            yield from ((task, score, failure) for task, score in entries)
            continue
        for task, score in entries:
            yield task, score, values[: len(score.nodes)]
            values = values[len(score.nodes) :]


def _scored_text(run: Run, node: Node) -> ScoredText:
    prompt = "" if run.codec is None else run.codec.decode(run.tip.path.tolist())
    text = "" if run.codec is None else run.text(node)
    return ScoredText(prompt, text, tuple(node.path[run.tip.length :].tolist()))
