"""S2D: a draft model with several exits; every token leaves at the first one that is sure enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._cheaper import Cheaper, exits_of
from treille.drafters._checks import at_least, between
from treille.drafters._models import draft_shape
from treille.drafters._siblings import Chosen, Draws, is_open
from treille.drafters.base import Drafter, drafter
from treille.errors import ParameterError
from treille.requests import Layers

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from treille.drafters._siblings import Siblings
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Kavehzadeh et al. 2024, S2D, arXiv:2407.01955; Valipour et al. 2023, SortedNet, arXiv:2309.00255",
    cost="per drafted token one pass of the draft model up to each exit that is tried, and one row of the target",
)
class s2d(Drafter):  # noqa: N801 - one name in five places
    """S2D: nested draft models of different depth in one set of weights, chosen for every token.

    A token is read off at the first exit whose largest probability is above its threshold; the last exit always emits.
    Its law is that of the exit used. The draft model should be trained to be read off at its exits (SortedNet).

    Args:
        host: where it runs.
        k: tokens drafted at the most.
        exits: numbers of layers of the draft model, ascending; None: a half, three quarters, all.
        thresholds: for every exit but the last.
        model: the draft model's name.
    """

    def __init__(
        self,
        host: Host,
        k: int = 4,
        exits: list[int] | None = None,
        thresholds: list[float] | None = None,
        model: str = "nested",
    ) -> None:
        super().__init__(host)
        at_least(1, k=k)
        shape = draft_shape(host, model)
        if not shape.layer_access:
            raise ParameterError(
                f"draft='s2d': model={model!r} gives no access to its layers; take draft='draft_model'"
            )
        usual = sorted({max(1, shape.layers // 2), max(1, 3 * shape.layers // 4), shape.layers})
        self.exits = exits_of("exits", shape.layers, exits, usual)
        self.thresholds = _thresholds(thresholds, len(self.exits) - 1)
        self.k = k
        self.model = model
        self.context = shape.context_length

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain of up to k tokens."""
        tree, last = DraftTree(node), 0
        draws = Draws(run.random, node.length)
        # The prompt is read whole, once; a later token has rows of its exit until a token below it goes deeper.
        sources = [
            Cheaper(run, self.model, draws, layers=Layers(stop), since=run.tip.length - 1) for stop in self.exits
        ]
        for _ in range(min(self.k, budget.rows, budget.depth, self.context - node.length)):
            if not is_open(run, tree, last):
                break
            siblings = yield from self._read(tree.nodes[last], sources)
            if siblings.empty:
                break
            last = tree.add(last, siblings.take()[0], siblings.law)
        return tree

    def _read(self, node: Node, sources: Sequence[Cheaper]) -> Generator[Request, Any, Siblings]:
        """What the first exit that is sure enough says."""
        siblings: Siblings = Chosen((), ())
        for source, threshold in zip(sources, (*self.thresholds, 0.0), strict=True):
            confidence, siblings = yield from source.read(node, 1)
            if confidence > threshold:
                break
        return siblings


def _thresholds(given: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One threshold for every exit but the last, one half each by default."""
    chosen = tuple([0.5] * count if given is None else given)
    if len(chosen) != count:
        raise ParameterError(
            f"draft: thresholds={given}: {count} are needed, one for every exit but the last; give as many"
        )
    for threshold in chosen:
        between(0, 1, thresholds=threshold)
    return chosen
