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
        self._guesses: Sequence[int] = ()  # the target's picks for the positions after the text

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """The picks of the last step beyond the text, then tokens of the text where there is none yet."""
        # Rejection accepts a chosen token with its probability, which is highest for the likeliest one.
        self.wants = (Argmax() if run.rejecting else run.choose,)
        tree, ends = DraftTree(node), run.limits.eos_token_ids
        for at in range(min(self.window, budget.rows, budget.depth)):
            known = at < len(self._guesses)
            token = self._guesses[at] if known else filler(node.path, node.length + at, ends)
            tree.add(at, token)
            if token in ends:
                break
        self._drafted = tree.path(tree.size)
        return tree

    def observe(self, seen: Observation) -> None:
        """Keep the picks at the nodes beyond the new text: they stand where the next window does."""
        self._guesses = [reading[0].token for reading in self._beyond(seen)]

    def _beyond(self, seen: Observation) -> Sequence[Any]:
        """The target's answers at the window's nodes from the one on that took the place of the text's last token."""
        if seen.tree is None:
            return ()
        told = [seen.readings[at] for at in chain(seen.tree, self._drafted)[len(seen.accepted) :]]
        return list(itertools.takewhile(lambda reading: reading is not None, told))
