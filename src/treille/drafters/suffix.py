"""Suffix decoding: draft what most often followed the last tokens, in this text and in earlier answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least, between, one_of
from treille.drafters._suffix_tree import SuffixTree, best_guess, likeliest_path, likeliest_tree
from treille.drafters.base import Lookup, drafter

if TYPE_CHECKING:
    from treille.drafters.base import Budget, Host, Observation
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Oliaro et al. 2024, SuffixDecoding, arXiv:2411.04975",
    cost="up to k rows, more the longer the match; up to `depth` small steps per token; a tree kept from run to run",
)
class suffix(Lookup):  # noqa: N801 - one name in five places
    """Suffix decoding: the likeliest continuation of the longest matches, as long as the match is trusted.

    Answers are kept for later runs of the same language model. Verification by rejection does without them: there the
    text depends on what was drafted, and must not depend on what was asked before.
    """

    def __init__(
        self,
        host: Host,
        k: int = 16,
        depth: int = 24,
        factor: float = 2.0,
        offset: float = 0.0,
        min_prob: float = 0.1,
        shape: Literal["path", "tree"] = "path",
        cache_tokens: int = 100_000,
    ) -> None:
        super().__init__(host)
        at_least(1, k=k)
        at_least(2, depth=depth)
        at_least(0, factor=factor, offset=offset, cache_tokens=cache_tokens)
        between(0, 1, min_prob=min_prob)
        one_of(("path", "tree"), shape=shape)
        self.k = k
        self.factor = factor
        self.offset = offset
        self.min_prob = min_prob
        self._grow = likeliest_path if shape == "path" else likeliest_tree
        self._text = SuffixTree(depth).begin()
        self._answers = None
        if cache_tokens:
            key = f"suffix:depth={depth},cache_tokens={cache_tokens}"
            self._answers = host.memory.setdefault(key, SuffixTree(depth, cache_tokens))
            self._answer = self._answers.begin()
        self._prompt: int | None = None

    def observe(self, seen: Observation) -> None:
        """Add the new tokens; all but the prompt also to what later runs know."""
        new = seen.text[seen.start :].tolist()
        self._text.extend(new)
        if self._prompt is None:
            self._prompt = len(seen.text)
        elif self._answers is not None:
            self._answer.extend(new)

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        self._text.truncate(length)
        self._prompt = min(length, self._prompt or 0)
        if self._answers is not None:
            self._answer.truncate(length - self._prompt)

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """The guess with the highest expected number of right tokens; this text's own goes first on ties."""
        most = min(self.k, budget.rows, budget.depth)

        def trusted(matched: int) -> int:
            return min(most, int(self.factor * matched + self.offset))

        best = best_guess(self._text.matches(), trusted, self._grow, self.min_prob)
        if self._answers is not None and not run.rejecting:
            context = self._text.tokens[-self._answers.depth :]
            other = best_guess(self._answers.matches(context), trusted, self._grow, self.min_prob)
            best = other if other.score > best.score else best
        tree = DraftTree(node)
        best.plant(tree, run.limits.eos_token_ids, budget.rows)
        return tree
