"""Shapes of draft trees by rank: which child of which child is drafted, in the order of what it brings."""

from __future__ import annotations

import heapq
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from treille.draft_tree import DraftTree

RankPath: TypeAlias = tuple[int, ...]
Filled: TypeAlias = tuple[int, int, int]
"""A node of a template, its parent (-1 under the root), and the token that was drafted for it."""

PRIOR = (0.5, 0.14, 0.08, 0.06, 0.04, 0.03, 0.025, 0.02, 0.015, 0.01)
"""Share of steps in which the candidate of a rank is the next token, before any is counted (ranks beyond: the last)."""
CONFIDENCE = 16
"""Steps that the prior counts for."""
PERIOD = 16
"""Steps between two orderings by what was counted."""

# Children of every inner node of the reference tree of Token Recycling, by the ranks on the path to it.
_CHILDREN = {
    "": 8,
    "0": 8, "1": 4, "2": 3, "3": 2, "4": 1, "5": 1, "6": 1, "7": 1,
    "00": 8, "01": 3, "02": 2, "03": 1, "04": 1, "05": 1, "06": 1, "07": 1, "10": 2, "11": 1, "20": 1, "30": 1, "40": 1,
    "50": 1,
    "000": 5, "001": 2, "002": 1, "003": 1, "004": 1, "010": 1, "020": 1, "100": 1, "200": 1, "300": 1,
    "0000": 3, "0001": 1, "0002": 1, "0010": 1, "0100": 1, "1000": 1,
    "00000": 2, "00010": 1,
}  # fmt: skip
REFERENCE = "2.2.2"
"""Name of the reference tree: 80 nodes, 8, 21, 25, 15, 8 and 3 by depth."""


def reference_paths() -> list[RankPath]:
    """The nodes of the reference tree, parents before children."""
    return [(*map(int, above), rank) for above, children in _CHILDREN.items() for rank in range(children)]


@lru_cache(16)
def grown_paths(size: int, k: int) -> tuple[RankPath, ...]:
    """The `size` nodes with the largest product of prior rates, with at most `k` children each."""
    found: list[RankPath] = []
    waiting: list[tuple[float, RankPath]] = [(-_rate(0), (0,))]
    while len(found) < size:
        score, path = heapq.heappop(waiting)
        found.append(path)
        heapq.heappush(waiting, (score * _rate(0), (*path, 0)))
        if path[-1] + 1 < k:
            sibling = (*path[:-1], path[-1] + 1)
            heapq.heappush(waiting, (score / _rate(path[-1]) * _rate(sibling[-1]), sibling))
    return tuple(found)


def template_paths(template: Any, k: int) -> Sequence[RankPath]:
    """The nodes that a drafter's parameter `template` means.

    Args:
        template: the reference tree's name, a number of nodes, or the nodes as lists of ranks.
        k: children that a node can have.

    Raises:
        ParameterError: none of these; a rank beyond k; or a node without its parent or its elder sibling.
    """
    if template == REFERENCE:
        return [path for path in reference_paths() if max(path) < k]
    if isinstance(template, int) and not isinstance(template, bool) and template > 0:
        return grown_paths(template, k)
    paths = _paths(template)
    if not paths:
        raise ParameterError(
            f"draft: template={template!r}: give {REFERENCE!r}, a number of nodes, or nodes by ranks: [[0],[1],[0,0]]"
        )
    known = set(paths)
    for path in known:
        if max(path) >= k:
            raise ParameterError(f"draft: template: node {list(path)} has a rank beyond k={k}; raise k or leave it out")
        needed = [path[:-1]] if path[:-1] else []
        needed += [(*path[:-1], path[-1] - 1)] if path[-1] else []
        for missing in needed:
            if missing not in known:
                raise ParameterError(
                    f"draft: template: node {list(path)} needs {list(missing)} before it; add that one"
                )
    return sorted(known, key=lambda path: (len(path), path))


def _paths(template: Any) -> list[RankPath]:
    if not isinstance(template, list | tuple):
        return []
    paths = [tuple(path) if isinstance(path, list | tuple) else () for path in template]
    fits = all(path and all(type(rank) is int and rank >= 0 for rank in path) for path in paths)
    return paths if fits else []


def _rate(rank: int) -> float:
    return PRIOR[min(rank, len(PRIOR) - 1)]


class Template:
    """A tree of ranks whose nodes are kept in the order of how often they are accepted.

    Each node's rate is counted where it was drafted, from a prior that is the product of the rates of its ranks. A rate
    is never above the parent's or the elder sibling's, so every beginning of the order is a tree, and what fits a
    budget is a beginning.

    Args:
        paths: ranks from the root, per node.
    """

    def __init__(self, paths: Sequence[RankPath]) -> None:
        self.paths = sorted(paths, key=lambda path: (len(path), path))
        index = {path: at for at, path in enumerate(self.paths)}
        self.parents = [index[path[:-1]] if len(path) > 1 else -1 for path in self.paths]
        self.ranks = [path[-1] for path in self.paths]
        self._elders = [index[(*path[:-1], path[-1] - 1)] if path[-1] else -1 for path in self.paths]
        self._prior = [math.prod(_rate(rank) for rank in path) for path in self.paths]
        self._drafted = [0] * len(self.paths)
        self._kept = [0] * len(self.paths)
        self._steps = 0
        self.order: list[int] = []
        self._sort()

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """(node, parent, rank) in order; the parent is -1 under the root."""
        return ((node, self.parents[node], self.ranks[node]) for node in self.order)

    def count(self, filled: Sequence[Filled], tree: DraftTree, accepted: Sequence[int]) -> None:
        """Learn from a verified tree which of the nodes that were filled stood in it, and which were accepted."""
        index, kept = {-1: 0}, set(accepted)
        for node, parent, token in filled:
            at = tree.child(index[parent], token) if parent in index else None
            if at is not None:
                index[node] = at
                self._drafted[node] += 1
                self._kept[node] += at in kept
        self._steps += 1
        if self._steps % PERIOD == 0:
            self._sort()

    def _sort(self) -> None:
        counted = zip(self._kept, self._prior, self._drafted, strict=True)
        rates = [(kept + CONFIDENCE * prior) / (drafted + CONFIDENCE) for kept, prior, drafted in counted]
        for node, (parent, elder) in enumerate(zip(self.parents, self._elders, strict=True)):
            rates[node] = min([rates[node], *(rates[above] for above in (parent, elder) if above >= 0)])
        self.order = sorted(range(len(rates)), key=lambda node: -rates[node])  # stable: parents before children
