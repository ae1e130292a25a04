"""Readouts of a table: what the engine computes on tensors, from exact probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from treille.errors import NoTokenLeft, ParameterError
from treille.requests import (
    Argmax,
    Attention,
    Choice,
    Distribution,
    Hidden,
    LogProbs,
    Probabilities,
    Readout,
    Sample,
    Top,
    TopK,
)
from treille.sampling.path import Path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from treille.sampling.chain import Chain
    from treille.sampling.random import Random
    from treille.testing.table import Law, TableModel
    from treille.tree import Node

SAME = 1e-5
"""Kept log-probabilities that moved by equal amounts up to this only lost a normalisation (float32 processors)."""


@dataclass(frozen=True, slots=True)
class Row:
    """The next-token law after one path: of the model, after the processors, and their logarithms (float64 nats).

    `scores` are the processed log-probabilities before they are normalised again.
    """

    raw: Law
    law: Law
    raw_logprobs: tuple[float, ...]
    logprobs: tuple[float, ...]
    scores: tuple[float, ...]


class Readings:
    """Readouts on tables, with a processor chain that applies to every model."""

    def __init__(self, models: Mapping[str, TableModel], chain: Chain | None) -> None:
        self.models = models
        self.chain = chain
        self._rows: dict[object, Row] = {}

    def read(self, node: Node, want: Readout, model: str, prompt_length: int, random: Random) -> Any:
        """The answer that the engine would give for one node."""
        source = want.random if isinstance(want, Sample) else random
        try:
            row = self._row(node, model, prompt_length, source)
        except NoTokenLeft:
            if isinstance(want, TopK):  # one dead beam is no reason to fail the others
                return Top((), (), ())
            raise
        match want:
            case Argmax():
                return _choice(row, row.law.index(max(row.law)))
            case Sample(gumbel=True):
                scores = np.array(row.logprobs) + source.gumbel(node.length, "sample", len(row.law))
                return _choice(row, int(scores.argmax()))
            case Sample():
                return _choice(row, source.categorical(row.law, node.length, "sample"))
            case TopK():
                return _top(row, want)
            case LogProbs():
                values = row.raw_logprobs if want.raw else row.logprobs
                return tuple(values[token] for token in want.tokens)
            case Distribution():
                # float64 where the engine has float32: enumeration gets its fractions back from these numbers.
                return torch.tensor(row.raw_logprobs if want.raw else row.logprobs, dtype=torch.float64)
            case Probabilities():
                return np.array(row.raw if want.raw else row.law, dtype=object)  # exact fractions
            case Hidden() | Attention():
                raise ParameterError(f"{want}: a table has no layers; test this strategy on a small checkpoint")

    def _row(self, node: Node, model: str, prompt_length: int, source: Random) -> Row:
        if model not in self.models:
            raise ParameterError(f"model={model!r} has no table; pass model={{'target': …, {model!r}: …}}")
        key = (model, prompt_length, node.path.tobytes())
        if key in self._rows:
            return self._rows[key]
        raw = self.models[model].law(node.path.tolist())
        raw_logprobs = tuple(_log(p) for p in raw)
        drawn: list[str] = []

        def uniform(purpose: str) -> float:
            drawn.append(purpose)
            return source.uniform(node.length, purpose)

        if not self.chain:
            row = Row(raw, raw, raw_logprobs, raw_logprobs, raw_logprobs)
        else:
            row = _processed(self.chain, Path(node.path, prompt_length, uniform), raw, raw_logprobs)
        if not drawn:  # a processor that draws gives another row in another stream
            self._rows[key] = row
        return row


def _processed(chain: Chain, path: Path, raw: Law, raw_logprobs: tuple[float, ...]) -> Row:
    """The row after `chain`: exact where it only removes tokens, otherwise from the floats that it returns."""
    before = torch.tensor([raw_logprobs], dtype=torch.float32)
    after = chain([path], before)[0].tolist()
    kept = [token for token, score in enumerate(after) if score > -math.inf and raw[token]]
    moved = [after[token] - float(before[0, token]) for token in kept]
    if max(moved) - min(moved) <= SAME:
        weights = [raw[token] if token in kept else Fraction(0) for token in range(len(raw))]
        shift = 0.0 if abs(moved[0]) <= SAME else moved[0]
        scores = tuple(raw_logprobs[t] + shift if t in kept else -math.inf for t in range(len(raw)))
    else:
        highest = max(after)
        weights = [Fraction(math.exp(score - highest)) for score in after]
        scores = tuple(after)
    total = sum(weights)
    law = tuple(weight / total for weight in weights)
    return Row(raw, law, raw_logprobs, tuple(_log(p) for p in law), scores)


def _log(p: Fraction) -> float:
    """Natural logarithm, -inf of zero; of numerator and denominator apart, so that none of them overflows."""
    return math.log(p.numerator) - math.log(p.denominator) if p else -math.inf


def _choice(row: Row, token: int) -> Choice:
    return Choice(token, row.logprobs[token], row.raw_logprobs[token])


def _top(row: Row, want: TopK) -> Top:
    values = row.logprobs if want.renormalize else row.scores
    allowed = [token for token, value in enumerate(values) if value > -math.inf]
    tokens = tuple(sorted(allowed, key=lambda token: (-values[token], token))[: want.k])
    return Top(tokens, tuple(values[t] for t in tokens), tuple(row.raw_logprobs[t] for t in tokens))
