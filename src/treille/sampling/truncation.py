"""Truncation: which tokens may still be sampled, given the logits alone.

Every rule keeps a set of tokens and sends the others to ``-inf``; at least ``min_tokens_to_keep`` survive.
Probabilities are float32 softmax values and their running sums float64: no boundary moves with the vocabulary's size.

Papers: top-k 1805.04833; top-p 1904.09751; locally typical 2202.00666; epsilon and eta 2210.15191; min-p 2407.01082;
top-nσ 2411.07641. XTC and the joint top-k and top-p have none; see docs/processors.md.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from treille.sampling.processors import NEVER, Pathless, Processor, entropy, keep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.sampling.path import Path

_FIRST_PREFIX = 256
"""How many of the best tokens are sorted before all of them are: enough for top-p on most rows."""


def _best(logits: Tensor, count: Tensor, descending: Tensor) -> Tensor:
    """The mask of the ``count`` best tokens of each row, ties broken by lower id (``topk`` leaves their order open).

    Args:
        logits: float32 ``[N, V]``.
        count: int64 ``[N, 1]``, at least 1.
        descending: the best logits in descending order, ``[N, K]`` with ``K >= count``.
    """
    boundary = descending.gather(-1, count - 1)
    mask = logits >= boundary
    surplus = mask.sum(dim=-1, keepdim=True) - count
    if bool((surplus > 0).any()):  # ties at the boundary: the last `surplus` of the equal ones go
        equal = logits == boundary
        room = equal.sum(dim=-1, keepdim=True) - surplus
        mask &= ~(equal & (equal.cumsum(dim=-1) > room))
    return mask


def _prefix(logits: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``size`` best logits, descending, with the mass before and up to each (float64), all ``[N, size]``."""
    best = logits.topk(size, dim=-1).values if size < logits.shape[-1] else logits.sort(dim=-1, descending=True).values
    highest = best[:, :1]
    total = (logits - highest).exp_().sum(dim=-1, keepdim=True)
    mass = ((best - highest).exp_() / total).double()
    reached = mass.cumsum(dim=-1)
    return best, reached - mass, reached


def _nucleus(logits: Tensor, top_p: float, at_most: int) -> tuple[Tensor, Tensor]:
    """How many tokens top-p keeps (int64 ``[N, 1]``, at most ``at_most``), and the best logits in descending order.

    A token is kept iff the mass strictly before it is below ``top_p``. Only as many tokens are sorted as that takes.
    """
    size = min(_FIRST_PREFIX, at_most)
    while True:
        best, before, reached = _prefix(logits, size)
        if size == at_most or bool((reached[:, -1] >= top_p).all()):
            return (before < top_p).sum(dim=-1, keepdim=True).clamp(min=1), best
        size = min(16 * size, at_most)


@dataclass(frozen=True, slots=True)
class TopK(Pathless):
    """Keeps the ``top_k`` best tokens (clamped to the vocabulary).

    ``ties=True`` keeps every token equal to the k-th best (`transformers`, vLLM); ``ties=False`` keeps exactly k, the
    lower ids among equals (llama.cpp).
    """

    name: ClassVar[str] = "top_k"
    sampling: ClassVar[bool] = True
    top_k: int
    ties: bool = True
    min_tokens_to_keep: int = 1

    def transform(self, logits: Tensor) -> Tensor:
        """Masks what is worse than the k-th best."""
        size = min(max(self.top_k, self.min_tokens_to_keep), logits.shape[-1])
        best = logits.topk(size, dim=-1).values
        if self.ties:
            return keep(logits, logits >= best[:, -1:])
        count = torch.full((len(logits), 1), size, dtype=torch.int64, device=logits.device)
        return keep(logits, _best(logits, count, best))


@dataclass(frozen=True, slots=True)
class TopP(Pathless):
    """Keeps token i iff the mass strictly before it, in descending order, is below ``top_p``."""

    name: ClassVar[str] = "top_p"
    sampling: ClassVar[bool] = True
    top_p: float
    min_tokens_to_keep: int = 1

    def transform(self, logits: Tensor) -> Tensor:
        """Masks the tail."""
        count, best = _nucleus(logits, self.top_p, logits.shape[-1])
        count = count.clamp(min=min(self.min_tokens_to_keep, best.shape[-1]))
        return keep(logits, _best(logits, count, best))


