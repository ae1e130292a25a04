"""Prompt lookup: draft what followed the last tokens where they stood before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least, one_of
from treille.drafters._ngrams import NgramIndex, up_to_end
from treille.drafters.base import Lookup, drafter

if TYPE_CHECKING:
    from treille.drafters.base import Budget, Host, Observation
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding",
    cost="k rows where the last tokens stood before, none elsewhere; one index entry per token and n-gram size",
)
class prompt_lookup(Lookup):  # noqa: N801 - one name in five places
    """Prompt lookup: drafts the k tokens that followed the last n-gram where it stood before in the text."""

    def __init__(
        self,
        host: Host,
        n_max: int = 3,
        n_min: int = 1,
        k: int = 10,
        pick: Literal["latest", "earliest"] = "latest",
    ) -> None:
        super().__init__(host)
        at_least(1, n_min=n_min, k=k)
        at_least(n_min, n_max=n_max)
        one_of(("latest", "earliest"), pick=pick)
        self.k = k
        self.latest = pick == "latest"
        self._index = NgramIndex(range(n_max, n_min - 1, -1))

    def observe(self, seen: Observation) -> None:
        """Index the new n-grams."""
        self._index.extend(seen.text, seen.start)

    def truncate(self, length: int) -> None:
        """Forget the n-grams that end beyond `length`."""
        self._index.truncate(length)

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """The tokens after the longest n-gram that stood before."""
        tree = DraftTree(node)
        most = min(self.k, budget.rows, budget.depth)
        tree.add_chain(up_to_end(self._index.continuation(most, latest=self.latest), run.limits.eos_token_ids))
        return tree
