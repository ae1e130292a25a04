"""A part of the vocabulary that a draft keeps to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from treille.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from treille.drafters.base import Host

Keep: TypeAlias = int | Sequence[int] | None
REFRESH = 64  # tokens seen between two choices of the kept part
USED = "tokens in use"


class Trim:
    """Takes a draft's law to the kept tokens: zero elsewhere, renormalised.

    Args:
        host: where the drafter runs. Its memory counts the tokens in use, over all runs of a language model;
            verification by rejection counts those of its own text.
        keep: token ids; or a number K of tokens: those used most so far, the lowest ids first among equals (in a
            vocabulary of merges they are the common ones). Tokens that end the text are always kept.

    Raises:
        ParameterError: no token is kept, or one that does not exist.
    """

    def __init__(self, host: Host, keep: Keep) -> None:
        size = host.target.vocab_size
        self._ends = [token for token in host.eos_token_ids if token < size]
        self._most = 0
        if isinstance(keep, int) and not isinstance(keep, bool):
            if not 1 <= keep <= size:
                raise ParameterError(f"draft: keep={keep}: must be between 1 and the {size} tokens of the vocabulary")
            self._most = keep
            self._used: NDArray[np.int64] = host.memory.setdefault(USED, np.zeros(size, np.int64))
            self._own = np.zeros(size, np.int64)
            self._kept = self._choose()
        else:
            self._kept = self._mask(_ids(keep, size), size)
        self._new = 0

    def __call__(self, q: NDArray[Any]) -> NDArray[Any]:
        """`q` without the other tokens, renormalised; all zero if it has nothing in common with the kept ones."""
        kept = np.where(self._kept, q, 0)
        total = kept.sum()
        return kept / total if total > 0 else kept

    def learn(self, tokens: NDArray[Any]) -> None:
        """Count tokens of the text; nothing to do for given ids."""
        if not self._most:
            return
        np.add.at(self._used, tokens, 1)
        if self._own is not self._used:
            np.add.at(self._own, tokens, 1)
        self._new += len(tokens)
        if self._new >= REFRESH:
            self._kept, self._new = self._choose(), 0

    def alone(self) -> None:
        """Count this text only: the text of a seed that is verified by rejection depends on what was drafted."""
        if self._most and self._used is not self._own:
            self._used = self._own
            self._kept = self._choose()

    def _choose(self) -> NDArray[np.bool_]:
        return self._mask(np.argsort(-self._used, kind="stable")[: self._most], len(self._used))

    def _mask(self, ids: Any, size: int) -> NDArray[np.bool_]:
        mask = np.zeros(size, np.bool_)
        mask[ids] = True
        mask[self._ends] = True
        return mask


def _ids(keep: Any, size: int) -> list[int]:
    fits = isinstance(keep, Sequence) and not isinstance(keep, str) and len(keep) > 0
    if not fits or not all(isinstance(token, int) and 0 <= token < size for token in keep):
        raise ParameterError(
            f"draft: keep={keep!r}: give a number of tokens, or a list of ids between 0 and {size - 1}"
        )
    return list(keep)
