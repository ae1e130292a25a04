"""Speculative decoding with a draft model: a chain of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least
from treille.drafters._grow import grow, uniform
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
    paper="Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318",
    cost="k passes of the draft model and k rows of the target per step",
)
class draft_model(TreeDrafter):  # noqa: N801 - one name in five places
    """Draft model, chain: a small model decodes k tokens ahead, drawn from its own law or picked greedily.

    With verification by rejection every token carries the law it was drawn from. Otherwise it is what the draft model
    would emit in the place of the target, with the target's own noise.
    """

    def __init__(self, host: Host, k: int = 4, model: str = "draft", keep: Keep = None) -> None:
        super().__init__(host, model, keep)
        at_least(1, k=k)
        self.k = k

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain of up to k tokens."""
        tree = DraftTree(node)
        yield from grow(
            run, tree, uniform([1] * self.k), [self.source(run, node)], budget.rows, self.depth(node, budget)
        )
        return tree
