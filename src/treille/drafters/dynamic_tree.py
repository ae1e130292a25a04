"""The dynamic tree of EAGLE-2, for any draft model: the best nodes of a beam search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._best_nodes import Candidates
from treille.drafters._checks import at_least
from treille.drafters._siblings import TreeDrafter
from treille.drafters.base import drafter

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Li et al. 2024, EAGLE-2, arXiv:2406.16858 (the tree; any draft model)",
    cost="up to depth passes of k rows of the draft model, one row of the target per node",
)
class dynamic_tree(TreeDrafter):  # noqa: N801 - one name in five places
    """Dynamic tree: the nodes with the highest draft probability of a beam search of width k.

    The nodes are chosen, not drawn, whatever the verification.
    """

    def __init__(
        self, host: Host, rows: int = 16, k: int = 4, depth: int = 5, model: str = "draft", keep: Keep = None
    ) -> None:
        super().__init__(host, model, keep)
        at_least(1, rows=rows, k=k, depth=depth)
        self.rows = rows
        self.k = k
        self.levels = depth

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A tree of `rows` nodes at the most."""
        source = self.source(run, node, chosen=True)
        rows = min(self.rows, budget.rows)
        found = Candidates(node)
        beam = [0]
        for _ in range(min(self.levels, self.depth(node, budget))):
            # What is not among the best now will not be later, nor will anything below it.
            best = set(found.best(rows))
            beam = [i for i in beam if i == 0 or (i in best and found.tokens[i] not in run.limits.eos_token_ids)]
            if not beam:
                break
            answers = yield from source.siblings([found.node(i) for i in beam], self.k)
            beam = found.extend(beam, answers, self.k)
        tree = DraftTree(node)
        found.plant(tree, found.best(rows))
        return tree
