"""SpecDec++: a chain that ends where a rejection has become likely."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from treille.draft_tree import DraftTree
from treille.drafters._checks import between, one_of
from treille.drafters._siblings import TreeDrafter, is_open
from treille.drafters.base import drafter
from treille.errors import ParameterError
from treille.requests import Forward, Probabilities

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node

GAMMA = 0.2  # of the entropy bound, as in AdaEDL


@drafter(
    paper="Huang et al. 2024, SpecDec++, arXiv:2405.19715; Agrawal et al. 2024, AdaEDL, arXiv:2410.18351",
    cost="least to most passes of the draft model, and as many rows of the target, per step",
)
class specdec_pp(TreeDrafter):  # noqa: N801 - one name in five places
    """SpecDec++: a draft model's chain, ended when P(some token of it is rejected) exceeds a threshold.

    The paper estimates each token's acceptance by a trained head. Two estimates need no training: the draft's largest
    probability, and a bound by its entropy. They decide whether one more token is drawn, never whether a drawn one is
    kept.

    Args:
        host: where it runs.
        threshold: h: stop when 1 - (product of the estimates) is above it.
        least: tokens drafted in any case.
        most: tokens drafted at the most.
        estimate: `max`: the largest q; `entropy`: 1 - sqrt(0.2 H(q)), H in nats.
        model: name of the draft model.
        keep: tokens it may propose (see `vocab_trim`).
    """

    def __init__(
        self,
        host: Host,
        threshold: float = 0.7,
        least: int = 1,
        most: int = 12,
        estimate: Literal["max", "entropy"] = "max",
        model: str = "draft",
        keep: Keep = None,
    ) -> None:
        super().__init__(host, model, keep)
        between(0, 1, threshold=threshold)
        for name, value, smallest in (("least", least, 1), ("most", most, least)):
            if value < smallest:
                raise ParameterError(f"draft: {name}={value}: must be at least {smallest}")
        one_of(("max", "entropy"), estimate=estimate)
        self.threshold = threshold
        self.least = least
        self.most = most
        self.estimate = estimate

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain."""
        tree, source = DraftTree(node), self.source(run, node)
        accepted, last = 1.0, 0
        for drafted in range(min(self.most, budget.rows, self.depth(node, budget))):
            if not is_open(run, tree, last) or (drafted >= self.least and 1 - accepted > self.threshold):
                break
            (answer,) = yield Forward((tree.nodes[last],), (Probabilities(),), model=self.model, may_fail=True)
            if isinstance(answer, Exception):  # no token is allowed there
                break
            siblings = source.of_law(tree.nodes[last], answer[0], 1)
            if siblings.empty:
                break
            last = tree.add(last, siblings.take()[0], siblings.law)
            accepted *= self.acceptance(answer[0])
        return tree

    def acceptance(self, q: NDArray[Any]) -> float:
        """Estimated probability that a token of the draft's law `q`, `[V]`, is accepted."""
        if self.estimate == "max":
            return float(q.max())
        known = q[q > 0].astype(np.float64)
        return float(max(0.0, 1 - np.sqrt(GAMMA * -(known * np.log(known)).sum())))
