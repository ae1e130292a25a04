"""STAND: draft a tree from n-gram laws averaged over what the target said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from treille.draft_tree import DraftTree, Law
from treille.drafters._checks import at_least
from treille.drafters._learning import Learning, fits
from treille.drafters._ngram_laws import Laws, likeliest, ordered
from treille.drafters.base import drafter
from treille.requests import Probabilities, TopK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from treille.drafters._ngram_laws import Entry
    from treille.drafters._templates import Filled
    from treille.drafters.base import Budget, Host, Observation
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Song et al. 2025 (EMNLP), arXiv:2506.04708",
    cost="the rows of the template or of the budget in every step; about 1 KB per n-gram kept",
)
class stand(Learning[Laws]):  # noqa: N801 - one name in five places
    """STAND: drafts a tree drawn from n-gram laws, the target's own averaged over earlier steps and branches."""

    def __init__(
        self,
        host: Host,
        n_max: int = 4,
        n_min: int = 1,
        k: int = 10,
        template: Any = 80,
        entries: int = 200_000,
        every_node: bool = True,
        warm: bool = True,
    ) -> None:
        at_least(1, n_min=n_min, k=k, entries=entries)
        at_least(n_min, n_max=n_max)
        self.sizes, self.k, self.entries, self.template = tuple(range(n_max, n_min - 1, -1)), k, entries, template
        super().__init__(host, f"stand:{n_max},{n_min},{k},{template},{entries}", warm=warm)
        self.every_node = every_node
        self.wants = (TopK(k),)
        self._filled: list[Filled] = []
        self._noise: dict[int, NDArray[np.float64]] = {}

    def empty(self) -> Laws:
        """No n-grams."""
        return Laws(self.sizes, self.k, self.entries, self.template)

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """The template, each node's candidates in an order drawn from the law of the longest known n-gram."""
        if self.separate(run):
            self.wants = (Probabilities(),)  # a law that is drawn from has to be exactly the one reported
        tree, index = DraftTree(node), {-1: 0}  # by node of the template
        drawn: dict[int, Iterator[tuple[int, Law | None]] | None] = {}  # by node of the tree
        draws = iter(range(budget.rows))
        self._filled = []
        for place, parent, _ in self.table.template:
            above = index.get(parent)
            if above is None or not fits(tree, above, run, budget):
                continue
            if above not in drawn:
                drawn[above] = self._candidates(run, tree, above, draws)
            candidates = drawn[above]
            if candidates is not None and (candidate := next(candidates, None)) is not None:
                index[place] = tree.add(above, *candidate)
                self._filled.append((place, parent, candidate[0]))
        return tree

    def _candidates(
        self, run: Run, tree: DraftTree, above: int, draws: Iterator[int]
    ) -> Iterator[tuple[int, Law | None]] | None:
        """Candidates under a node in the order they are tried, None if no n-gram that ends there is known."""
        node = tree.nodes[above]
        entry = self.table.find(tuple(node.path[-self.sizes[0] :].tolist()))
        if entry is None:
            return None
        if run.rejecting:
            return self._drawn(run, entry, tree.nodes[0].length, draws)
        noise = self._gumbel(run, node.length) if run.gumbel and run.do_sample else None
        return ((token, None) for token in ordered(run, entry, node.length, noise))

    def _gumbel(self, run: Run, position: int) -> NDArray[np.float64]:
        """The target's noise at a position, drawn once for all nodes and steps."""
        if position not in self._noise:
            self._noise[position] = run.random.gumbel(position, "sample", self.host.target.vocab_size)
        return self._noise[position]

    def _drawn(self, run: Run, entry: Entry, position: int, draws: Iterator[int]) -> Iterator[tuple[int, Law | None]]:
        """Draws without replacement, one at a time, with their law."""
        tokens, weights = list(entry.weights), list(entry.weights.values())
        q = np.zeros(self.host.target.vocab_size, np.float64 if isinstance(weights[0], float) else object)
        q[tokens] = weights
        law = Law(q / q.sum())
        while tokens:
            taken = run.random.categorical(weights, position, "draft", next(draws))
            del weights[taken]
            yield tokens.pop(taken), law

    def observe(self, seen: Observation) -> None:
        """Average the target's laws in, at the accepted nodes or at every node."""
        if seen.tree is None:
            return
        self._noise = {position: noise for position, noise in self._noise.items() if position >= len(seen.text)}
        kept = (0, *seen.accepted)
        for at in range(len(seen.tree.nodes)) if self.every_node else kept:
            reading = seen.readings[at]
            if reading is not None:
                context = tuple(seen.tree.nodes[at].path[-self.sizes[0] :].tolist())
                self.table.learn(context, likeliest(reading[0], self.k))
        self.table.template.count(self._filled, seen.tree, seen.accepted)
