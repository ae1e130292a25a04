"""Speculative Jacobi decoding: a Jacobi window for sampling, each guess drawn from a law that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import Law
from treille.drafters.base import drafter
from treille.drafters.jacobi import jacobi
from treille.requests import Choice, Probabilities

if TYPE_CHECKING:
    from treille.draft_tree import DraftTree
    from treille.drafters.base import Budget, Host
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

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """A draw from every law of the last step beyond the text, then tokens of the text."""
        tree = super().lookup(run, node, budget)
        if run.rejecting:
            self.wants = (Probabilities(),)
        return tree

    def _guess(self, run: Run, answer: Any, position: int, at: int) -> tuple[int, Law | None]:
        """A draw from a law of the last step.

        Draws are made here, afresh for every step and place, so they depend neither on each other nor on what was
        accepted: given all that is known before it, a token's law is the one it was drawn from, and rule V3 holds.
        """
        if not run.rejecting or isinstance(answer, Choice):
            return super()._guess(run, answer, position, at)
        return run.random.categorical(answer, position, "draft", at), Law(answer)
