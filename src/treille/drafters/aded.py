"""ADED: draft a tree that a Monte Carlo search finds in tri-grams which follow the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least
from treille.drafters._datastore import Datastore
from treille.drafters._learning import Learning, fits
from treille.drafters._trigrams import NOWHERE, Trigrams
from treille.drafters.base import drafter

if TYPE_CHECKING:
    from treille.drafters.base import Budget, Host, Observation
    from treille.strategy import Run
    from treille.tree import Node

GAIN = 0.56
"""Weight that a sight of a tri-gram adds: 0.04 for each of the 14 windows of 16 tokens that it stands in."""


@drafter(
    paper="Liu, Lei et al. 2025 (AAAI), arXiv:2407.12021",
    cost="a search of some 0.1 ms and the rows of the budget in every step; about 150 bytes per pair of tokens",
)
class aded(Learning[Trigrams]):  # noqa: N801 - one name in five places
    """ADED: drafts the paths that a Monte Carlo tree search visits most, in tri-grams learned from the text."""

    def __init__(
        self,
        host: Host,
        datastore: str = "",
        iterations: int = 150,
        depth: int = 4,
        paths: int = 24,
        exploration: float = 32.0,
        damping: float = 8.0,
        successors: int = 12,
        gain: float = GAIN,
        cap: float = 3.0,
        warm: bool = True,
    ) -> None:
        from treille.drafters._mcts import search  # numba is slow to import

        at_least(1, iterations=iterations, depth=depth, paths=paths, successors=successors)
        at_least(0, exploration=exploration)
        at_least(1e-6, damping=damping, gain=gain, cap=cap)
        self.successors, self.gain, self.cap, self.paths = successors, gain, cap, paths
        self._search = search
        self._how = iterations, depth, exploration, damping
        self.datastore = datastore
        super().__init__(host, f"aded:{datastore},{successors},{cap}", warm=warm)

    def empty(self) -> Trigrams:
        """The tri-grams of the datastore, none without one."""
        if not self.datastore:
            return Trigrams(self.successors, self.cap)
        key = f"aded: corpus {self.datastore},{self.successors},{self.cap}"
        if key not in self.host.memory:
            texts = (chunk.tokens for chunk in Datastore.open(self.datastore, self.host).chunks)
            size = self.host.target.vocab_size
            self.host.memory[key] = Trigrams.counted(texts, size, self.successors, self.cap)
        corpus: Trigrams = self.host.memory[key]
        return corpus.copy()

    def observe(self, seen: Observation) -> None:
        """Every tri-gram of the text is counted once, when its last token is committed."""
        self.table.read(seen.text[max(0, seen.start - 2) :], self.gain)

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """The most visited paths, and each of them longer by its heaviest successor while there are rows."""
        if self.separate(run):
            self.table.read(node.path, self.gain)
        tree, path = DraftTree(node), node.path
        start = self.table.row(int(path[-2]), int(path[-1])) if len(path) > 1 else NOWHERE
        if start == NOWHERE:
            return tree
        # Any seed will do that is the same in every run; the run's own randomness is the target's.
        nodes = self._search(self.table.weights, self.table.links, start, *self._how, node.length)
        index = {0: 0}  # of the tree, by node of the search
        # Parents are visited at least as often as their children, and stand before them.
        for at in (1 + np.argsort(-nodes[1:, -1], kind="stable")[: self.paths]).tolist():
            parent, place, *_, visits = nodes[at].tolist()
            if visits and parent in index and fits(tree, index[parent], run, budget):
                index[at] = tree.add(index[parent], int(self.table.tokens[nodes[parent, 2], place]))
        for at, above in index.items():
            if at and fits(tree, above, run, budget) and (best := self.table.heaviest(int(nodes[at, 2]))) is not None:
                tree.add(above, best)
        return tree
