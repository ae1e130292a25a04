"""Token Recycling: draft a tree from the candidates that the target computed and did not take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from treille.draft_tree import DraftTree
from treille.drafters._checks import between
from treille.drafters._learning import Learning, fits
from treille.drafters._templates import REFERENCE, Template, template_paths
from treille.drafters.base import drafter
from treille.requests import TopK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from treille.drafters._templates import Filled
    from treille.drafters.base import Budget, Host, Observation
    from treille.strategy import Run
    from treille.tree import Node

UNSET = -1


class Candidates:
    """What tends to follow each token, best first.

    Attributes:
        after: int32 `[V, k]`, `UNSET` beyond what is known.
        given: bool `[V]`: whether the target gave the row, rather than the text.
        template: the shape of the trees, ordered by how often its nodes are accepted.
    """

    def __init__(self, vocab_size: int, k: int, template: Any) -> None:
        self.after = np.full((vocab_size, k), UNSET, np.int32)
        self.given = np.zeros(vocab_size, np.bool_)
        self.template = Template(template_paths(template, k))

    def read(self, tokens: NDArray[Any]) -> None:
        """Until the target has said something of a token, its latest successors in the text stand in."""
        for token, successor in zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True):
            if not self.given[token]:
                row = self.after[token]
                others = row[row != successor][: len(row) - 1]
                row[1 : len(others) + 1] = others
                row[0] = successor

    def learn(self, tokens: Sequence[int], tops: Sequence[Sequence[int]]) -> None:
        """`after[token] = top` for each pair in order: of several for one token, the last is kept."""
        k = self.after.shape[1]
        rows = [(*top, *[UNSET] * (k - len(top))) for top in tops]
        self.after[list(tokens)] = rows  # numpy assigns repeated indices in order
        self.given[list(tokens)] = True


@drafter(
    paper="Luo et al. 2025 (ACL), arXiv:2408.08696",
    cost="the rows of the template or of the budget in every step; k token ids per vocabulary entry",
)
class token_recycling(Learning[Candidates]):  # noqa: N801 - one name in five places
    """Token Recycling: drafts a tree of what the target last held likely after each token, rejected tokens included."""

    def __init__(self, host: Host, k: int = 8, template: Any = REFERENCE, warm: bool = True) -> None:
        between(1, 64, k=k)  # a table of k successors per token of the vocabulary
        self.k = k
        self.template = template
        super().__init__(host, f"token_recycling:{k},{template}", warm=warm)
        self.wants = (TopK(k),)
        self._filled: list[Filled] = []

    def empty(self) -> Candidates:
        """No candidates for any token."""
        return Candidates(self.host.target.vocab_size, self.k, self.template)

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """The template, filled rank by rank; nodes without a candidate vanish with all below them."""
        if self.separate(run):
            self.table.read(node.path)
        tree, after = DraftTree(node), self.table.after
        index = {-1: 0}  # by node of the template
        self._filled = []
        for place, parent, rank in self.table.template:
            above = index.get(parent)
            if above is None or not fits(tree, above, run, budget):
                continue
            candidate = int(after[tree.nodes[above].token, rank])
            if candidate != UNSET:
                index[place] = tree.add(above, candidate)
                self._filled.append((place, parent, candidate))
        return tree

    def observe(self, seen: Observation) -> None:
        """Every verified node's candidates; accepted nodes go last, so that theirs are kept."""
        if seen.tree is None:
            self.table.read(seen.text[max(0, seen.start - 1) :])
            return
        kept = (0, *seen.accepted)
        order = [at for at in range(len(seen.tree.nodes)) if at not in kept]
        told = [
            (seen.tree.nodes[at].token, reading[0].tokens) for at in (*order, *kept) if (reading := seen.readings[at])
        ]
        if told:
            self.table.learn(*zip(*told, strict=True))
        self.table.template.count(self._filled, seen.tree, seen.accepted)
