"""RASD: the tree of a draft model, with retrieved continuations grafted onto it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from treille.draft_tree import DraftTree
from treille.drafters._best_nodes import Candidates
from treille.drafters._checks import at_least, between
from treille.drafters._datastore import ORDER, Datastore, most_frequent
from treille.drafters._siblings import TreeDrafter
from treille.drafters.base import drafter

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.drafters._guess import Guess
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Quan et al. 2025, RASD, arXiv:2503.03434; the tree of Li et al. 2024, EAGLE-2, arXiv:2406.16858",
    cost="up to `depth` passes of k rows of the draft model, a search of a datastore, up to `rows` rows of the target",
)
class rasd(TreeDrafter):  # noqa: N801 - one name in five places
    """RASD: a draft model's dynamic tree fused with the retrieved continuations that the draft model finds possible.

    All nodes are chosen, not drawn, whatever the verification.
    """

    def __init__(
        self,
        host: Host,
        datastore: str = "",
        rows: int = 24,
        share: float = 0.5,
        k: int = 4,
        depth: int = 5,
        first: int = 10,
        length: int = 10,
        longest: int = 16,
        shortest: int = 2,
        hits: int = 1000,
        model: str = "draft",
    ) -> None:
        super().__init__(host, model)
        at_least(1, rows=rows, k=k, depth=depth, first=first, length=length, shortest=shortest, hits=hits)
        between(0, 1, share=share)
        between(shortest, ORDER, longest=longest)
        self.rows = rows
        self.share_of_model = share
        self.k = k
        self.levels = depth
        self.first = first
        self.length = length
        self.longest = longest
        self.shortest = shortest
        self.hits = hits
        self._store = Datastore.open(datastore, host)

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """The draft model's best nodes, then the retrieved ones by their score; rows left over are the model's."""
        rows = min(self.rows, budget.rows)
        found = yield from self._beam_search(run, node, budget)
        guess = self._retrieved(node, budget, found, rows)
        tree = DraftTree(node)
        own = round(self.share_of_model * rows)
        found.plant(tree, found.best(own))
        guess.plant(tree, run.limits.eos_token_ids, rows)
        while tree.size < rows and own < len(found.tokens):  # what both proposed is computed once
            own += rows - tree.size
            found.plant(tree, found.best(own))
        return tree

    def _beam_search(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, Candidates]:
        """What the draft model remembers of a beam search of width k."""
        source = self.source(run, node, chosen=True)
        found, beam, width = Candidates(node), [0], self.first
        for _ in range(min(self.levels, self.depth(node, budget))):
            answers = yield from source.siblings([found.node(i) for i in beam], width)
            beam = found.extend(beam, answers, self.k)
            beam = [i for i in beam if found.tokens[i] not in run.limits.eos_token_ids]
            width = self.k
            if not beam:
                break
        return found

    def _retrieved(self, node: Node, budget: Budget, found: Candidates, rows: int) -> Guess:
        """Continuations whose first token is among the draft model's, by its probability times their frequency."""
        continuations = self._store.continuations(
            node.path, longest=self.longest, shortest=self.shortest, length=min(self.length, budget.depth),
            most=self.hits,
        )  # fmt: skip
        q = {t: s for t, parent, s in zip(found.tokens, found.parents, found.scores, strict=True) if parent == 0}
        if q:  # the draft model has nothing to say of a text beyond its context
            continuations = continuations[np.isin(continuations[:, 0], list(q))]
        return most_frequent(continuations, self.host.target.vocab_size, rows).weighted(q)
