"""The draft tree: proposed tokens under a node, in the order in which they are tried, with the law of each draw.

Nodes are ordinary nodes of the token tree, so a draft model's KV, the target's KV and the accepted text all hang on the
same objects: what is accepted stays, what is rejected is dropped with its last reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from treille.tree import Node


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """The law that siblings were drawn from, one after the other.

    Attributes:
        q: `[V]` probabilities (float64, or exact fractions in tests): exactly those of the draw, after every processor,
            truncation and trimming that it was made with.
        replacement: True: every sibling is a draw from `q` (they may repeat). False: the k-th is a draw from `q`
            without its earlier siblings, renormalised.
    """

    q: NDArray[Any]
    replacement: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One try to accept a token under a node.

    Attributes:
        token: the proposed token.
        index: its node in the tree; None for a token that was drawn but is not computed, because the target's
            probability of it is known to be zero, or because it can wait for the next step; accepted, it ends the walk.
        law: what it was drawn from; None: it was chosen, not drawn (its law is one-hot).
    """

    token: int
    index: int | None
    law: Law | None


class DraftTree:
    """Nodes 0 … N: 0 is the node the tree hangs under, parents come before their children.

    Attributes:
        nodes: the nodes, `[N + 1]`.
        parents: index of each node's parent, -1 for the root, `[N + 1]`.
        depths: number of tokens below the root, `[N + 1]`.
        trials: per node, the tokens tried under it, in the order of their draws. Deterministic ones come first.
    """

    __slots__ = ("_children", "depths", "nodes", "parents", "trials")

    def __init__(self, root: Node) -> None:
        self.nodes: list[Node] = [root]
        self.parents: list[int] = [-1]
        self.depths: list[int] = [0]
        self.trials: list[list[Trial]] = [[]]
        self._children: list[dict[int, int]] = [{}]

    @property
    def size(self) -> int:
        """N, the number of drafted nodes: the rows that verification adds to a plain step."""
        return len(self.nodes) - 1

    @property
    def depth(self) -> int:
        """Length of the longest draft."""
        return max(self.depths)

    @property
    def first_leaf(self) -> int:
        """Index of the node where the path that is tried first ends."""
        at = 0
        while self._children[at]:
            at = next(iter(self._children[at].values()))
        return at

    @property
    def sampled(self) -> bool:
        """Whether any token was drawn from a law."""
        return any(trial.law is not None for trials in self.trials for trial in trials)

    def add(self, parent: int, token: int, law: Law | None = None, node: Node | None = None) -> int:
        """Index of the node for `token` under `parent`; a token that is there already is computed once.

        A chosen token that is there already changes nothing; a repeated draw with replacement is one more trial.
        `node`: the token's node if there is one already, e.g. one that a draft model has computed.
        """
        known = self._children[parent].get(token)
        if known is not None:
            assert law is None or law.replacement, "a draw without replacement cannot repeat a sibling"
            if law is not None:
                self.trials[parent].append(Trial(token, known, law))
            return known
        index = len(self.nodes)
        self.nodes.append(self.nodes[parent].child(token) if node is None else node)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.trials.append([])
        self._children.append({})
        self._children[parent][token] = index
        trials = self.trials[parent]
        assert law is not None or not trials or trials[-1].law is None, "chosen tokens are tried before drawn ones"
        trials.append(Trial(token, index, law))
        return index

    def reject(self, parent: int, token: int, law: Law) -> None:
        """Note a draw that cannot be accepted, because the target gives it no probability: tried, never computed."""
        self.trials[parent].append(Trial(token, None, law))

    def add_chain(self, tokens: Sequence[int], parent: int = 0) -> int:
        """Index of the last node of `tokens` hung one below the other under `parent`."""
        for token in tokens:
            parent = self.add(parent, int(token))
        return parent

    def child(self, parent: int, token: int) -> int | None:
        """Index of the node for `token` under `parent`, None if it was not drafted."""
        return self._children[parent].get(token)

    def children(self, parent: int) -> Sequence[int]:
        """Indices of the nodes under `parent`, in the order they were added."""
        return list(self._children[parent].values())

    def cut(self, computed: Callable[[Node], bool]) -> DraftTree:
        """The tree without the nodes that need not be computed and what hangs below them.

        Such a node ends the text, or the target gives it no probability. A drawn one stays as a trial, because its
        rejection changes what is left for its siblings.
        """
        whole = DraftTree(self.nodes[0])
        places = {0: 0}
        for index in range(1, len(self.nodes)):
            above = places.get(self.parents[index])
            if above is not None and computed(self.nodes[index]):
                places[index] = len(whole.nodes)
                whole.nodes.append(self.nodes[index])
                whole.parents.append(above)
                whole.depths.append(self.depths[index])
                whole.trials.append([])
                whole._children.append({})
                whole._children[above][self.nodes[index].token] = places[index]
        for index, place in places.items():
            for trial in self.trials[index]:
                at = None if trial.index is None else places.get(trial.index)
                if at is not None or trial.law is not None or trial.index is None:
                    whole.trials[place].append(Trial(trial.token, at, trial.law))
        return whole

    def path(self, index: int) -> list[int]:
        """The drafted tokens from below the root to node `index`."""
        tokens: list[int] = []
        while index > 0:
            tokens.append(self.nodes[index].token)
            index = self.parents[index]
        return tokens[::-1]

    def __repr__(self) -> str:
        return f"DraftTree(size={self.size}, depth={self.depth})"
