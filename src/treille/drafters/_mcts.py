"""Monte Carlo tree search over tri-grams, compiled: a whole search costs less than one row of a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARENT, PLACE, ROW, FIRST, CHILDREN, VISITS = range(6)
"""Columns of a node: its parent, its place in the parent's row, its own row, its first child, how many, its visits."""
_UNVISITED = 1e12
"""Above every other bound."""


@numba.njit(cache=True, nogil=True)
def search(
    weights: NDArray[np.float32],
    links: NDArray[np.int32],
    start: int,
    iterations: int,
    depth: int,
    exploration: float,
    damping: float,
    seed: int,
) -> NDArray[np.int32]:
    """The nodes of the search tree, int32 `[nodes, 6]`, parents first; node 0 is the root.

    An iteration selects by PUCT, expands a node by all its successors and steps into the heaviest, rolls out to `depth`
    tokens by weight, and gives 1 + the sum of the weights on the way to every node of the path.

    Args:
        weights: `[rows, most]`, 0 where there is no successor.
        links: `[rows, most]`, the row that a successor leads to.
        start: row of the last two tokens.
        iterations: passes.
        depth: tokens of a path.
        exploration: c1 of the PUCT term, in units of weight.
        damping: c2, visits from which on the term grows.
        seed: of the rollouts.
    """
    nodes = np.zeros((iterations * weights.shape[1] + 1, 6), np.int32)
    value = np.zeros(len(nodes))
    nodes[0, ROW], used = start, 1
    state = np.uint64(seed)
    for _ in range(iterations):
        node, level = 0, 0
        while nodes[node, CHILDREN] > 0:
            node = _best(nodes, value, weights, node, exploration, damping)
            level += 1
        if level < depth:
            used = _expand(nodes, weights, links, node, used)
            if nodes[node, CHILDREN] > 0:
                node = _best(nodes, value, weights, node, exploration, damping)
                level += 1
        score, state = _rollout(weights, links, nodes[node, ROW], depth - level, state)
        _back_up(nodes, value, weights, node, score)
    return nodes[:used]


@numba.njit(cache=True, nogil=True)
def _best(nodes: Any, value: Any, weights: Any, node: int, exploration: float, damping: float) -> int:
    """The child of the largest `mean + c · prior · sqrt(N) / (1 + n)`; one without visits goes first, by its prior."""
    visits = nodes[node, VISITS]
    rate = (exploration + math.log((visits + damping + 1) / damping)) * math.sqrt(visits)
    best, most = nodes[node, FIRST], -1.0
    for child in range(nodes[node, FIRST], nodes[node, FIRST] + nodes[node, CHILDREN]):
        n, prior = nodes[child, VISITS], weights[nodes[node, ROW], nodes[child, PLACE]]
        bound = value[child] / n + rate * prior / (1 + n) if n else _UNVISITED * (1 + prior)
        if bound > most:
            best, most = child, bound
    return int(best)


@numba.njit(cache=True, nogil=True)
def _expand(nodes: Any, weights: Any, links: Any, node: int, used: int) -> int:
    """Add all successors; the number of nodes then."""
    row = nodes[node, ROW]
    if row < 0:
        return used
    nodes[node, FIRST] = used
    for place in range(weights.shape[1]):
        if weights[row, place] > 0:
            nodes[used, PARENT], nodes[used, PLACE], nodes[used, ROW] = node, place, links[row, place]
            used += 1
    nodes[node, CHILDREN] = used - nodes[node, FIRST]
    return used


@numba.njit(cache=True, nogil=True)
def _rollout(weights: Any, links: Any, row: int, steps: int, state: Any) -> Any:
    """The sum of the weights of up to `steps` successors drawn by weight, and the generator's next state."""
    score = 0.0
    for _ in range(steps):
        total = 0.0
        for place in range(weights.shape[1]):
            total += weights[row, place] if row >= 0 else 0.0
        if total <= 0:
            break
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)  # Knuth's MMIX
        target = np.float64(state >> np.uint64(11)) * 2.0**-53 * total
        place, reached = 0, np.float64(weights[row, 0])
        while reached <= target and place < weights.shape[1] - 1:
            place += 1
            reached += weights[row, place]
        score += weights[row, place]
        row = links[row, place]
    return score, state


@numba.njit(cache=True, nogil=True)
def _back_up(nodes: Any, value: Any, weights: Any, node: int, score: float) -> None:
    """Give every node of the path a visit and the path's score."""
    score, above = score + 1, node
    while above > 0:
        score += weights[nodes[nodes[above, PARENT], ROW], nodes[above, PLACE]]
        above = nodes[above, PARENT]
    while True:
        nodes[node, VISITS] += 1
        value[node] += score
        if node == 0:
            break
        node = nodes[node, PARENT]
