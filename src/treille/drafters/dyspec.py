"""DySpec: a tree that grows where the draft model is sure."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Literal

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least, between, one_of
from treille.drafters._siblings import TreeDrafter, is_open
from treille.drafters.base import drafter

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.drafters._siblings import Siblings, Source
    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Xiong et al. 2024, DySpec, arXiv:2410.11744",
    cost="one pass of the draft model per level (form=levels) or per node (form=heap), one row of the target per node",
)
class dyspec(TreeDrafter):  # noqa: N801 - one name in five places
    """DySpec: one more sibling, or one more token below, wherever the draft's own probabilities promise most.

    A place's estimate is the draft's probability that the text comes there and that all earlier siblings are rejected.
    It is known before the token is drawn, so the decision to draw cannot favour a token.

    Args:
        host: where it runs.
        rows: nodes at the most, m in the paper.
        threshold: form=levels draws where the estimate is above it; 0: 1 / rows.
        form: levels: all draws above the threshold, one pass per level. heap: always the best estimate, one pass per
            node; for a draft model that costs next to nothing.
        model: name of the draft model.
        keep: tokens it may propose (see `vocab_trim`).
    """

    def __init__(
        self,
        host: Host,
        rows: int = 16,
        threshold: float = 0.0,
        form: Literal["levels", "heap"] = "levels",
        model: str = "draft",
        keep: Keep = None,
    ) -> None:
        super().__init__(host, model, keep)
        at_least(1, rows=rows)
        between(0, 1, threshold=threshold)
        one_of(("levels", "heap"), form=form)
        self.rows = rows
        self.threshold = threshold or 1 / rows
        self.form = form

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A tree of `rows` nodes at the most."""
        grow = self._levels if self.form == "levels" else self._heap
        tree = DraftTree(node)
        yield from grow(run, tree, self.source(run, node), min(self.rows, budget.rows), self.depth(node, budget))
        return tree

    def _levels(
        self, run: Run, tree: DraftTree, source: Source, rows: int, depth: int
    ) -> Generator[Request, Any, None]:
        """Draw under every node of a level while the estimate is above the threshold; then the next level."""
        level = [(1.0, 0)]
        for _ in range(depth):
            level = [(value, i) for value, i in level if value > self.threshold and is_open(run, tree, i)]
            level.sort(key=lambda entry: -entry[0])
            if not level or tree.size >= rows:
                return
            found = yield from source.siblings([tree.nodes[i] for _, i in level], rows - tree.size)
            below = []
            for (value, index), siblings in zip(level, found, strict=True):
                while value > self.threshold and tree.size < rows and not siblings.empty:
                    token, probability = siblings.take()
                    below.append((value * float(probability), tree.add(index, token, siblings.law)))
                    value *= 1 - float(probability)
            level = below

    def _heap(self, run: Run, tree: DraftTree, source: Source, rows: int, depth: int) -> Generator[Request, Any, None]:
        """Draw where the estimate is best, one token at a time."""
        known: dict[int, Siblings] = {}
        heap = [(-1.0, 0, 0)]  # minus the estimate, a tie-break, the parent
        pushed = 0
        while heap and tree.size < rows:
            negative, _, index = heappop(heap)
            if index not in known:
                if tree.depths[index] >= depth or not is_open(run, tree, index):
                    continue
                (known[index],) = yield from source.siblings([tree.nodes[index]], rows - tree.size)
            siblings = known[index]
            if siblings.empty:
                continue
            token, probability = siblings.take()
            added = tree.add(index, token, siblings.law)
            share = float(probability)
            for estimate, parent in ((negative * share, added), (negative * (1 - share), index)):
                pushed += 1
                heappush(heap, (estimate, pushed, parent))
