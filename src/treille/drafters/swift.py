"""SWIFT: the target drafts with some of its sub-layers left out, which ones is learned from the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._cheaper import Cheaper, grow_chain, layered
from treille.drafters._checks import at_least, between
from treille.drafters._siblings import Draws
from treille.drafters._skip_search import SkipSearch, as_layers
from treille.drafters.base import Drafter, drafter
from treille.errors import ParameterError
from treille.requests import Argmax, Forward

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.drafters._skip_search import SkipSet
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node

GREEDY_WIDTHS = (3, 5, 8, 10)  # at a confidence above .95, above .8, above .5, and below
SAMPLING_WIDTHS = (1, 3, 5, 10)


@drafter(
    paper="Xia et al. 2025, SWIFT, arXiv:2410.06916; Zhang et al. 2023, Draft & Verify, arXiv:2309.08168",
    cost="passes of the shallower target until it is unsure; at first one pass over `window` rows per `interval` steps",
)
class swift(Drafter):  # noqa: N801 - one name in five places
    """SWIFT: the target without some attention and MLP sub-layers drafts; the set is optimised on the running text.

    A set's score is the share of the last tokens that the shallower target would have chosen, measured in one pass. The
    search goes on in later runs of the same language model, except with verification by rejection.

    Args:
        host: where it runs.
        ratio: part of the sub-layers that is left out (first and last layer stay).
        threshold: a draft ends with the token at which the largest probability was below it.
        k: longest draft.
        width: siblings of a level at the most, 1 for a chain.
        interval: steps between two proposals of the search.
        window: tokens that a set is scored on.
        target: score above which the search ends.
        bayes_every: every so many proposals one is that of a Gaussian process, the others are random.
        patience: proposals without progress after which it ends.
        proposals: proposals after which it ends; 0: no search.
    """

    def __init__(
        self,
        host: Host,
        ratio: float = 0.45,
        threshold: float = 0.8,
        k: int = 25,
        width: int = 10,
        interval: int = 1,
        window: int = 32,
        target: float = 0.93,
        bayes_every: int = 25,
        patience: int = 300,
        proposals: int = 1000,
    ) -> None:
        super().__init__(host)
        at_least(1, k=k, width=width, interval=interval, window=window, patience=patience)
        at_least(2, bayes_every=bayes_every)
        at_least(0, proposals=proposals)
        between(0, 1, ratio=ratio, threshold=threshold, target=target)
        if ratio == 1:
            raise ParameterError("draft: ratio=1 leaves out every layer but two; give less than 1, such as 0.45")
        self.count = layered(host, "swift", least=3).layers
        self.threshold, self.k, self.width = threshold, k, width
        self.interval, self.window = interval, window
        self.search = SkipSearch(
            self.count, ratio, target=target, bayes_every=bayes_every, patience=patience, most=proposals
        )
        self._key = f"swift {(ratio, target, bayes_every, patience, proposals, window)}"
        self._steps = 0

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain of the shallower target, with its next best tokens beside it."""
        if not run.rejecting:
            # By rejection a text depends on what was drafted, and must not depend on what was asked before.
            self.search = self.host.memory.setdefault(self._key, self.search)
        yield from self._optimise(run, node)
        tree = DraftTree(node)
        draws, layers = Draws(run.random, node.length), as_layers(self.search.best, self.count)
        source = Cheaper(run, "target", draws, layers=layers, since=node.length - 1)
        widths = SAMPLING_WIDTHS if run.do_sample else GREEDY_WIDTHS

        def width(confidence: float) -> int:
            unsure = sum(confidence <= bound for bound in (0.95, 0.8, 0.5))
            return min(widths[unsure], self.width)

        yield from grow_chain(run, tree, source, budget.rows, min(self.k, budget.depth), self.threshold, width)
        return tree

    def _optimise(self, run: Run, node: Node) -> Generator[Request, Any, None]:
        """Score one more set on the last tokens, once there are enough of them."""
        self._steps += 1
        if self.search.done or self._steps % self.interval or run.generated(node) <= self.window:
            return
        skipped = self.search.propose()
        score = yield from self._score(node, skipped)
        self.search.report(skipped, score)

    def _score(self, node: Node, skipped: SkipSet) -> Generator[Request, Any, float]:
        """The share of the last tokens of a text that the shallower target chooses, in one pass.

        The text is hung up once more under an older node, so that the rows go when this is done.
        """
        anchor = node
        while anchor.parent is not None and node.length - anchor.length <= self.window:
            anchor = anchor.parent
        text = node.path[anchor.length :].tolist()
        copies = [anchor]
        for token in text[:-1]:
            copies.append(copies[-1].child(token))
        choices = yield Forward(
            copies[1:], Argmax(), may_fail=True, layers=as_layers(skipped, self.count), since=anchor.length
        )
        picks = [None if isinstance(choice, Exception) else choice.token for choice in choices]
        right = sum(int(pick == token) for pick, token in zip(picks, text[1:], strict=True))
        return right / len(picks)
