"""RSD-S: a draft tree by stochastic beam search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least
from treille.drafters._siblings import TreeDrafter, is_open
from treille.drafters.base import drafter

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from treille.drafters._siblings import Draws, Siblings
    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of the beam: its node, the draft's probability of its path, and the time at which it arrived."""

    index: int
    rate: float
    time: float


@drafter(
    paper="Jeon et al. 2024, recursive speculative decoding, arXiv:2402.14160; Kool et al. 2019, arXiv:1903.06059",
    cost="one pass of the draft model per level, one row of the target per node: width · depth",
)
class rsd_s(TreeDrafter):  # noqa: N801 - one name in five places
    """RSD-S: `width` tokens per level, distributed over the nodes of the level by stochastic beam search.

    The paper perturbs log q of every path with Gumbel noise, each node's largest equal to its parent's, and keeps the
    best of a level. With time = exp(-perturbed score) this is a race: the children of a node arrive as a Poisson
    process whose rate is the mass not taken yet, the first at the time of the node itself. So only the arrivals that
    count are drawn: each level takes the next arrival `width` times, and *then* draws which token it was. That a token
    is kept can therefore not depend on which it is, as verification with the draft's law demands.

    Without verification by rejection: a beam search.
    """

    def __init__(self, host: Host, width: int = 3, depth: int = 4, model: str = "draft", keep: Keep = None) -> None:
        super().__init__(host, model, keep)
        at_least(1, width=width, depth=depth)
        self.width = width
        self.levels = depth

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A tree of `width` nodes per level."""
        tree = DraftTree(node)
        source = self.source(run, node)
        beam = [Entry(0, 1.0, 0.0)]
        for _ in range(min(self.levels, self.depth(node, budget))):
            beam = [entry for entry in beam if is_open(run, tree, entry.index)]
            width = min(self.width, budget.rows - tree.size)
            if not beam or width < 1:
                break
            found = yield from source.siblings([tree.nodes[entry.index] for entry in beam], width)
            take = _arrivals if run.rejecting else _best
            beam = take(tree, beam, found, width, source.draws)
        return tree


def _arrivals(
    tree: DraftTree, beam: Sequence[Entry], found: Sequence[Siblings], width: int, draws: Draws
) -> list[Entry]:
    """The first `width` arrivals among the children of the beam."""
    race = [(entry.time, at) for at, entry in enumerate(beam) if not found[at].empty]
    race.sort()
    arrived: list[Entry] = []
    while race:
        time, at = heappop(race)
        siblings, entry = found[at], beam[at]
        mass = float(siblings.left)
        token, probability = siblings.take()
        index = tree.add(entry.index, token, siblings.law)
        arrived.append(Entry(index, entry.rate * mass * float(probability), time))
        if len(arrived) == width:
            break
        rate = entry.rate * float(siblings.left)
        if not siblings.empty and rate > 0:
            heappush(race, (time - math.log1p(-draws.uniform("arrival")) / rate, at))
    return arrived


def _best(
    tree: DraftTree,
    beam: Sequence[Entry],
    found: Sequence[Siblings],
    width: int,
    draws: Draws,  # noqa: ARG001 - the signature of `_arrivals`
) -> list[Entry]:
    """The `width` most probable children of the beam."""
    children: list[tuple[float, int, int]] = []
    for entry, siblings in zip(beam, found, strict=True):
        while not siblings.empty:
            mass = float(siblings.left)
            token, probability = siblings.take()
            children.append((-entry.rate * mass * float(probability), entry.index, token))
    children.sort()
    return [Entry(tree.add(parent, token), -rate, 0.0) for rate, parent, token in children[:width]]
