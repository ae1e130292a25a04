"""TriForce: a small model drafts for the target with a part of its context, which drafts for the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from treille.draft_tree import DraftTree, Law
from treille.drafters._cheaper import layered
from treille.drafters._checks import at_least
from treille.drafters._models import draft_shape
from treille.drafters._siblings import is_open
from treille.drafters.base import Drafter, drafter
from treille.errors import ParameterError
from treille.requests import Attention, Forward, Probabilities, View
from treille.sampling.verify import match, reject

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.sampling.random import Random
    from treille.strategy import Run
    from treille.tree import Node

    _Guess = tuple[int, Law | None]
    _Emitted = list[tuple[int, Law | None, Node | None]]

Spans = tuple[tuple[int, int], ...]


@drafter(
    paper="Sun et al. 2024, TriForce, arXiv:2404.11912",
    cost="a pass of the draft model and one of the target over `budget` of its context, for every one to two tokens",
)
class triforce(Drafter):  # noqa: N801 - one name in five places
    """TriForce: three levels for long contexts, where reading the KV cache, not the weights, takes the time.

    The middle level is the target that attends to the chunks of the text to which it attended most, and to everything
    after. A draft model drafts one token at a time for it; the middle level verifies by the same rules as the target,
    so that its tokens have exactly the law that they are passed on with.

    Args:
        host: where it runs.
        budget: positions of the context that the middle level sees; a text that is no longer is seen whole.
        chunk: positions that are chosen together.
        k: tokens that the middle level drafts.
        refresh: tokens after which chunks are chosen anew.
        sinks: first positions that the draft model sees of a text longer than its window.
        window: last positions that it sees.
        model: the draft model's name.
    """

    def __init__(
        self,
        host: Host,
        budget: int = 256,
        chunk: int = 8,
        k: int = 6,
        refresh: int = 128,
        sinks: int = 16,
        window: int = 240,
        model: str = "draft",
    ) -> None:
        super().__init__(host)
        at_least(1, chunk=chunk, k=k, refresh=refresh, window=window)
        at_least(0, sinks=sinks)
        if budget < 2 * chunk:
            raise ParameterError(
                f"draft: budget={budget}: holds at least two chunks of {chunk}; give {2 * chunk} or more"
            )
        self.budget, self.chunk, self.k, self.refresh = budget, chunk, k, refresh
        self.sinks, self.window = sinks, window
        self.model = model
        self.layers = layered(host, "triforce", least=1).layers
        self.context = draft_shape(host, model).context_length
        self._view: View | None = None

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain from the middle level."""
        tree, last = DraftTree(node), 0
        if node is run.tip:  # read whole first: this plain step makes the prompt's rows
            return tree
        view = yield from self._choose_chunks(node)
        most = min(self.k, budget.rows, budget.depth, self.context - node.length)
        # Noise of the middle level: apart from the target's, and fresh in every step.
        noise = run.random.branch(-1 - node.length)
        while tree.size < most and is_open(run, tree, last):
            guess = yield from self._guess(run, tree.nodes[last], node.length - 1, noise)
            emitted = yield from _middle(run, tree.nodes[last], guess, view, node.length - 1, noise)
            if not emitted:
                break
            for token, law, computed in emitted:
                if tree.size < most and is_open(run, tree, last):
                    last = tree.add(last, token, law, computed)
        return tree

    def _guess(self, run: Run, node: Node, since: int, noise: Random) -> Generator[Request, Any, _Guess | None]:
        """The draft model's token under `node`, with its law if it was drawn; None where no token is allowed."""
        view = None
        if since > self.sinks + self.window:
            view = View(((0, self.sinks),), since - self.window)
        want = Probabilities() if run.rejecting else run.choose
        (answer,) = yield Forward(
            (node,), want, model=self.model, may_fail=True, view=view, since=0 if view is None else since
        )
        if isinstance(answer, Exception):
            return None
        if run.rejecting:
            return noise.categorical(answer, node.length, "draft"), Law(answer)
        return answer.token, None

    def _choose_chunks(self, node: Node) -> Generator[Request, Any, View]:
        """The chunks to which the last computed token attends most, over all layers and heads, and what follows it."""
        if self._view is None or node.length - self._view.start >= self.refresh:
            assert node.parent is not None, "only the prompt has none"
            (weights,) = yield Forward((node.parent,), Attention(tuple(range(self.layers))))
            mass = np.array(weights.sum((0, 1)).tolist())
            self._view = View(best_chunks(mass, self.chunk, self.budget // self.chunk), len(mass))
        return self._view

    def truncate(self, length: int) -> None:
        """Chunks of another text are not this text's."""
        if self._view is not None and length < self._view.start:
            self._view = None


def best_chunks(mass: NDArray[np.float64], chunk: int, count: int) -> Spans:
    """The spans of the first chunk and the `count` - 1 others with the most of `mass` `[T]`, neighbours joined."""
    starts = range(0, len(mass), chunk)
    sums = np.add.reduceat(mass, starts)
    sums[0] = np.inf
    chosen = sorted(np.argsort(-sums, kind="stable")[:count].tolist())
    spans: list[tuple[int, int]] = []
    for index in chosen:
        begin, end = index * chunk, min((index + 1) * chunk, len(mass))
        if spans and spans[-1][1] == begin:
            begin = spans.pop()[0]
        spans.append((begin, end))
    return tuple(spans)


def _middle(
    run: Run, node: Node, guess: _Guess | None, view: View, since: int, noise: Random
) -> Generator[Request, Any, _Emitted]:
    """What the middle level emits under `node`: one token, or the guess and one more; with their laws and nodes.

    Every token has exactly the law it comes with: the guess is accepted by rule V3 and replaced by a draw from the
    residual, or all are the middle level's own picks. Empty where no token is allowed.
    """
    inner = DraftTree(node)
    nodes = [node]
    if guess is not None and guess[0] not in run.limits.eos_token_ids:
        nodes.append(node.child(guess[0]))
    want = Probabilities() if run.rejecting else run.choose
    answers = yield Forward(nodes, want, may_fail=True, view=view, since=since)
    if isinstance(answers[0], Exception):
        return []
    if guess is not None and len(nodes) > 1 and not isinstance(answers[1], Exception):
        inner.add(0, *guess, nodes[1])
    elif guess is not None and guess[1] is not None:
        inner.reject(0, guess[0], guess[1])  # nothing follows it, but it may be the token
    if run.rejecting:
        walk = reject(inner, answers, noise)
        laws: list[Law | None] = [Law(p) for p in answers[: 1 + len(walk.accepted)]]
    else:
        walk = match(inner, [choice.token for choice in answers[: len(inner.nodes)]])
        laws = [None] * (1 + len(walk.accepted))
    tokens = [*(inner.nodes[index].token for index in walk.accepted), walk.token]
    return list(zip(tokens, laws, [*(inner.nodes[index] for index in walk.accepted), None], strict=True))
