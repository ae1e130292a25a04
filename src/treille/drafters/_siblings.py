"""Tokens that a draft model proposes under a node, one after another: drawn from its law, or its best ones.

Verification by rejection accepts most of drawn tokens and must know their law; rules V1, V2 and V6 accept most of
chosen ones. Drafters that build trees ask for the next sibling and need not know which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from treille.draft_tree import Law
from treille.drafters._models import draft_shape
from treille.drafters._vocabulary import Trim
from treille.drafters.base import Drafter
from treille.requests import Forward, Probabilities, Readout, Sample, Top, TopK
from treille.sampling.verify import without

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from treille.draft_tree import DraftTree
    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host, Observation
    from treille.requests import Request
    from treille.sampling.random import Random
    from treille.strategy import Run
    from treille.tree import Node

AGREE = 0.7
"""Belief that the target draws the same token as the draft model does with the same noise."""


class Siblings(Protocol):
    """Children of one node, in the order in which they are tried."""

    @property
    def law(self) -> Law | None:
        """What they are drawn from; None: they are chosen."""
        ...

    @property
    def empty(self) -> bool:
        """Whether no further token has any probability."""
        ...

    @property
    def left(self) -> Any:
        """Probability of all tokens that were not taken."""
        ...

    def take(self) -> tuple[int, Any]:
        """The next token, and its probability given the earlier ones."""
        ...


class Draws:
    """The noise of one draft tree: keyed by the length of the root's text, so that it is fresh in every step."""

    def __init__(self, random: Random, position: int) -> None:
        self.random = random
        self.position = position
        self._draw = 0
        self._shared: dict[int, NDArray[np.float64]] = {}

    def token(self, q: NDArray[Any]) -> int:
        """A draw from `q`."""
        self._draw += 1
        return self.random.categorical(q, self.position, "draft", self._draw)

    def shared(self, position: int, size: int) -> NDArray[np.float64]:
        """The Gumbel noise `[size]` by which the target draws at a position; the nodes of a level have it in common."""
        if position not in self._shared:
            self._shared[position] = self.random.gumbel(position, "sample", size)
        return self._shared[position]

    def uniform(self, purpose: str) -> float:
        """A number in [0, 1)."""
        self._draw += 1
        return self.random.uniform(self.position, purpose, self._draw)


class Drawn:
    """Draws from `q` without replacement, or with it.

    Args:
        q: `[V]`.
        draws: noise.
        replacement: whether a token may come again.
    """

    def __init__(self, q: NDArray[Any], draws: Draws, *, replacement: bool = False) -> None:
        self.law = Law(q, replacement)
        self.left: Any = 1
        self._rest = q
        self._draws = draws

    @property
    def empty(self) -> bool:
        """Whether no further token has any probability."""
        return not self._rest.any()

    def take(self) -> tuple[int, Any]:
        """The next token, and its probability given the earlier ones."""
        token = self._draws.token(self._rest)
        probability = self._rest[token]
        if not self.law.replacement:
            self.left *= 1 - probability
            # The same operation as in verification, so that both have the same law to the last bit.
            self._rest = without(self._rest, token)
        return token, probability


class Chosen:
    """Given tokens, best first.

    Args:
        tokens: in order.
        beliefs: how probable it is that the target picks each of them.
    """

    law = None

    def __init__(self, tokens: Sequence[int], beliefs: Sequence[float]) -> None:
        self.left = 1.0
        self._tokens = list(tokens)[::-1]
        self._beliefs = list(beliefs)[::-1]

    @property
    def empty(self) -> bool:
        """Whether no further token is known."""
        return not self._tokens

    def take(self) -> tuple[int, float]:
        """The next token, and its probability given the earlier ones."""
        belief = self._beliefs.pop()
        probability = min(1.0, belief / self.left) if self.left > 0 else 0.0
        self.left = max(0.0, self.left - belief)
        return self._tokens.pop(), probability


