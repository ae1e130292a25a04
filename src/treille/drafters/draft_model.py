"""Speculative decoding with a draft model: a chain of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree, Law
from treille.drafters._checks import at_least
from treille.drafters._models import draft_shape
from treille.drafters.base import Drafter, drafter
from treille.requests import Argmax, Forward, Probabilities, Sample

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318",
    cost="k passes of the draft model and k rows of the target per step",
)
class draft_model(Drafter):  # noqa: N801 - one name in five places
    """Draft model, chain: a small model decodes k tokens ahead, drawn from its own law or picked greedily."""

    def __init__(self, host: Host, k: int = 4, model: str = "draft") -> None:
        super().__init__(host)
        at_least(1, k=k)
        self.k = k
        self.model = model
        self.context = draft_shape(host, model).context_length

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain. With verification by rejection every token carries the law it was drawn from."""
        tree, last = DraftTree(node), 0
        most = min(self.k, budget.rows, budget.depth, self.context - node.length)
        for draw in range(most):
            at = tree.nodes[last]
            if run.rejecting:
                ((q,),) = yield Forward((at,), (Probabilities(),), model=self.model)
                token = run.random.categorical(tuple(q), node.length, "draft", draw)
                last = tree.add(last, token, Law(q))
            else:
                # With the target's own noise: under Gumbel noise the two agree most often.
                want = Sample(run.random, run.gumbel) if run.do_sample else Argmax()
                ((choice,),) = yield Forward((at,), (want,), model=self.model)
                token = choice.token
                last = tree.add(last, token)
            if token in run.limits.eos_token_ids:
                break
        return tree
