"""Early exit: the target's own first layers draft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._cheaper import Cheaper, exits_of, grow_chain, layered
from treille.drafters._checks import at_least, between
from treille.drafters._siblings import Draws
from treille.drafters.base import Drafter, drafter
from treille.requests import Layers

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Elhoushi et al. 2024, LayerSkip, arXiv:2404.16710",
    cost="k passes of the target's first layers, with its head, and k rows of the target per step; no second model",
)
class early_exit(Drafter):  # noqa: N801 - one name in five places
    """Early exit: the target stops after some layers to draft, and runs through to verify.

    Rows of the text are the target's own; a draft adds only its own rows. The target verifies from its first layer.

    Args:
        host: where it runs.
        layer: layers that draft; None: a third of them.
        k: tokens drafted at the most.
        threshold: a draft ends with the token at which the exit's largest probability was below it.
    """

    def __init__(self, host: Host, layer: int | None = None, k: int = 4, threshold: float = 0.0) -> None:
        super().__init__(host)
        at_least(1, k=k)
        between(0, 1, threshold=threshold)
        shape = layered(host, "early_exit")
        given = None if layer is None else [layer]
        (stop,) = exits_of("layer", shape.layers - 1, given, [max(1, shape.layers // 3)])
        self.layers = Layers(stop)
        self.k = k
        self.threshold = threshold

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain of up to k tokens."""
        tree = DraftTree(node)
        draws = Draws(run.random, node.length)
        source = Cheaper(run, "target", draws, layers=self.layers, since=node.length - 1)
        yield from grow_chain(run, tree, source, budget.rows, min(self.k, budget.depth), self.threshold)
        return tree
