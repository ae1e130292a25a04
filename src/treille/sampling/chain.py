"""An ordered list of processors, applied to the rows of a batch."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from treille.errors import DecodingError, NoTokenLeft
from treille.sampling.processors import NEVER, Processor, UserProcessor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.sampling.path import Path


@dataclass(frozen=True, slots=True)
class Chain:
    """Processors in the order in which they apply.

    Chains compare by value, so rows of different requests with equal chains can be processed together.
    """

    processors: tuple[Processor, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.processors)

    @property
    def deterministic(self) -> "Chain":
        """The processors that greedy and beam search apply: those that do not only shape sampling."""
        return Chain(tuple(p for p in self.processors if not p.sampling))

    def describe(self) -> list[str]:
        """The order in force, one line per processor, with its parameters."""
        return [f"{i}. {p.describe()}" for i, p in enumerate(self.processors, start=1)]

    def __call__(self, paths: "Sequence[Path]", logits: Tensor) -> Tensor:
        """The processed logits, float32 ``[N, V]``; the input is not written.

        Raises:
            NoTokenLeft: a row has no token left.
            DecodingError: a row holds NaN or infinity, or a user's function failed.
        """
        result, failures = self.apply(paths, logits)
        for error in failures.values():
            raise error
        return result

    def apply(self, paths: "Sequence[Path]", logits: Tensor) -> tuple[Tensor, dict[int, DecodingError]]:
        """The processed logits, and the error of each row that failed; a failed row of the result is all ``-inf``.

        One row's failure does not touch the others. The result is the input itself where nothing was to be done.
        """
        assert logits.dtype == torch.float32, f"processors work on float32 logits, not {logits.dtype}"
        assert logits.ndim == 2, f"logits must be [N, V], not {list(logits.shape)}"
        assert len(paths) == len(logits), f"{len(paths)} paths for {len(logits)} rows"
        failures: dict[int, DecodingError] = {}
        result = logits
        if not paths:
            return result, failures
        for processor in self.processors:
            if isinstance(processor, UserProcessor):
                result = _row_by_row(processor, paths, result, failures)
                continue
            try:
                result = processor(paths, result)
            except DecodingError as error:  # a fault of the processor, not of a row
                return torch.full_like(logits, NEVER), dict.fromkeys(range(len(paths)), error)
        bad = torch.nonzero(~result.amax(dim=-1).isfinite()).flatten().tolist()
        for row in bad:
            if row not in failures:
                failures[row] = self._blame(paths[row], logits[row : row + 1])
        if failures:
            result = result.index_fill(0, torch.tensor(list(failures), device=logits.device), NEVER)
        return result, failures

    def _blame(self, path: "Path", row: Tensor) -> DecodingError:
        """The error of a row whose best logit is not finite, naming the processor after which it stayed so."""
        culprit, value = "the model's own logits", float(row.amax())
        for processor in self.processors:
            before, row = row, processor([path], row)
            if math.isfinite(before.amax()):
                culprit, value = processor.describe(), float(row.amax())
        if value == NEVER:
            return NoTokenLeft(f"no token is left after {culprit}; loosen it, or remove a processor before it")
        return DecodingError(f"the best logit is {value} after {culprit}; remove_invalid_values=True replaces it")


def _row_by_row(
    processor: UserProcessor, paths: "Sequence[Path]", logits: Tensor, failures: dict[int, DecodingError]
) -> Tensor:
    """``processor`` on each row that has not failed; a row on which it raises joins ``failures``."""
    rows = list(logits.unsqueeze(1))
    for i, path in enumerate(paths):
        if i in failures:
            continue
        try:
            rows[i] = processor([path], rows[i])
        except DecodingError as error:
            failures[i] = error
    return torch.cat(rows)
