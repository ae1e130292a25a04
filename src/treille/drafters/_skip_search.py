"""Search for a set of sub-layers that can be left out: random proposals, and a Gaussian process now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from treille.requests import Layers
from treille.sampling.random import Random

if TYPE_CHECKING:
    from numpy.typing import NDArray

SkipSet: TypeAlias = tuple[int, ...]
"""Ascending numbers of sub-layers: i is the attention of layer i + 1, L - 2 + i its MLP; first and last layer stay."""

KAPPA = 2.5  # of the upper confidence bound
CANDIDATES = 256  # random sets among which the bound is maximised
REMEMBERED = 100  # scored sets that the process is fitted to
NOISE = 1e-2  # variance of a score beside that of the process, which is 1


def as_layers(skipped: SkipSet, layers: int) -> Layers:
    """The set as a forward names it."""
    inner = layers - 2
    attention = frozenset(i + 1 for i in skipped if i < inner)
    return Layers(None, attention, frozenset(i - inner + 1 for i in skipped if i >= inner))


class SkipSearch:
    """Proposes sets, and keeps the best one scored so far. It draws from noise of its own, never from a run's.

    Args:
        layers: L, at least 3.
        ratio: part of the sub-layers that is left out.
        target: a score above which the search ends.
        bayes_every: every so many proposals one is the Gaussian process's.
        patience: proposals without progress after which the search ends.
        most: proposals after which it ends.

    Attributes:
        best: the set to draft with.
        score: its score.
        done: whether the search has ended.
    """

    def __init__(self, layers: int, ratio: float, *, target: float, bayes_every: int, patience: int, most: int) -> None:
        self.size = 2 * (layers - 2)
        self.count = int(self.size * ratio)
        self.target = target
        self.bayes_every = bayes_every
        self.patience = patience
        self.most = most
        every_second = range(0, layers - 2, 2)
        self.best: SkipSet = (*every_second, *(i + layers - 2 for i in every_second))
        self.score = -1.0
        self.done = most == 0
        self._random = Random(0)
        self._proposed = 0
        self._failures = 0
        self._scored: dict[SkipSet, float] = {}

    def propose(self) -> SkipSet:
        """The next set to score; the first is the one to start with."""
        self._proposed += 1
        if self._proposed == 1:
            return self.best
        if self._proposed % self.bayes_every == 0 and self._scored:
            return self._most_promising()
        return self._draw(0)

    def report(self, skipped: SkipSet, score: float) -> None:
        """Take note of a set's score; a better one than the best is adopted."""
        self._scored[skipped] = score
        while len(self._scored) > REMEMBERED:
            del self._scored[next(iter(self._scored))]
        if score > self.score:
            self.best, self.score, self._failures = skipped, score, 0
        else:
            self._failures += 1
        self.done = score > self.target or self._failures >= self.patience or self._proposed >= self.most

    def _draw(self, number: int) -> SkipSet:
        """A uniformly random set."""
        order = sorted(range(self.size), key=lambda i: self._random.uniform(self._proposed, f"skip {i}", number))
        return tuple(sorted(order[: self.count]))

    def _most_promising(self) -> SkipSet:
        """Of random sets the one with the highest mean + KAPPA standard deviations under a Gaussian process.

        The covariance of two sets falls with the number of sub-layers in which they differ.
        """
        known = _indicators(list(self._scored), self.size)
        scores = np.array(list(self._scored.values()))
        spread = max(float(scores.std()), 1e-3)
        drawn = [self._draw(number) for number in range(1, CANDIDATES + 1)]
        candidates = _indicators(drawn, self.size)
        scale = max(1.0, self.size / 4)
        inverse = np.linalg.inv(_covariance(known, known, scale) + NOISE * np.eye(len(known)))
        across = _covariance(candidates, known, scale)
        mean = across @ inverse @ ((scores - scores.mean()) / spread)
        variance = np.maximum(1 - np.einsum("ij,jk,ik->i", across, inverse, across), 0)
        return drawn[int((mean + KAPPA * np.sqrt(variance)).argmax())]


def _indicators(sets: list[SkipSet], size: int) -> NDArray[np.float64]:
    found = np.zeros((len(sets), size))
    for row, skipped in enumerate(sets):
        found[row, list(skipped)] = 1
    return found


def _covariance(a: NDArray[np.float64], b: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    differing: NDArray[np.float64] = np.abs(a[:, None] - b[None]).sum(-1)
    return np.exp(-differing / scale)