@dataclass(frozen=True, slots=True)
class TopKTopP(Pathless):
    """Top-k and top-p on the same probabilities, without renormalising in between (SGLang).

    Sequential top-k then top-p divides the mass by that of the k best first and so keeps fewer tokens. Exactly k tokens
    pass the first rule, lower ids among equals.
    """

    name: ClassVar[str] = "top_k_top_p"
    sampling: ClassVar[bool] = True
    top_k: int
    top_p: float
    min_tokens_to_keep: int = 1

    def transform(self, logits: Tensor) -> Tensor:
        """Masks what either rule masks."""
        size = min(max(self.top_k, self.min_tokens_to_keep), logits.shape[-1])
        count, best = _nucleus(logits, self.top_p, size)
        count = count.clamp(min=min(self.min_tokens_to_keep, best.shape[-1]))
        return keep(logits, _best(logits, count, best))


@dataclass(frozen=True, slots=True)
class MinP(Pathless):
    """Keeps ``p_i >= min_p * p_max``, computed as ``l_i >= l_max + ln(min_p)``."""

    name: ClassVar[str] = "min_p"
    sampling: ClassVar[bool] = True
    min_p: float
    min_tokens_to_keep: int = 1

    def transform(self, logits: Tensor) -> Tensor:
        """Masks what is too improbable next to the best."""
        mask = logits >= logits.amax(dim=-1, keepdim=True) + math.log(self.min_p)
        if self.min_tokens_to_keep > 1:
            best = logits.topk(min(self.min_tokens_to_keep, logits.shape[-1]), dim=-1).values
            mask |= _best(logits, torch.full_like(best[:, :1], best.shape[-1], dtype=torch.int64), best)
        return keep(logits, mask)


@dataclass(frozen=True, slots=True)
class TypicalP(Pathless):
    """Keeps the smallest set of mass ``typical_p`` whose surprise is closest to the entropy; may drop the best token.

    Tokens are ordered by ``|-ln p_i - H|``. ``ties=True``: the cut is the distance of the first token that brings the
    mass to ``>= typical_p``, and every token at that distance is kept (`transformers`). ``ties=False``: the prefix ends
    with the first token that brings the mass to ``> typical_p``, lower ids first among equals (llama.cpp).
    """

    name: ClassVar[str] = "typical_p"
    sampling: ClassVar[bool] = True
    typical_p: float
    ties: bool = True
    min_tokens_to_keep: int = 1

    def transform(self, logits: Tensor) -> Tensor:
        """Masks the atypical."""
        logp = torch.log_softmax(logits, dim=-1)
        distance = (logp + entropy(logits)).abs()
        return self._within(logits, logp, distance) if self.ties else self._exact(logits, logp, distance)

    def _within(self, logits: Tensor, logp: Tensor, distance: Tensor) -> Tensor:
        """Keeps every token up to the cut's distance; only as many tokens are sorted as the mass takes."""
        vocabulary = logits.shape[-1]
        size = min(max(_FIRST_PREFIX, self.min_tokens_to_keep), vocabulary)
        while True:
            ordered, order = distance.topk(size, dim=-1, largest=False)
            reached = logp.gather(-1, order).exp_().double().cumsum(dim=-1)
            if size == vocabulary or bool((reached[:, -1] >= self.typical_p).all()):
                break
            size = min(16 * size, vocabulary)
        last = (reached < self.typical_p).sum(dim=-1, keepdim=True).clamp(min=self.min_tokens_to_keep - 1, max=size - 1)
        return keep(logits, distance <= ordered.gather(-1, last))

    def _exact(self, logits: Tensor, logp: Tensor, distance: Tensor) -> Tensor:
        """Keeps an exact prefix of the order by distance, then id."""
        order = distance.sort(dim=-1, stable=True).indices
        reached = logp.gather(-1, order).exp_().double().cumsum(dim=-1)
        short = (reached <= self.typical_p).sum(dim=-1, keepdim=True)
        kept = torch.arange(logits.shape[-1], device=logits.device) < (short + 1).clamp(min=self.min_tokens_to_keep)
        return keep(logits, torch.zeros_like(kept).scatter_(-1, order, kept))


@dataclass(frozen=True, slots=True)
class EpsilonCutoff(Pathless):
    """Keeps ``p_i >= epsilon_cutoff``, and always the ``min_tokens_to_keep`` best with their equals."""

    name: ClassVar[str] = "epsilon_cutoff"
    sampling: ClassVar[bool] = True
    epsilon_cutoff: float
    min_tokens_to_keep: int = 1

    def transform(self, logits: Tensor) -> Tensor:
        """Masks what is below the cutoff."""
        return _cutoff(logits, self.epsilon_cutoff, self.min_tokens_to_keep)


