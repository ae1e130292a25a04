"""Lookahead decoding: collect n-grams from the trajectories of a Jacobi window, and draft those that fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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


class Pool:
    """The latest `most` continuations of each token, every one of them once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._after: dict[int, dict[tuple[int, ...], None]] = {}  # in the order of last sight

    def add(self, token: int, continuation: Sequence[int]) -> None:
        """Note that `continuation` followed `token`."""
        known = self._after.setdefault(token, {})
        known.pop(tuple(continuation), None)
        known[tuple(continuation)] = None
        if len(known) > self.most:
            del known[next(iter(known))]

    def after(self, token: int) -> list[tuple[int, ...]]:
        """What followed `token`, the latest first."""
        return list(reversed(self._after.get(token, {})))


@dataclass(frozen=True, slots=True)
class Column:
    """A piece of text: what each later iteration put after the token of the iteration before.

    Attributes:
        tokens: `[n - 1]`, the oldest iteration's first.
        age: iterations that it went through.
    """

    tokens: tuple[int, ...]
    age: int = 0


@drafter(
    paper="Fu et al. 2024 (ICML), arXiv:2402.02057",
    cost="(n - 1) · (window + guesses) rows of the target in every step",
)
class lookahead(Lookup):  # noqa: N801 - one name in five places
    """Lookahead decoding: drafts n-grams from a pool that a window of n - 1 Jacobi iterations fills."""

    def __init__(self, host: Host, window: int = 7, n: int = 5, guesses: int = 7, from_prompt: bool = True) -> None:
        super().__init__(host)
        at_least(1, window=window, guesses=guesses)
        at_least(2, n=n)
        self.window, self.n, self.guesses, self.from_prompt = window, n, guesses, from_prompt
        self.wants = (Argmax(),)
        self.pool = Pool(guesses)
        self._columns: list[Column] = []
        self._drafted = 0  # columns in the last tree

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """Guesses for at most half of the rows, and as many columns of the window as fit into the others.

        The first tokens of the columns are a chain, and the rest of a column hangs below its own: a token sees the
        first iteration up to its column, and the earlier ones of the column. So the window is a tree like any other.
        """
        tree, ends = DraftTree(node), run.limits.eos_token_ids
        high = self.n - 1
        for guess in self.pool.after(node.token)[: self.guesses]:
            if (tree.size + high) * 2 > budget.rows:
                break
            tree.add_chain(_cut(guess[: budget.depth], ends))
        self._drafted = max(0, min(self.window, (budget.rows - tree.size) // high, budget.depth - high + 1))
        for place in range(len(self._columns), self._drafted):
            begin = node.length + place
            self._columns.append(Column(tuple(filler(node.path, begin + row, ends) for row in range(high))))
        above = 0
        for column in self._columns[: self._drafted]:
            above = tree.add(above, column.tokens[0])
            tree.add_chain(column.tokens[1:], above)
        return tree

    def observe(self, seen: Observation) -> None:
        """Every column gives an n-gram to the pool and moves on by one iteration."""
        if seen.tree is None:
            if self.from_prompt:
                self._read(seen)
            return
        above, moved = 0, []
        for at, column in enumerate(self._columns[: self._drafted]):
            nodes = chain(seen.tree, column.tokens, above)
            if len(nodes) < self.n - 1:
                break
            above = nodes[0]
            if (reading := seen.readings[nodes[-1]]) is None:
                continue
            token = reading[0].token
            if column.age >= self.n - 2:  # all of it is the target's
                self.pool.add(column.tokens[0], (*column.tokens[1:], token))
            if token in self.host.eos_token_ids:  # else the window fills up with what stands after the end
                token = filler(seen.text, seen.start + at, self.host.eos_token_ids)
            moved.append(Column((*column.tokens[1:], token), column.age + 1))
        if self._drafted:
            self._columns, self._drafted = moved, 0

    def _read(self, seen: Observation) -> None:
        tokens = seen.text.tolist()
        for end in range(max(seen.start + 1, self.n), len(tokens) + 1):
            first, *rest = tokens[end - self.n : end]
            self.pool.add(first, rest)


def _cut(tokens: Sequence[int], ends: frozenset[int]) -> Sequence[int]:
    """`tokens` up to the first end of the text."""
    for at, token in enumerate(tokens):
        if token in ends:
            return tokens[: at + 1]
    return tokens
