"""Verification: which drafted tokens the target accepts, and the token it adds.

The rules carry the numbers of the method cards; `p` is the target's law at a node after processors and constraint, `q`
the law a draft was drawn from.

=====  ===============  ================================================================================
rule   draft            accepts
=====  ===============  ================================================================================
V1     any              the child that is the target's argmax (greedy decoding)
V2     any              the child that is the target's own draw; the draw is emitted in any case
V3     a chain from q   with probability min(1, p/q), else a draw from the residual (Leviathan et al. 2023)
V4     siblings         V3 sibling by sibling, with the law of each given the earlier ones
V5     chosen siblings  V4 with one-hot laws: the same law and the same acceptance as V2
V6     any              V2 where draft and target share keyed Gumbel noise
=====  ===============  ================================================================================

V1, V2 and V6 are `match`: the token at a position is a function of (seed, path, p) whatever was drafted, so the text is
the plain text. V3, V4 and V5 are `reject`: the text's law is the plain law, and acceptance is higher for drawn drafts.

The arithmetic is generic: float64 in the engine, exact fractions when laws are enumerated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from treille.errors import NoTokenLeft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from treille.draft_tree import DraftTree, Trial
    from treille.sampling.random import Random


@dataclass(frozen=True, slots=True)
class Walk:
    """What verification found.

    Attributes:
        accepted: nodes of the draft tree that are kept, from the root's child down; may be empty.
        token: the token after them: the correction or the bonus.
    """

    accepted: tuple[int, ...]
    token: int

    @property
    def last(self) -> int:
        """The node under which `token` stands."""
        return self.accepted[-1] if self.accepted else 0


def match(tree: DraftTree, picks: Sequence[int]) -> Walk:
    """Rules V1, V2 and V6: follow the target's own pick at every node while it was drafted.

    Args:
        tree: what was drafted.
        picks: the target's token at every node of the tree, `[N + 1]`: its argmax, or its keyed draw.
    """
    node, accepted = 0, []
    while (child := tree.child(node, picks[node])) is not None:
        accepted.append(child)
        node = child
    return Walk(tuple(accepted), picks[node])


class Laws(Protocol):
    """p at every node of a draft tree."""

    def __getitem__(self, index: int, /) -> NDArray[Any]:
        """`[V]`, float64 or exact fractions.

        Raises:
            NoTokenLeft: no token is allowed there.
        """
        ...


def reject(tree: DraftTree, laws: Laws, random: Random) -> Walk:
    """Rules V3, V4 and V5: try the siblings in their order, and draw from what is left when all are rejected.

    Args:
        tree: what was drafted, with the law of each draw.
        laws: p at every node of the tree, `[N + 1]` arrays `[V]`.
        random: of the run; draws are keyed by the length of the root's text, so that every step has fresh ones.
    """
    position, draw, node = tree.nodes[0].length, 0, 0
    accepted: list[int] = []
    while True:
        try:
            left, taken = laws[node], None
        except NoTokenLeft:
            if not accepted:
                raise
            # Nothing can follow the last accepted node: it is the next step's concern.
            return Walk(tuple(accepted[:-1]), tree.nodes[accepted[-1]].token)
        proposal = _Proposal()
        for trial in tree.trials[node]:
            d = proposal.given_earlier(trial)
            if random.bernoulli(chance(left, d, trial.token), position, "accept", draw):
                taken = trial
                break
            draw += 1
            left = residual(left, d, trial.token)
        if taken is None:
            return Walk(tuple(accepted), random.categorical(left, position, "residual", draw))
        if taken.index is None:  # not computed: it is the token after the others
            return Walk(tuple(accepted), taken.token)
        draw += 1
        node = taken.index
        accepted.append(node)


class _Proposal:
    """The law of the next sibling given the earlier ones."""

    def __init__(self) -> None:
        self._tried: list[int] = []
        self._given: tuple[object, NDArray[Any]] | None = None  # a law and what is left of it

    def given_earlier(self, trial: Trial) -> NDArray[Any] | None:
        """`[V]`, None for a chosen token, whose law is one-hot."""
        law = trial.law
        if law is None:
            self._tried.append(trial.token)
            return None
        if law.replacement:
            return law.q
        known = self._given is not None and self._given[0] is law
        d = self._given[1] if known and self._given is not None else law.q
        for token in self._tried[-1:] if known else self._tried:
            d = without(d, token)
        self._given = law, d
        self._tried.append(trial.token)
        return d


def chance(p: NDArray[Any], d: NDArray[Any] | None, token: int) -> Any:
    """Probability that a token drawn from `d` (None: chosen) is accepted: p / d, or 1 where that is larger.

    Strict at zero: a token without probability under `p` is never accepted.
    """
    if d is None:
        return p[token]
    assert d[token] > 0, "a token cannot be drawn from a law that gives it no probability"
    return p[token] / d[token]


def residual(p: NDArray[Any], d: NDArray[Any] | None, token: int) -> NDArray[Any]:
    """`norm(max(p - d, 0))`: the law left after a rejection; `p` itself where nothing is left but rounding."""
    if d is None:
        left = p.copy()
        left[token] = 0
    else:
        left = np.maximum(p - d, 0)
    total = left.sum()
    return left / total if total > 0 else p


def without(q: NDArray[Any], token: int) -> NDArray[Any]:
    """`q` without `token`, renormalised; all zero when nothing is left."""
    left = q.copy()
    left[token] = 0
    total = left.sum()
    return left / total if total > 0 else left
