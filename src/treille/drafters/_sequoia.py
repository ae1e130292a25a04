"""Sequoia's trees: the expected longest acceptance, by dynamic programming over positions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.drafters._grow import Shape


class Trees:
    """The best tree of every size and depth, for given acceptance by position.

    F(n, d, b), the expected length of the accepted path, its root counted, of the best tree with n nodes, d levels
    below the root and exactly b children of the root (Chen et al. 2024, arXiv:2402.12374):

        F(1, d, 0) = 1
        F(n, d, b) = max_m F(m, d, b - 1) + a_b max_b' F(n - m, d - 1, b')

    The last child takes n - m nodes, the root and its other children m.

    Args:
        acceptance: a_b, the probability that the b-th child of a node is the one that is accepted.
        nodes: n at the most.
        depth: d at the most.
    """

    def __init__(self, acceptance: Sequence[float], nodes: int, depth: int) -> None:
        self.acceptance = tuple(acceptance)
        most = len(self.acceptance)
        self._length = np.full((depth + 1, most + 1, nodes + 1), -np.inf)
        self._others = np.zeros((depth + 1, most + 1, nodes + 1), np.int64)  # m
        self._length[:, 0, 1] = 1.0
        for d in range(1, depth + 1):
            under = self._length[d - 1].max(axis=0)  # [n]: the best tree under a child
            for b in range(1, most + 1):
                for n in range(2, nodes + 1):
                    split = self._length[d, b - 1, 1:n] + self.acceptance[b - 1] * under[n - 1 : 0 : -1]
                    m = int(split.argmax())
                    self._length[d, b, n], self._others[d, b, n] = split[m], m + 1

    def length(self, nodes: int, depth: int) -> float:
        """Expected tokens of a step with the best tree of `nodes` nodes, the root and the bonus token among them."""
        return float(self._length[depth, :, nodes].max())

    def shape(self, nodes: int, depth: int) -> Shape:
        """The best tree of at most `nodes` nodes, the root counted, and `depth` levels below it."""
        depth = min(depth, len(self._length) - 1)
        sizes = self._length[depth, :, : nodes + 1].max(axis=0)
        return self._shape(int(sizes.argmax()), depth)

    def _shape(self, nodes: int, depth: int) -> Shape:
        children: list[Shape] = []
        for b in range(int(self._length[depth, :, nodes].argmax()), 0, -1):
            others = int(self._others[depth, b, nodes])
            children.append(self._shape(nodes - others, depth - 1))
            nodes = others
        return tuple(reversed(children))

    def fastest(self, target: Sequence[float], draft: float) -> tuple[int, int]:
        """Nodes and depth of the least time per token on a machine.

        Args:
            target: seconds of the target's forward with 1, 2, … rows.
            draft: seconds of one pass of the draft model.
        """
        best = (float("inf"), 1, 0)
        for depth in range(len(self._length)):
            for nodes in range(1, min(len(target) + 1, self._length.shape[2])):
                if self.length(nodes, depth) > 0:  # there is such a tree
                    seconds = (target[nodes - 1] + depth * draft) / self.length(nodes, depth)
                    best = min(best, (seconds, nodes, depth))
        return best[1:]


@lru_cache(maxsize=16)
def trees(acceptance: tuple[float, ...], nodes: int, depth: int) -> Trees:
    """`Trees`, computed once: every text asks for the same."""
    return Trees(acceptance, nodes, depth)
