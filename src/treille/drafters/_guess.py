"""Tokens that may come next, as a tree with the probability of every path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from treille.draft_tree import DraftTree


@dataclass(slots=True)
class Guess:
    """Tokens that may come next; parents stand before their children and are at least as probable.

    Attributes:
        tokens: `[N]`.
        parents: index of each token's parent, -1 for a first one, `[N]`.
        probabilities: of the whole path down to each token, `[N]`.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)

    def add(self, parent: int, token: int, probability: float) -> int:
        """Index of one more token."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.probabilities.append(probability)
        return len(self.tokens) - 1

    @property
    def score(self) -> float:
        """Expected number of tokens that are right."""
        return sum(self.probabilities)

    def weighted(self, first: Mapping[int, float]) -> Guess:
        """The same, every path's probability times that of its first token in `first` (1 where it has none)."""
        weights: list[float] = []
        for parent, token in zip(self.parents, self.tokens, strict=True):
            weights.append(first.get(token, 1.0) if parent < 0 else weights[parent])
        scores = [p * weight for p, weight in zip(self.probabilities, weights, strict=True)]
        guess, index = Guess(), {-1: -1}
        for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):  # on ties the parent stands first
            index[i] = guess.add(index[self.parents[i]], self.tokens[i], scores[i])
        return guess

    def plant(self, tree: DraftTree, ends: Container[int], rows: int) -> None:
        """Hang the tokens under the root of `tree` until it has `rows` nodes; nothing comes after one of `ends`."""
        index: dict[int, int] = {-1: 0}
        for i, (parent, token) in enumerate(zip(self.parents, self.tokens, strict=True)):
            above = index.get(parent)
            if above is None or (tree.size >= rows and tree.child(above, token) is None):
                continue
            added = tree.add(above, token)
            if token not in ends:
                index[i] = added
