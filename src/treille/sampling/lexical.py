"""Lexical control: biases, forbidden tokens and sequences, and where the answer may end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from treille.errors import DecodingError
from treille.sampling.path import Scope
from treille.sampling.processors import NEVER, Pathless, Processor, flatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from treille.sampling.path import Path

TokenIds = tuple[int, ...]


def _ids(name: str, ids: TokenIds, logits: Tensor) -> Tensor:
    """``ids`` as an index.

    Raises:
        DecodingError: an id is not in the vocabulary.
    """
    vocabulary = logits.shape[-1]
    if outside := [token for token in ids if not 0 <= token < vocabulary]:
        raise DecodingError(
            f"{name} names the token {outside[0]}, but the vocabulary has {vocabulary} tokens; remove it"
        )
    return torch.tensor(ids, dtype=torch.int64, device=logits.device)


def _forbid(name: str, ids: TokenIds, logits: Tensor, rows: list[int] | None = None) -> Tensor:
    """``logits`` with ``ids`` at ``-inf``, in the given rows or in all."""
    index = _ids(name, ids, logits)
    if rows is None or len(rows) == len(logits):
        return logits.index_fill(-1, index, NEVER)
    if not rows:
        return logits
    forbidden = logits.clone()
    forbidden[torch.tensor(rows, device=logits.device)[:, None], index] = NEVER
    return forbidden


@dataclass(frozen=True, slots=True)
class LogitBias(Pathless):
    """``l_i + b_i`` for the given token ids; a bias of ``-inf`` forbids the token."""

    name: ClassVar[str] = "logit_bias"
    biases: tuple[tuple[int, float], ...]

    def transform(self, logits: Tensor) -> Tensor:
        """Adds the biases."""
        index = _ids(self.name, tuple(token for token, _ in self.biases), logits)
        values = torch.tensor([bias for _, bias in self.biases], dtype=logits.dtype, device=logits.device)
        return logits.index_add(-1, index, values.expand(len(logits), -1))


def _sequence_bias(
    name: str, biases: tuple[tuple[TokenIds, float], ...], texts: "Sequence[NDArray[np.int32]]", logits: Tensor
) -> Tensor:
    """Adds each bias to its sequence's last token, in the rows whose text ends with the tokens before it."""
    rows: list[NDArray[np.int64]] = []
    values: list[float] = []
    for text in texts:
        hits = [(ids[-1], bias) for ids, bias in biases if _ends_with(text, ids[:-1])]
        rows.append(np.array([token for token, _ in hits], dtype=np.int64))
        values.extend(bias for _, bias in hits)
    for ids, _ in biases:
        _ids(name, ids, logits)
    row, token = flatten(rows, logits.device)
    bias = torch.tensor(values, dtype=logits.dtype, device=logits.device)
    return logits.index_put((row, token), bias, accumulate=True)


def _ends_with(text: "NDArray[np.int32]", ending: TokenIds) -> bool:
    """Whether ``text`` ends with ``ending``."""
    n = len(ending)
    return n == 0 or (n <= len(text) and tuple(text[len(text) - n :].tolist()) == ending)


@dataclass(frozen=True, slots=True)
class SequenceBias(Processor):
    """Adds ``b`` to ``w_m`` where the text ends with ``w_1 … w_(m-1)``, for each ``((w_1, …, w_m), b)``."""

    name: ClassVar[str] = "sequence_bias"
    biases: tuple[tuple[TokenIds, float], ...]
    scope: Scope = "path"

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Adds the biases whose prefix is there."""
        return _sequence_bias(self.name, self.biases, [path.within(self.scope) for path in paths], logits)


@dataclass(frozen=True, slots=True)
class BadWords(Processor):
    """Forbids the last token of each sequence where the text ends with the tokens before it.

    The sequence of tokens never occurs; the same characters may, by another tokenisation.
    """

    name: ClassVar[str] = "bad_words_ids"
    sequences: tuple[TokenIds, ...]
    scope: Scope = "path"

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Forbids the ends of bad words."""
        biases = tuple((ids, NEVER) for ids in self.sequences)
        return _sequence_bias(self.name, biases, [path.within(self.scope) for path in paths], logits)