@dataclass(frozen=True, slots=True)
class EtaCutoff(Pathless):
    """Keeps ``p_i >= min(eta, sqrt(eta) * exp(-H))``, H in nats over the tokens that are left."""

    name: ClassVar[str] = "eta_cutoff"
    sampling: ClassVar[bool] = True
    eta_cutoff: float
    min_tokens_to_keep: int = 1

    def transform(self, logits: Tensor) -> Tensor:
        """Masks what is below the row's own cutoff."""
        cutoff = (math.sqrt(self.eta_cutoff) * (-entropy(logits)).exp()).clamp(max=self.eta_cutoff)
        return _cutoff(logits, cutoff, self.min_tokens_to_keep)


def _cutoff(logits: Tensor, cutoff: float | Tensor, min_tokens_to_keep: int) -> Tensor:
    """``logits`` where the probability reaches ``cutoff`` or the token is among the best."""
    best = logits.topk(min(min_tokens_to_keep, logits.shape[-1]), dim=-1).values[:, -1:]
    return keep(logits, (torch.softmax(logits, dim=-1) >= cutoff) | (logits >= best))


@dataclass(frozen=True, slots=True)
class TopNSigma(Pathless):
    """Keeps ``l_i >= l_max - n * sigma``, sigma the population standard deviation of the finite logits."""

    name: ClassVar[str] = "top_n_sigma"
    sampling: ClassVar[bool] = True
    top_n_sigma: float

    def transform(self, logits: Tensor) -> Tensor:
        """Masks what is too far below the best."""
        finite = logits > NEVER
        count = finite.sum(dim=-1, keepdim=True).clamp(min=1)
        mean = logits.masked_fill(~finite, 0.0).sum(dim=-1, keepdim=True) / count
        sigma = ((logits - mean).masked_fill(~finite, 0.0).square().sum(dim=-1, keepdim=True) / count).sqrt()
        return keep(logits, logits >= logits.amax(dim=-1, keepdim=True) - self.top_n_sigma * sigma)


@dataclass(frozen=True, slots=True)
class TopH(Pathless):
    """Keeps the longest prefix whose entropy terms ``-p ln p`` sum to at most ``top_h * H``; at least the best token.

    As in `transformers`, the 100 best tokens alone are considered, and p and H are those of their renormalised law.
    """

    name: ClassVar[str] = "top_h"
    sampling: ClassVar[bool] = True
    top_h: float
    considered: int = 100

    def transform(self, logits: Tensor) -> Tensor:
        """Masks what would add too much entropy."""
        best = logits.topk(min(self.considered, logits.shape[-1]), dim=-1).values
        logp = torch.log_softmax(best, dim=-1)
        terms = -(logp.exp() * logp.clamp(min=torch.finfo(logp.dtype).min))
        count = (terms.cumsum(dim=-1) <= self.top_h * terms.sum(dim=-1, keepdim=True)).sum(dim=-1, keepdim=True)
        return keep(logits, _best(logits, count.clamp(min=1), best))


@dataclass(frozen=True, slots=True)
class Xtc(Processor):
    """With probability ``xtc_probability``, removes the tokens of ``p >= xtc_threshold`` but the least probable one.

    Nothing happens where fewer than two tokens reach the threshold. Among equally probable least ones the highest id is
    spared. The draw is the path's uniform for the purpose ``xtc``; rows of one batch draw independently.
    """

    name: ClassVar[str] = "xtc"
    sampling: ClassVar[bool] = True
    xtc_probability: float
    xtc_threshold: float = 0.1

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Masks the top choices of the rows that drew it."""
        draws = [path.uniform("xtc") < self.xtc_probability for path in paths]
        drawn = torch.tensor(draws, dtype=torch.bool, device=logits.device)
        above = (torch.softmax(logits, dim=-1) >= self.xtc_threshold) & drawn[:, None]
        least = logits.masked_fill(~above, float("inf")).amin(dim=-1, keepdim=True)
        equal = above & (logits == least)
        spared = equal & (equal.cumsum(dim=-1) == equal.sum(dim=-1, keepdim=True))
        return keep(logits, ~above | spared)