@dataclass(frozen=True, slots=True)
class Source:
    """Reads siblings from a draft model, for one draft tree.

    Attributes:
        run: the run that is drafted for.
        model: the draft model's name.
        draws: noise of the tree.
        trim: which tokens it may propose, None: all.
        chosen: take its best tokens, also where drawn ones could be verified.
        replacement: draw with replacement.
    """

    run: Run
    model: str
    draws: Draws
    trim: Trim | None = None
    chosen: bool = False
    replacement: bool = False

    def siblings(self, nodes: Sequence[Node], most: int) -> Generator[Request, Any, list[Siblings]]:
        """Siblings for each of `nodes`, computed in one pass; none where no token is allowed.

        Args:
            nodes: of one level of the tree.
            most: siblings that will be taken under a node; more are there where they are drawn.
        """
        if not nodes:
            return []
        answers = yield Forward(nodes, self._wants(most), model=self.model, may_fail=True)
        return [
            Chosen((), ()) if isinstance(answer, Exception) else self._read(node, answer, most)
            for node, answer in zip(nodes, answers, strict=True)
        ]

    def of_law(self, node: Node, q: NDArray[Any], most: int) -> Siblings:
        """Siblings under `node` from the draft model's law there, `[V]`."""
        if self.trim is not None:
            q = self.trim(q)
        if not q.any():
            return Chosen((), ())
        if self._drawn:
            return Drawn(q, self.draws, replacement=self.replacement)
        return self._best(node, q, most)

    @property
    def _drawn(self) -> bool:
        return self.run.rejecting and not self.chosen

    @property
    def _keyed(self) -> bool:
        """Whether the target's pick is a draw whose noise the draft can share."""
        return self.run.do_sample and not self.run.rejecting

    def _wants(self, most: int) -> tuple[Readout, ...]:
        if self._drawn or self.trim is not None or (self._keyed and self.run.gumbel and most > 1):
            return (Probabilities(),)
        return (Sample(self.run.random, self.run.gumbel), TopK(most)) if self._keyed else (TopK(most),)

    def _read(self, node: Node, answer: tuple[Any, ...], most: int) -> Siblings:
        top = answer[-1]
        if not isinstance(top, Top):
            return self.of_law(node, top, most)
        ranked = dict(zip(top.tokens, np.exp(top.logprobs).tolist(), strict=True))
        if not self._keyed:
            return Chosen(list(ranked), list(ranked.values()))
        pick = answer[0]
        return _after(pick.token, float(np.exp(pick.logprob)), ranked, most)

    def _best(self, node: Node, law: NDArray[Any], most: int) -> Siblings:
        """The best tokens of a law on the host."""
        q = law.astype(np.float64)
        if not self._keyed:
            return Chosen(*_largest(q, q, most))
        if not self.run.gumbel:
            pick = self.run.random.categorical(law, node.length, "sample")
            return _after(pick, float(q[pick]), dict(zip(*_largest(q, q, most), strict=True)), most)
        # The target takes the largest log p + noise, so the candidates are the largest log q + the same noise.
        noise = self.draws.shared(node.length, len(q))
        with np.errstate(divide="ignore"):
            scores = np.log(q) + noise
        shares = np.exp(scores - scores.max())
        tokens, values = _largest(scores, shares / shares.sum(), most)
        return _after(tokens[0], float(q[tokens[0]]), dict(zip(tokens, values, strict=True)), most)


def _largest(scores: NDArray[np.float64], values: NDArray[np.float64], most: int) -> tuple[list[int], list[float]]:
    """The ids of the `most` largest scores with positive value, best first, the lowest id first on ties."""
    if most == 1:
        best = int(scores.argmax())
        return [best], [float(values[best])]
    most = min(most, len(scores))
    ids = np.argpartition(-scores, most - 1)[:most]
    ids = ids[values[ids] > 0]
    ids = ids[np.lexsort((ids, -scores[ids]))]
    return ids.tolist(), values[ids].tolist()


def _after(pick: int, q: float, ranked: dict[int, float], most: int) -> Chosen:
    """The draft's pick with the target's noise, then the most probable others."""
    others = [token for token in ranked if token != pick][: most - 1]
    beliefs = [AGREE + (1 - AGREE) * q, *((1 - AGREE) * ranked[token] for token in others)]
    return Chosen([pick, *others], beliefs)


class TreeDrafter(Drafter):
    """A drafter that grows trees from the laws of a draft model.

    Args:
        host: where it runs.
        model: the draft model's name.
        keep: which tokens it may propose (see `Trim`), None: all.

    Attributes:
        context: longest text that the draft model can read.
    """

    def __init__(self, host: Host, model: str, keep: Keep = None) -> None:
        super().__init__(host)
        self.model = model
        self.context = draft_shape(host, model).context_length
        self.trim = None if keep is None else Trim(host, keep)

    def observe(self, seen: Observation) -> None:
        """Count the tokens in use."""
        if self.trim is not None:
            self.trim.learn(seen.text[seen.start :])

    def depth(self, node: Node, budget: Budget) -> int:
        """Tokens that may be drafted one after the other; 0 or less: none."""
        return min(budget.depth, self.context - node.length)

    def source(self, run: Run, node: Node, *, chosen: bool = False) -> Source:
        """What a tree under `node` is grown from."""
        if self.trim is not None and run.rejecting:
            self.trim.alone()
        return Source(run, self.model, Draws(run.random, node.length), self.trim, chosen)


def is_open(run: Run, tree: DraftTree, index: int) -> bool:
    """Whether the text goes on under a node of the tree."""
    return index == 0 or tree.nodes[index].token not in run.limits.eos_token_ids