@dataclass(frozen=True, slots=True)
class NoRepeatNgram(Processor):
    """Forbids each token that would complete an n-gram that is already in the path, prompt included."""

    name: ClassVar[str] = "no_repeat_ngram_size"
    no_repeat_ngram_size: int

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Forbids the followers of the last n - 1 tokens."""
        rows, ids = flatten([self._followers(path.tokens, logits.shape[-1]) for path in paths], logits.device)
        return logits.index_put((rows, ids), torch.tensor(NEVER, device=logits.device))

    def _followers(self, tokens: "NDArray[np.int32]", vocabulary: int) -> "NDArray[np.int64]":
        """The tokens that followed the last n - 1 tokens earlier, int64 ``[M]``."""
        starts = len(tokens) - self.no_repeat_ngram_size + 1
        if starts <= 0:
            return np.empty(0, dtype=np.int64)
        match = np.ones(starts, dtype=np.bool_)
        for offset in range(self.no_repeat_ngram_size - 1):
            match &= tokens[offset : starts + offset] == tokens[starts + offset]
        followers = tokens[self.no_repeat_ngram_size - 1 :][match].astype(np.int64)
        return followers[followers < vocabulary]


@dataclass(frozen=True, slots=True)
class SuppressTokens(Pathless):
    """Forbids the given tokens everywhere."""

    name: ClassVar[str] = "suppress_tokens"
    tokens: TokenIds

    def transform(self, logits: Tensor) -> Tensor:
        """Forbids the tokens."""
        return _forbid(self.name, self.tokens, logits)


@dataclass(frozen=True, slots=True)
class BeginSuppressTokens(Processor):
    """Forbids the given tokens as the first of the output."""

    name: ClassVar[str] = "begin_suppress_tokens"
    tokens: TokenIds

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Forbids the tokens where nothing was generated yet."""
        rows = [i for i, path in enumerate(paths) if path.output_length == 0]
        return _forbid(self.name, self.tokens, logits, rows)


@dataclass(frozen=True, slots=True)
class MinLength(Processor):
    """Forbids every end token while prompt and output together are shorter than ``min_length``."""

    name: ClassVar[str] = "min_length"
    min_length: int
    eos_ids: TokenIds

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Forbids the end where it is too early."""
        rows = [i for i, path in enumerate(paths) if len(path) < self.min_length]
        return _forbid(self.name, self.eos_ids, logits, rows)


@dataclass(frozen=True, slots=True)
class MinNewTokens(Processor):
    """Forbids every end token among the first ``min_new_tokens`` of the output."""

    name: ClassVar[str] = "min_new_tokens"
    min_new_tokens: int
    eos_ids: TokenIds

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Forbids the end where it is too early."""
        rows = [i for i, path in enumerate(paths) if path.output_length < self.min_new_tokens]
        return _forbid(self.name, self.eos_ids, logits, rows)


@dataclass(frozen=True, slots=True)
class ForcedEos(Processor):
    """At the last place that fits, the given tokens get logit 0 and all others ``-inf``.

    Attributes:
        token_ids: the tokens that end the answer.
        max_length: tokens of prompt and output together; ``None`` is no limit.
        max_new_tokens: tokens of the output; ``None`` is no limit.
    """

    name: ClassVar[str] = "forced_eos_token_id"
    token_ids: TokenIds
    max_length: int | None = None
    max_new_tokens: int | None = None

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Forces the end at the last place."""
        rows = [i for i, path in enumerate(paths) if self._is_last(path)]
        if not rows:
            return logits
        forced = logits.clone()
        index = torch.tensor(rows, device=logits.device)
        forced[index] = NEVER
        forced[index[:, None], _ids(self.name, self.token_ids, logits)] = 0.0
        return forced

    def _is_last(self, path: "Path") -> bool:
        by_length = self.max_length is not None and len(path) == self.max_length - 1
        return by_length or (self.max_new_tokens is not None and path.output_length == self.max_new_tokens - 1)


@dataclass(frozen=True, slots=True)
class ExponentialDecayLength(Processor):
    """``l_eos + |l_eos| * (factor ** (n - start) - 1)`` for output lengths ``n > start``; masked ends stay masked.

    The result stops at the largest float32, where `transformers` overflows.
    """

    name: ClassVar[str] = "exponential_decay_length_penalty"
    start: int
    factor: float
    eos_ids: TokenIds

    def __call__(self, paths: "Sequence[Path]", logits: Tensor, /) -> Tensor:
        """Raises the end tokens of long outputs."""
        rows = [i for i, path in enumerate(paths) if path.output_length > self.start]
        if not rows:
            return logits
        excess = [paths[i].output_length - self.start for i in rows]
        growth = torch.pow(self.factor, torch.tensor(excess, dtype=torch.float64, device=logits.device)) - 1.0
        place = torch.tensor(rows, device=logits.device)[:, None], _ids(self.name, self.eos_ids, logits)
        end = logits[place].double()
        largest = torch.finfo(logits.dtype).max
        raised = (end + end.abs() * growth[:, None]).clamp(min=-largest, max=largest)
        result = logits.clone()
        result[place] = torch.where(end.isfinite(), raised, end).to(logits.dtype)
        return result
