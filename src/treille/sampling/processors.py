"""The protocol of processors, and those that neither count, truncate nor look at words.

A processor maps logits to logits, given the path. It is a frozen dataclass without state: what it needs of the past it
reads from the path, so forks, cuts and rollbacks cannot make it wrong. Row ``i`` of the result depends on
``(paths[i], logits[i])`` only, and the input is never written.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from treille.errors import DecodingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from treille.sampling.path import Path

NEVER = float("-inf")
"""The logit of a token that must not follow."""
SMALLEST_TEMPERATURE = 1e-6
"""Below it a quotient may leave float32, so only 0 itself, which is greedy, is accepted there."""


class Processor(ABC):
    """Logits to logits, given the paths.

    Attributes:
        name: the name in the order of a chain.
        sampling: whether it only shapes what is sampled (temperature, truncation). Greedy and beam search leave such
            processors out, as `transformers` does with ``do_sample=False``.
    """

    __slots__ = ()
    name: ClassVar[str]
    sampling: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """The processed logits, float32 ``[N, V]``; ``logits`` (float32 ``[N, V]``) is not written."""

    def describe(self) -> str:
        """One line: the name and the parameters in force."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)  # type: ignore[arg-type]
        return " ".join([self.name, *(f"{name}={_short(value)}" for name, value in values)])


class Pathless(Processor):
    """A processor of the logits alone."""

    __slots__ = ()

    def __call__(self, _paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """The processed logits, float32 ``[N, V]``."""
        return self.transform(logits)

    @abstractmethod
    def transform(self, logits: Tensor) -> Tensor:
        """The processed logits, float32 ``[N, V]``; ``logits`` (float32 ``[N, V]``) is not written."""


def _short(value: object) -> str:
    """``value`` for a line of text; long tuples are cut."""
    if isinstance(value, tuple) and len(value) > 6:
        return f"({', '.join(map(str, value[:6]))}, … {len(value)} in all)"
    return str(value)


def keep(logits: Tensor, mask: Tensor) -> Tensor:
    """``logits`` where ``mask`` is true, ``-inf`` elsewhere."""
    return torch.where(mask, logits, NEVER)


def flatten(arrays: "Sequence[NDArray[np.int64]]", device: torch.device) -> tuple[Tensor, Tensor]:
    """Row index and value of every element of ragged per-row arrays, two int64 ``[sum of lengths]``."""
    rows = np.repeat(np.arange(len(arrays)), [len(a) for a in arrays])
    values = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
    return torch.from_numpy(rows).to(device), torch.from_numpy(values.astype(np.int64, copy=False)).to(device)


def one_hot(logits: Tensor) -> Tensor:
    """The best logit of each row kept, lowest id on ties; all others ``-inf``."""
    first = logits.argmax(dim=-1, keepdim=True)  # torch returns the first of equal maxima
    return torch.full_like(logits, NEVER).scatter_(-1, first, logits.gather(-1, first))


@dataclass(frozen=True, slots=True)
class Temperature(Pathless):
    """``logits / temperature``; at temperature 0 the best token alone is left (lowest id on ties)."""

    name: ClassVar[str] = "temperature"
    sampling: ClassVar[bool] = True
    temperature: float

    def transform(self, logits: Tensor) -> Tensor:
        """Divides by the temperature."""
        return logits / self.temperature if self.temperature > 0 else one_hot(logits)


@dataclass(frozen=True, slots=True)
class DynamicTemperature(Pathless):
    """``logits / T`` with ``T = low + (high - low) * (H / ln n) ** exponent``, as llama.cpp's ``dynatemp``.

    ``H`` is the entropy in nats and ``n`` the number of tokens left. A row with one token left is unchanged; where
    ``T`` comes out below 1e-6 (too small to divide by) the best token alone is left.
    """

    name: ClassVar[str] = "temperature"
    sampling: ClassVar[bool] = True
    low: float
    high: float
    exponent: float = 1.0

    def transform(self, logits: Tensor) -> Tensor:
        """Divides each row by its own temperature."""
        count = (logits > NEVER).sum(dim=-1, keepdim=True)
        share = entropy(logits) / count.clamp(min=2).log()
        temperature = self.low + (self.high - self.low) * share.clamp(0.0, 1.0) ** self.exponent
        temperature = torch.where(count > 1, temperature, torch.ones_like(temperature))
        frozen = temperature < SMALLEST_TEMPERATURE
        scaled = logits / torch.where(frozen, torch.ones_like(temperature), temperature)
        return torch.where(frozen, one_hot(logits), scaled) if bool(frozen.any()) else scaled


def entropy(logits: Tensor) -> Tensor:
    """Entropy of ``softmax(logits)`` in nats, float32 ``[N, 1]``; tokens of probability zero add nothing."""
    logp = torch.log_softmax(logits, dim=-1)
    return -(logp.exp() * logp.clamp(min=torch.finfo(logp.dtype).min)).sum(dim=-1, keepdim=True)


@dataclass(frozen=True, slots=True)
class RemoveInvalidValues(Pathless):
    """NaN becomes 0, ``inf`` the largest and ``-inf`` the smallest float32, as `transformers` does.

    Masked tokens come back with the smallest float32; see docs/processors.md before using it with a constraint.
    """

    name: ClassVar[str] = "remove_invalid_values"

    def transform(self, logits: Tensor) -> Tensor:
        """Replaces what is not a number."""
        return torch.nan_to_num(logits, nan=0.0)


@dataclass(frozen=True, slots=True)
class Renormalize(Pathless):
    """``log_softmax(logits)``: the result is log-probabilities that sum to one."""

    name: ClassVar[str] = "renormalize_logits"

    def transform(self, logits: Tensor) -> Tensor:
        """Normalises each row."""
        return torch.log_softmax(logits, dim=-1)


@dataclass(frozen=True, slots=True)
class UserProcessor(Processor):
    """A user's function ``(path, logits [V]) -> logits [V]``, called once per row on a copy of the row.

    Raises:
        DecodingError: the function raised, or its result is not a float32 ``[V]`` tensor without NaN.
    """

    name: ClassVar[str] = "logits_processor"
    function: "Callable[[Path, Tensor], Tensor]"

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Stacks the results of the function."""
        return torch.stack([self._row(path, row) for path, row in zip(paths, logits, strict=True)])

    def describe(self) -> str:
        """The name of the function."""
        return f"{self.name} {self._label()}"

    def _label(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))

    def _row(self, path: "Path", row: Tensor) -> Tensor:
        try:
            result = self.function(path, row.clone())
        except Exception as error:
            raise DecodingError(f"the logits processor {self._label()} raised {error!r}") from error
        if not isinstance(cast("object", result), Tensor):
            self._refuse(f"a {type(result).__name__}", "return the logits as a tensor")
        if result.shape != row.shape or result.dtype != row.dtype or result.device != row.device:
            given = f"{result.dtype} {list(result.shape)} on {result.device}"
            self._refuse(given, f"return {row.dtype} {list(row.shape)} on {row.device}")
        # The sum is NaN where a logit is, or where infinities of both signs are: only then is a closer look worth it.
        if math.isnan(float(result.sum())) and bool((result.isnan() & ~row.isnan()).any()):
            self._refuse("NaN", "use -inf to forbid a token, and check for inf - inf")
        return result

    def _refuse(self, given: str, way_out: str) -> None:
        raise DecodingError(f"the logits processor {self._label()} returned {given}; {way_out}")
