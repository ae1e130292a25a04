"""Candidates for a draft tree with their scores, and the best tree of so many nodes among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.draft_tree import DraftTree
    from treille.drafters._siblings import Siblings
    from treille.tree import Node


class Candidates:
    """A tree of remembered tokens; only those that a draft model reads become nodes.

    Attributes:
        parents: index of each candidate's parent, `[N + 1]`; 0 is the root.
        tokens: `[N + 1]`.
        scores: probability of its path under the draft, never above its parent's, `[N + 1]`.
    """

    def __init__(self, root: Node) -> None:
        self.parents = [-1]
        self.tokens = [-1]
        self.scores = [1.0]
        self._nodes: dict[int, Node] = {0: root}

    def add(self, parent: int, token: int, score: float) -> int:
        """Remember a token; its index."""
        self.parents.append(parent)
        self.tokens.append(token)
        self.scores.append(min(score, self.scores[parent]))
        return len(self.tokens) - 1

    def node(self, index: int) -> Node:
        """The candidate's node, made when it is asked for first."""
        if index not in self._nodes:
            self._nodes[index] = self.node(self.parents[index]).child(self.tokens[index])
        return self._nodes[index]

    def extend(self, beam: Sequence[int], found: Sequence[Siblings], k: int) -> list[int]:
        """Remember the siblings found under each of `beam`; the k best of them are the next beam."""
        added = []
        for parent, siblings in zip(beam, found, strict=True):
            while not siblings.empty:
                score = self.scores[parent] * float(siblings.left)
                token, probability = siblings.take()
                added.append(self.add(parent, token, score * float(probability)))
        return sorted(added, key=lambda i: (-self.scores[i], i))[:k]

    def best(self, rows: int) -> list[int]:
        """The `rows` candidates of the highest scores, parents before their children.

        Whoever is chosen has its parent chosen: no score is above the parent's, and among equals (a draft that is
        certain) the earlier candidate, hence the parent, goes first.
        """
        order = sorted(range(1, len(self.tokens)), key=lambda i: (-self.scores[i], i))
        return sorted(order[:rows])

    def plant(self, tree: DraftTree, chosen: Sequence[int]) -> None:
        """Hang the chosen candidates into `tree`, in which they keep the nodes they have."""
        index = {0: 0}
        for i in chosen:
            index[i] = tree.add(index[self.parents[i]], self.tokens[i], node=self._nodes.get(i))
