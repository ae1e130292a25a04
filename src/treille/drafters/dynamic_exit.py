"""DEL: early exit whose layer and draft length follow the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp
from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._cheaper import Cheaper, grow_chain, layered
from treille.drafters._checks import at_least, between
from treille.drafters._siblings import Draws
from treille.drafters.base import Drafter, drafter
from treille.requests import Exits, Layers

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from treille.drafters.base import Budget, Host, Observation
    from treille.requests import Choice, Request
    from treille.strategy import Run
    from treille.tree import Node


@dataclass(slots=True)
class Agreement:
    """How often an exit's best token was the target's, and how sure it was then; decayed.

    Attributes:
        counts: of mismatches and of matches.
        confidence: sums of the exit's probability of its best token, over the same.
    """

    counts: list[float] = field(default_factory=lambda: [0.0, 0.0])
    confidence: list[float] = field(default_factory=lambda: [0.0, 0.0])

    @property
    def alpha(self) -> float:
        """Estimated probability of agreement; one match and one mismatch are taken for granted."""
        return (self.counts[1] + 1) / (sum(self.counts) + 2)

    @property
    def threshold(self) -> float:
        """Halfway between the mean confidences of mismatches (0 before the first one) and of matches (1)."""
        means = [
            c / n if n else unknown for c, n, unknown in zip(self.confidence, self.counts, (0.0, 1.0), strict=True)
        ]
        return sum(means) / 2

    def decay(self, factor: float) -> None:
        """Let older observations count less."""
        self.counts = [factor * n for n in self.counts]
        self.confidence = [factor * c for c in self.confidence]

    def add(self, choice: Choice, target: Choice) -> None:
        """Count what the exit would have said where the target said something."""
        match = choice.token == target.token
        self.counts[match] += 1
        self.confidence[match] += exp(choice.raw_logprob)


def best_plan(alphas: Mapping[int, float], layers: int, most: int, head: float = 0.0) -> tuple[int, int, float]:
    """The exit and the draft length with the most tokens per layer: `(exit, length, tokens per layer)`.

    That is (Σ_{i=0}^{γ} α^i) / (L + γ ℓ), with the head's cost added to every pass. Length 0 is a plain step.

    Args:
        alphas: probability of agreement by exit ℓ.
        layers: L.
        most: longest γ.
        head: cost of final norm and head, in layers.
    """
    best = (0, 0, 1 / (layers + head))
    for stop, alpha in alphas.items():
        tokens = 1.0
        for length in range(1, most + 1):
            tokens += alpha**length
            rate = tokens / (layers + head + length * (stop + head))
            if rate > best[2]:
                best = (stop, length, rate)
    return best


@drafter(
    paper="Entezari Zarch et al. 2025, DEL, arXiv:2504.05598; LayerSkip, arXiv:2404.16710",
    cost="up to k passes of the target's first layers per step; one product with the head per exit and verified row",
)
class dynamic_exit(Drafter):  # noqa: N801 - one name in five places; `del` is a keyword
    """DEL: the exit layer and the draft length with the most tokens per layer on this text so far.

    Every verified row shows what each exit would have said, so no exit has to be tried to be known. As long as none
    pays, steps are plain.

    Args:
        host: where it runs.
        k: longest draft.
        every: exits after every so many layers are considered.
        decay: of the statistics, per step.
        head: cost of final norm and head, in layers; 0 as in the paper.
    """

    def __init__(self, host: Host, k: int = 18, every: int = 2, decay: float = 0.95, head: float = 0.0) -> None:
        super().__init__(host)
        at_least(1, k=k, every=every)
        between(0, 1, decay=decay)
        at_least(0, head=head)
        self.count = layered(host, "dynamic_exit", least=every + 1).layers
        self.k = k
        self.decay = decay
        self.head = head
        self.exits: dict[int, Agreement] = {stop: Agreement() for stop in range(every, self.count, every)}
        self.wants = (Exits((*self.exits, self.count)),)

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A chain from the exit that pays most; it ends early where that exit is less sure than it used to be."""
        tree = DraftTree(node)
        alphas = {stop: seen.alpha for stop, seen in self.exits.items() if any(seen.counts)}
        stop, length, _ = best_plan(alphas, self.count, min(self.k, budget.depth), self.head)
        if length:
            draws = Draws(run.random, node.length)
            source = Cheaper(run, "target", draws, layers=Layers(stop), since=node.length - 1)
            yield from grow_chain(run, tree, source, budget.rows, length, self.exits[stop].threshold)
        return tree

    def observe(self, seen: Observation) -> None:
        """Compare all exits with the target where the text is real: at the root and at accepted nodes."""
        if seen.tree is None:
            return
        for exit_ in self.exits.values():
            exit_.decay(self.decay)
        for index in (0, *seen.accepted):
            reading = seen.readings[index] if index < len(seen.readings) else None
            if reading is not None:
                self._compare(reading[0])

    def _compare(self, choices: Sequence[Choice]) -> None:
        for exit_, choice in zip(self.exits.values(), choices[:-1], strict=True):
            exit_.add(choice, choices[-1])
