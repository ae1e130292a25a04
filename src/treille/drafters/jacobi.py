"""Jacobi decoding: guess a window of tokens, and replace each guess by what the target says after the earlier ones."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least
from treille.drafters._windows import chain, filler
from treille.drafters.base import Lookup, drafter
from treille.requests import Argmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.draft_tree import Law
    from treille.drafters.base import Budget, Host, Observation
    from treille.strategy import Run
    from treille.tree import Node


@drafter(paper="Santilli et al. 2023 (ACL), arXiv:2305.10427", cost="`window` rows of the target in every step")
class jacobi(Lookup):  # noqa: N801 - one name in five places
    """Jacobi decoding: drafts a chain of the target's own picks after the last step's chain, right or wrong."""

    def __init__(self, host: Host, window: int = 8) -> None:
        super().__init__(host)
        at_least(1, window=window)
        self.window = window
        self._drafted: Sequence[int] = ()  # the last window
        self._answers: Sequence[Any] = ()  # of the target, for the positions after the text
        self.wants = (Argmax(),)

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """The picks of the last step beyond the text, then tokens of the text where there is none yet."""
        # Rejection accepts a chosen token with its probability, which is highest for the likeliest one.
        self.wants = (Argmax() if run.rejecting else run.choose,)
        tree, ends = DraftTree(node), run.limits.eos_token_ids
        for at in range(min(self.window, budget.rows, budget.depth)):
            if at < len(self._answers):
                token, law = self._guess(run, self._answers[at], node.length, at)
            else:
                token, law = filler(node.path, node.length + at, ends), None
            tree.add(at, token, law)
            if token in ends:
                break
        self._drafted = tree.path(tree.size)
        return tree

    def _guess(self, run: Run, answer: Any, position: int, at: int) -> tuple[int, Law | None]:  # noqa: ARG002
        """The token for place `at` of the window, and the law that it was drawn from."""
        return answer.token, None

    def observe(self, seen: Observation) -> None:
        """Keep the answers at the window's nodes that stand where the next window does, beyond the new text."""
        self._answers = ()
        if seen.tree is not None:
            told = [seen.readings[at] for at in chain(seen.tree, self._drafted)[len(seen.accepted) :]]
            self._answers = [reading[0] for reading in itertools.takewhile(bool, told) if reading]
