"""PEARL: the draft model runs on while the target verifies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree, Trial
from treille.drafters._checks import at_least
from treille.drafters._grow import grow, uniform
from treille.drafters._siblings import TreeDrafter
from treille.drafters.base import drafter
from treille.requests import Gather

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.draft_tree import Law
    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host, Observation
    from treille.requests import Readout, Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Liu et al. 2024, PEARL, arXiv:2408.11850",
    cost="k passes of the draft model beside every forward of the target, of k rows at the most",
)
class pearl(TreeDrafter):  # noqa: N801 - one name in five places
    """PEARL: drafts the next k tokens while the target verifies the last ones.

    Pre-verify: nothing is unverified, the target computes the end of the text, and the first token drafted meanwhile is
    checked against that row. Post-verify: the target computes the k - 1 unverified tokens, whose last row checks the
    first token drafted meanwhile. While everything is accepted the draft never waits, so its length adapts; after a
    rejection what was drafted ahead is dropped.

    Drafts and target are two requests in flight. Where both run on the same cores, one waits for the other.
    """

    def __init__(self, host: Host, k: int = 4, model: str = "draft", keep: Keep = None) -> None:
        super().__init__(host, model, keep)
        at_least(1, k=k)
        self.shape = uniform([1] * k)
        self._unverified: list[tuple[int, Law | None]] = []
        self._ahead: list[tuple[int, Law | None]] = []
        self._may_draft = False

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:  # noqa: ARG002
        """What was drafted ahead and is not verified yet."""
        yield from ()
        tree, last = DraftTree(node), 0
        for token, law in self._unverified[: min(budget.rows, budget.depth)]:
            last = tree.add(last, token, law)
        self._may_draft = True
        return tree

    def verify(self, run: Run, tree: DraftTree, wants: tuple[Readout, ...]) -> Generator[Request, Any, list[Any]]:
        """The target's answers; meanwhile the draft goes on below the tree."""
        self._ahead = []
        # A token tried at the end but not computed ends the text: nothing comes after it.
        if not self._may_draft or tree.trials[-1]:
            return (yield from super().verify(run, tree, wants))
        self._may_draft = False
        results: list[Any]
        results, self._ahead = yield Gather(super().verify(run, tree, wants), self._draft(run, tree))
        if self._ahead and self._ahead[0][1] is not None:
            token, law = self._ahead[0]
            tree.trials[-1].append(Trial(token, None, law))
        return results

    def _draft(self, run: Run, tree: DraftTree) -> Generator[Request, Any, list[tuple[int, Law | None]]]:
        """Tokens after the last one of the tree, as far as the text can come."""
        end = tree.nodes[-1]
        if tree.size and end.token in run.limits.eos_token_ids:
            return []
        room = min(run.limits.max_new_tokens - run.generated(end) - 1, self.context - end.length)
        ahead = DraftTree(end)
        yield from grow(run, ahead, self.shape, [self.source(run, tree.nodes[0])], room, room)
        laws = [trials[0].law for trials in ahead.trials[:-1]]
        return [(node.token, law) for node, law in zip(ahead.nodes[1:], laws, strict=True)]

    def observe(self, seen: Observation) -> None:
        """Keep what was drafted ahead if the text went there."""
        super().observe(seen)
        ahead, self._unverified = self._ahead, []
        if ahead and seen.tree is not None and len(seen.accepted) == seen.tree.size:
            there = len(seen.text) == seen.start + seen.tree.size + 1 and seen.text[-1] == ahead[0][0]
            self._unverified = ahead[1:] if there else []
        self._ahead = []

    def truncate(self, length: int) -> None:  # noqa: ARG002 - the protocol's signature
        """Forget what was drafted ahead."""
        self._unverified = []
