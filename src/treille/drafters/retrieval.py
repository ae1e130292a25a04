"""Retrieval: draft what most often followed the last tokens in a datastore of documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least, between
from treille.drafters._datastore import ORDER, Datastore, most_frequent
from treille.drafters.base import Lookup, drafter

if TYPE_CHECKING:
    from treille.drafters.base import Budget, Host
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="He et al. 2024, REST, arXiv:2311.08252",
    cost="up to `nodes` rows; a binary search of a datastore, which is mapped from disk; no memory per run",
)
class retrieval(Lookup):  # noqa: N801 - one name in five places
    """Retrieval (REST): the most frequent continuations, in a datastore, of the longest end of the text found there."""

    def __init__(
        self,
        host: Host,
        datastore: str = "",
        nodes: int = 16,
        k: int = 10,
        longest: int = 16,
        shortest: int = 2,
        hits: int = 1000,
    ) -> None:
        super().__init__(host)
        at_least(1, nodes=nodes, k=k, shortest=shortest, hits=hits)
        between(shortest, ORDER, longest=longest)
        self.nodes = nodes
        self.k = k
        self.longest = longest
        self.shortest = shortest
        self.hits = hits
        self._store = Datastore.open(datastore, host)

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """The trie of the most frequent continuations."""
        rows = self._store.continuations(
            node.path, longest=self.longest, shortest=self.shortest, length=min(self.k, budget.depth), most=self.hits
        )
        tree = DraftTree(node)
        guess = most_frequent(rows, self.host.target.vocab_size, min(self.nodes, budget.rows))
        guess.plant(tree, run.limits.eos_token_ids, budget.rows)
        return tree
