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
    Exits,
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

    from treille.hooks import Constrained
    from treille.requests import Forward
    from treille.sampling.chain import Chain
    from treille.sampling.random import Random
    from treille.strategy import Run
    from treille.testing.table import Law, TableModel
    from treille.tree import Node

SAME = 1e-5
"""Kept log-probabilities that moved by equal amounts up to this only lost a normalisation (float32 processors)."""

LAYERS = 4
"""Layers that a table passes for: fewer of them mix its law with the uniform one, in proportion; a view leaves one."""


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


def depth(request: Forward) -> int:
    """How many layers of a table a forward runs: see `LAYERS`."""
    if request.view is not None:
        return 1
    layers = request.layers
    if layers is None:
        return LAYERS
    return max(0, min(layers.stop or LAYERS, LAYERS) - len(layers.skip_attention | layers.skip_mlp))


class Readings:
    """Readouts on tables, with a processor chain for every model; for runs of one constraint, or of none."""

    def __init__(self, models: Mapping[str, TableModel], chain: Chain | None) -> None:
        self.models = models
        self.chain = chain
        self._rows: dict[object, Row] = {}

    def read(self, node: Node, want: Readout, model: str, run: Run, layers: int = LAYERS) -> Any:
        """The answer that the engine would give for one node, by so many layers of the table."""
        if isinstance(want, Exits):
            return tuple(_choice(row, row.raw.index(max(row.raw))) for row in self._exits(node, want, model, run))
        if isinstance(want, Attention):  # a table looks everywhere alike
            return torch.full((len(want.layers), 1, node.length), 1 / node.length)
        source = want.random if isinstance(want, Sample) else run.random
        try:
            row = self._row(node, model, run, source, layers)
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
            case Hidden():
                raise ParameterError(f"{want}: a table has no hidden states; test this strategy on a small checkpoint")

    def _exits(self, node: Node, want: Exits, model: str, run: Run) -> list[Row]:
        return [self._row(node, model, run, run.random, layers) for layers in want.layers]

    def _row(self, node: Node, model: str, run: Run, source: Random, layers: int) -> Row:
        if model not in self.models:
            raise ParameterError(f"model={model!r} has no table; pass model={{'target': …, {model!r}: …}}")
        key = (model, layers, run.tip.length, node.path.tobytes(), run.constraint is None)
        if key in self._rows:
            return self._rows[key]
        raw = _shallow(self.models[model].law(node.path.tolist()), layers)
        raw_logprobs = tuple(_log(p) for p in raw)
        allowed = [True] * len(raw) if run.constraint is None else _allowed(run.constraint, node, len(raw))
        kept = tuple(p if ok else Fraction(0) for p, ok in zip(raw, allowed, strict=True))
        if run.constraint is not None and not any(kept):
            raise run.constraint.dead_end(node)
        drawn: list[str] = []

        def uniform(purpose: str) -> float:
            drawn.append(purpose)
            return source.uniform(node.length, purpose)

        if self.chain:
            row = _processed(self.chain, Path(node.path, run.tip.length, uniform), raw, kept)
        else:
            total = sum(kept)
            law = tuple(p / total for p in kept)
            scores = tuple(_log(p) for p in kept)
            row = Row(raw, law, raw_logprobs, tuple(_log(p) for p in law), scores)
        if not drawn:  # a processor that draws gives another row in another stream
            self._rows[key] = row
        return row


def _allowed(constraint: Constrained, node: Node, width: int) -> list[bool]:
    """Which tokens may follow `node`, one entry per token."""
    mask = np.empty((1, -(-width // 32)), np.int32)
    constraint.masks([node], mask)
    return np.unpackbits(mask.view(np.uint8), count=width, bitorder="little").astype(bool).tolist()


def _shallow(law: Law, layers: int) -> Law:
    """What a table says after so many of its layers."""
    if layers == LAYERS:
        return law
    uniform = Fraction(1, len(law))
    return tuple((layers * p + (LAYERS - layers) * uniform) / LAYERS for p in law)


def _processed(chain: Chain, path: Path, raw: Law, allowed: Law) -> Row:
    """The row after `chain`: exact where it only removes tokens, otherwise from the floats that it returns.

    `allowed` is `raw` where the constraint allows the token, else zero.
    """
    raw_logprobs = tuple(_log(p) for p in raw)
    before = torch.tensor([[_log(p) for p in allowed]], dtype=torch.float32)
    after = chain([path], before)[0].tolist()
    kept = [token for token, score in enumerate(after) if score > -math.inf and allowed[token]]
    if not kept:
        raise NoTokenLeft(f"no token is left that the constraint and {chain.describe()} both allow")
    moved = [after[token] - float(before[0, token]) for token in kept]
    if max(moved) - min(moved) <= SAME:
        weights = [raw[token] if token in kept else Fraction(0) for token in range(len(raw))]
        shift = 0.0 if abs(moved[0]) <= SAME else moved[0]
        scores = tuple(raw_logprobs[t] + shift if t in kept else -math.inf for t in range(len(raw)))
    else:
        highest = max(after[token] for token in kept)
        weights = [Fraction(math.exp(after[t] - highest)) if t in kept else Fraction(0) for t in range(len(raw))]
        scores = tuple(after[t] if t in kept else -math.inf for t in range(len(raw)))
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
