"""CopySpec: copy what followed the last tokens where they stood first, else let a draft model propose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from treille.draft_tree import DraftTree
from treille.drafters._checks import at_least, one_of
from treille.drafters._ngrams import NgramIndex, up_to_end
from treille.drafters.base import Drafter, drafter
from treille.drafters.draft_model import draft_model
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from treille.drafters.base import Budget, Host, Observation
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node

DELTA = 5
"""Tokens that the draft model proposes where there is nothing to copy, unless told otherwise."""


@drafter(
    paper="Dumitru et al. 2025, CopySpec, arXiv:2502.08923",
    cost="k rows where the last gamma tokens stood before; else delta passes and rows of the draft model, if any",
)
class copyspec(Drafter):  # noqa: N801 - one name in five places
    """CopySpec: the k tokens that followed the last gamma tokens where they stood first, else a draft model's."""

    def __init__(
        self,
        host: Host,
        gamma: int = 3,
        k: int = 10,
        model: str | None = None,
        delta: int | None = None,
        pick: Literal["earliest", "latest"] = "earliest",
    ) -> None:
        super().__init__(host)
        at_least(1, gamma=gamma, k=k)
        one_of(("earliest", "latest"), pick=pick)
        if delta is not None and model is None:
            raise ParameterError(f"draft: delta={delta}: no draft model is named; add model=draft or leave delta out")
        self.k = k
        self.latest = pick == "latest"
        self._index = NgramIndex([gamma])
        self._model = None if model is None else draft_model(host, k=DELTA if delta is None else delta, model=model)

    def observe(self, seen: Observation) -> None:
        """Index the new tokens."""
        self._index.extend(seen.text, seen.start)

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        self._index.truncate(length)

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A copy, else what the draft model says. Its KV hangs on the nodes, so it catches up with copies by itself."""
        copied = self._index.continuation(min(self.k, budget.rows, budget.depth), latest=self.latest)
        if not copied and self._model is not None:
            return (yield from self._model.propose(run, node, budget))
        tree = DraftTree(node)
        tree.add_chain(up_to_end(copied, run.limits.eos_token_ids))
        return tree


def agreement(texts: Iterable[Sequence[int]], gamma: int) -> float:
    """Share of copies that would have been right, among all places of `texts` whose last gamma tokens stood before.

    The least gamma of a high agreement is a good one: a smaller gamma finds more, and more that is wrong. 0 where
    nothing repeats.
    """
    found = right = 0
    for text in texts:
        first: dict[tuple[int, ...], int] = {}
        for at in range(gamma, len(text)):
            follows = first.setdefault(tuple(text[at - gamma : at]), text[at])
            found += 1
            right += follows == text[at]
        # Every gram's first place agrees with itself and found nothing.
        found -= len(first)
        right -= len(first)
    return right / found if found else 0.0
