"""Penalties on tokens that were seen: repetition (CTRL, 1909.05858), frequency and presence.

Counts are recomputed from the path at each call, in vectorised numpy: linear in the tokens in scope.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from treille.sampling.path import Scope
from treille.sampling.processors import Processor, flatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.sampling.path import Path


def seen_tokens(
    paths: "Sequence[Path]", scope: Scope, last_n: int | None, vocabulary: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, token id and count of each distinct token in scope, three int64 ``[M]``.

    Ids outside the vocabulary (a prompt may hold them when the embedding is larger than the head) are left out.
    """
    ids, counts = [], []
    for path in paths:
        tokens = path.within(scope, last_n)
        histogram = np.bincount(tokens, minlength=vocabulary)[:vocabulary]
        distinct = np.flatnonzero(histogram)
        ids.append(distinct)
        counts.append(histogram[distinct])
    rows, flat_ids = flatten(ids, device)
    return rows, flat_ids, flatten(counts, device)[1]


@dataclass(frozen=True, slots=True)
class RepetitionPenalty(Processor):
    """Logits of seen tokens divided (``l >= 0``) or multiplied (``l < 0``) by the penalty, once per distinct token.

    Not invariant to a shift of the logits, so it acts differently on logits and on log-probabilities.

    Attributes:
        repetition_penalty: above 0; 1 is neutral, above 1 discourages.
        scope: which tokens count as seen.
        last_n: of those, the last ``last_n``; ``None`` is all.
    """

    name: ClassVar[str] = "repetition_penalty"
    repetition_penalty: float
    scope: Scope = "path"
    last_n: int | None = None

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Scales the logits of seen tokens."""
        rows, ids, _ = seen_tokens(paths, self.scope, self.last_n, logits.shape[-1], logits.device)
        seen = logits[rows, ids]
        scaled = torch.where(seen < 0, seen * self.repetition_penalty, seen / self.repetition_penalty)
        return logits.index_put((rows, ids), scaled)


@dataclass(frozen=True, slots=True)
class FrequencyPenalty(Processor):
    """``l_i - frequency_penalty * count_i``, the count taken over the scope."""

    name: ClassVar[str] = "frequency_penalty"
    frequency_penalty: float
    scope: Scope = "output"
    last_n: int | None = None

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Lowers the logits of seen tokens by their counts."""
        rows, ids, counts = seen_tokens(paths, self.scope, self.last_n, logits.shape[-1], logits.device)
        return logits.index_put((rows, ids), logits[rows, ids] - self.frequency_penalty * counts)


@dataclass(frozen=True, slots=True)
class PresencePenalty(Processor):
    """``l_i - presence_penalty`` for every token in the scope."""

    name: ClassVar[str] = "presence_penalty"
    presence_penalty: float
    scope: Scope = "output"
    last_n: int | None = None

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Lowers the logits of seen tokens once."""
        rows, ids, _ = seen_tokens(paths, self.scope, self.last_n, logits.shape[-1], logits.device)
        return logits.index_put((rows, ids), logits[rows, ids] - self.presence_penalty)
