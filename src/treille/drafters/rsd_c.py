"""RSD-C: a tree of fixed widths, its siblings drawn without replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._grow import grow, uniform, whole_numbers
from treille.drafters._siblings import TreeDrafter
from treille.drafters.base import drafter

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Jeon et al. 2024, recursive speculative decoding, arXiv:2402.14160",
    cost="one pass of the draft model per level, one row of the target per node",
)
class rsd_c(TreeDrafter):  # noqa: N801 - one name in five places
    """RSD-C: every node of level l gets widths[l] children of a draft model, drawn without replacement.

    The paper takes the k largest of log q + Gumbel noise; drawing one token after the other from what is left of q is
    the same law in the same order. Without verification by rejection the children are the best tokens.
    """

    def __init__(
        self, host: Host, widths: Sequence[int] = (2, 2, 1, 1), model: str = "draft", keep: Keep = None
    ) -> None:
        super().__init__(host, model, keep)
        self.shape = uniform(whole_numbers("widths", widths))

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A tree of the given widths."""
        tree = DraftTree(node)
        yield from grow(run, tree, self.shape, [self.source(run, node)], budget.rows, self.depth(node, budget))
        return tree
