"""Speculative Jacobi decoding: a Jacobi window for sampling, each guess drawn from a law that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree, Law
from treille.drafters._windows import filler
from treille.drafters.base import drafter
from treille.drafters.jacobi import jacobi
from treille.requests import Probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from treille.drafters.base import Budget, Host, Observation
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Teng et al. 2025 (ICLR), arXiv:2410.01699",
    cost="`window` rows of the target in every step, and their laws on the host",
)
class sjd(jacobi):  # noqa: N801 - one name in five places
    """Speculative Jacobi decoding: drafts a chain drawn from the laws that the target gave in the last step.

    For `verification="rejection"`; under `match` and in greedy decoding it is `jacobi`.
    """

    def __init__(self, host: Host, window: int = 16) -> None:
        super().__init__(host, window)
        self._laws: Sequence[NDArray[Any]] = ()  # the target's, for the positions after the text

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """A draw from every law of the last step beyond the text, then tokens of the text.

        The draws are made afresh here, independent of each other and of what was accepted, so the law of each given
        all that is known before it is the one it was drawn from, and rule V3 holds at every position.
        """
        if not run.rejecting:
            return super().lookup(run, node, budget)
        self.wants = (Probabilities(),)
        tree, ends = DraftTree(node), run.limits.eos_token_ids
        for at in range(min(self.window, budget.rows, budget.depth)):
            if at < len(self._laws):
                q = self._laws[at]
                token = run.random.categorical(tuple(q), node.length, "draft", at)
                tree.add(at, token, Law(q))
            else:
                token = filler(node.path, node.length + at, ends)
                tree.add(at, token)
            if token in ends:
                break
        self._drafted = tree.path(tree.size)
        return tree

    def observe(self, seen: Observation) -> None:
        """Keep the laws at the nodes beyond the new text: they stand where the next window does."""
        if self.wants == (Probabilities(),):
            self._laws = [reading[0] for reading in self._beyond(seen)]
        else:
            super().observe(seen)
