"""Unified layer skipping as a drafter: a fixed, evenly spread part of the target's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._cheaper import Cheaper, grow_chain, layered
from treille.drafters._checks import at_least, between
from treille.drafters._siblings import Draws
from treille.drafters.base import Drafter, drafter
from treille.errors import ParameterError
from treille.requests import Layers

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


def kept_layers(layers: int, speedup: float) -> list[int]:
    """The layers that stay: floor(L / speedup) of them, the first, the last, and multiples of one interval.

    Raises:
        ParameterError: fewer than two would stay.
    """
    count = int(layers / speedup)
    if count < 2:
        raise ParameterError(
            f"draft: speedup={speedup:g} leaves {count} of {layers} layers, at least 2 are needed; give at most "
            f"{layers / 2:g}"
        )
    interval = layers // (count - 1)
    between_ends = [layer for layer in range(1, layers - 1) if layer % interval == 0][: count - 2]
    return [0, *between_ends, layers - 1]


@drafter(
    paper="Liu, Meng and Zhou 2024, Unified Layer Skipping, arXiv:2404.06954",
    cost="k passes of L / speedup of the target's layers, with its head, and k rows of the target per step",
)
class layer_skip(Drafter):  # noqa: N801 - one name in five places
    """Unified layer skipping: the target without every n-th layer drafts, the whole target verifies.

    The paper decodes with the shallower model alone, which is another law (`strategy="lossy_layer_skip"`).

    Args:
        host: where it runs.
        speedup: floor(L / speedup) layers stay; the head is not made cheaper.
        k: tokens drafted at the most.
        threshold: a draft ends with the token at which the largest probability was below it.
    """

    def __init__(self, host: Host, speedup: float = 2.0, k: int = 4, threshold: float = 0.0) -> None:
        super().__init__(host)
        at_least(1, k=k, speedup=speedup)
        between(0, 1, threshold=threshold)
        count = layered(host, "layer_skip", least=3).layers
        self.layers = Layers.without(set(range(count)) - set(kept_layers(count, speedup)))
        self.k = k
        self.threshold = threshold

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain of up to k tokens."""
        tree = DraftTree(node)
        draws = Draws(run.random, node.length)
        source = Cheaper(run, "target", draws, layers=self.layers, since=node.length - 1)
        yield from grow_chain(run, tree, source, budget.rows, min(self.k, budget.depth), self.threshold)
        return tree
