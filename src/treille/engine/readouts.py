"""Readouts: reduce next-token distributions on the device, batched by kind, and bring only the answers to the host."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from treille.engine import loose
from treille.errors import DecodingError, NoTokenLeft
from treille.kernels.logits import summarise
from treille.requests import (
    Argmax,
    Attention,
    Choice,
    Distribution,
    Exits,
    Hidden,
    LogProbs,
    Probabilities,
    Readout,
    Sample,
    Top,
    TopK,
)
from treille.sampling.path import Path
from treille.sampling.random import sample_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from treille.engine.batch import Batch
    from treille.engine.job import Pending
    from treille.engine.masking import Masks
    from treille.sampling.chain import Chain
    from treille.sampling.random import Random
    from treille.tree import Node


class Reading:
    """One readout to take at row `row` of a forward, and its answer.

    `result` is what the strategy is sent; `error` is raised in it instead.
    """

    __slots__ = ("error", "index", "node", "pending", "place", "result", "row", "want")

    def __init__(self, pending: Pending, index: int, place: int, row: int) -> None:
        self.pending = pending
        self.index = index
        self.place = place
        self.row = row
        self.node: Node = pending.request.nodes[index]
        self.want: Readout = pending.wants[place]
        self.result: Any = None
        self.error: Exception | None = None


def of_batch(pendings: Sequence[Pending], batch: Batch) -> list[Reading]:
    """Every readout whose row is in this batch."""
    readings: list[Reading] = []
    for pending in pendings:
        nodes = pending.request.nodes
        for index in sorted(pending.missing) if len(pending.missing) > 1 else pending.missing:
            row = batch.row_of(nodes[index], pending.variant)
            if row is not None:
                readings.extend(Reading(pending, index, place, row) for place in range(len(pending.wants)))
    return readings


class _Logits:
    """Logits `[n, V]`, and what is computed of them once."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @cached_property
    def _summary(self) -> tuple[Tensor, Tensor]:
        """The best token and log Σ exp of each row; on CPU by one call of a kernel."""
        if self.values.device.type == "cpu":
            best, norm = torch.empty(len(self.values), dtype=torch.int64), torch.empty(len(self.values))
            summarise(self.values.contiguous().numpy(), best.numpy(), norm.numpy())
            return best, norm
        return self.values.argmax(-1), self.values.logsumexp(-1)

    @property
    def best(self) -> Tensor:
        """The most probable token of each row, the lowest on ties, `[n]`."""
        return self._summary[0]

    @property
    def norm(self) -> Tensor:
        """Log Σ exp of each row, `[n]` float32; not a number where a row has no token."""
        return self._summary[1]

    def logprobs(self, at: list[int], tokens: list[int]) -> list[float]:
        """The log-probability of one token in each row of `at`."""
        if self.values.device.type == "cpu":
            values, norm = self.values.numpy(), self.norm.numpy()
            return [values.item(i, token) - norm.item(i) for i, token in zip(at, tokens, strict=True)]
        index = torch.tensor([at, tokens], device=self.values.device)
        return (self.values[index[0], index[1]] - self.norm[index[0]]).tolist()


class _Rows:
    """Logits of the rows that are read, raw and processed, each computed once however many readings share it."""

    def __init__(self, raw: Tensor, position: Mapping[int, int], masks: Masks) -> None:
        self.raw = _Logits(raw)
        self.masks = masks
        self.position = position
        self._chunks: list[Tensor] = []
        self._count = 0
        self.errors: dict[int, Exception] = {}
        self.processed = self.raw

    def process(self, readings: Sequence[Reading]) -> list[int]:
        """Apply each job's constraint and chain to its rows; the processed row of every reading, in order."""
        if not self.masks.any and all(reading.pending.task.job.chain is None for reading in readings):
            return [self.position[reading.row] for reading in readings]
        groups: dict[tuple[Chain | None, bool], list[Reading]] = {}  # chains compare by value
        keys: list[object] = []
        leaders: dict[object, Reading] = {}  # the reading whose processed row the others of the same key share
        for reading in readings:
            job, want = reading.pending.task.job, reading.want
            scores = isinstance(want, TopK) and not want.renormalize
            stream = want.random.stream if isinstance(want, Sample) else None
            key: object = (reading.row, job.number, stream, scores)
            keys.append(key)
            if key not in leaders:
                leaders[key] = reading
                groups.setdefault((job.chain, scores), []).append(reading)
        order: dict[int, int] = {}
        for (chain, scores), members in groups.items():
            self._append(chain, scores, members, order)
        self.processed = _Logits(torch.cat(self._chunks) if len(self._chunks) > 1 else self._chunks[0])
        return [order[id(leaders[key])] for key in keys]

    def _append(self, chain: Chain | None, scores: bool, members: list[Reading], order: dict[int, int]) -> None:
        raw = self.raw.values
        index = torch.tensor([self.position[reading.row] for reading in members], device=raw.device)
        logits = raw.index_select(0, index)
        if scores:
            logits = logits - self.raw.norm.index_select(0, index).unsqueeze(1)
        constrained = self.masks.any and self.masks.forbid(members, logits)
        if constrained:  # before the processors, so that truncations count allowed tokens only
            self._dead_ends(members, self.masks.empty(members))
        if chain is not None:
            logits, failures = chain.apply([_path(reading) for reading in members], logits)
            if constrained:  # after them too: one may insist on a token, such as a forced end
                logits = logits.clone(memory_format=torch.contiguous_format)  # it may be a processor's own
                self.masks.forbid(members, logits)
                self._dead_ends(members, (logits.amax(-1) == -torch.inf).nonzero().flatten().tolist())
            for i, failure in failures.items():
                self.errors.setdefault(self._count + i, failure)
        for reading in members:
            order[id(reading)] = self._count
            self._count += 1
        self._chunks.append(logits)

    def _dead_ends(self, members: list[Reading], dead: Iterable[int]) -> None:
        """Rows without a token have the constraint's error."""
        for i in dead:
            constraint = members[i].pending.task.job.run.constraint
            if constraint is not None:
                failure = self.masks.failure(members[i])
                self.errors.setdefault(self._count + i, failure or constraint.dead_end(members[i].node))


def _path(reading: Reading) -> Path:
    run, want = reading.pending.task.job.run, reading.want
    source: Random = want.random if isinstance(want, Sample) else run.random
    length = reading.node.length
    return Path(reading.node.path, run.tip.length, lambda purpose: source.uniform(length, purpose))


def boundaries(readings: Sequence[Reading]) -> set[int]:
    """The layer boundaries whose hidden states these readings need."""
    wants = [reading.want for reading in readings if isinstance(reading.want, Hidden | Attention | Exits)]
    return {layer for want in wants for layer in want.layers if layer >= 0}


def take(
    readings: Sequence[Reading],
    hidden: Tensor,
    boundaries: Mapping[int, Tensor],
    logits_of: Callable[[Tensor], Tensor],
    attention_of: Callable[[int, int], Tensor],
    exit_logits_of: Callable[[Tensor], Tensor],
    masks: Masks,
) -> None:
    """Answer all readings of one forward.

    Args:
        readings: what is wanted, of which rows.
        hidden: `[R, H]`, after the final norm.
        boundaries: hidden states `[R, H]` at the layer boundaries that were asked for.
        logits_of: hidden `[n, H]` to logits `[n, V]` float32.
        attention_of: (layer, row) to attention weights `[Hq, T]` float32.
        exit_logits_of: states `[n, H]` at a layer boundary to logits `[n, V]` float32.
        masks: of the constraints.
    """
    on_logits = [reading for reading in readings if not isinstance(reading.want, Hidden | Attention | Exits)]
    _exits([reading for reading in readings if isinstance(reading.want, Exits)], boundaries, exit_logits_of)
    for reading in readings:
        if isinstance(reading.want, Hidden):
            states = [hidden if layer == -1 else boundaries[layer] for layer in reading.want.layers]
            reading.result = torch.stack([state[reading.row].float() for state in states])
        elif isinstance(reading.want, Attention):
            reading.result = torch.stack([attention_of(layer, reading.row) for layer in reading.want.layers])
    if not on_logits:
        return
    wanted = list(dict.fromkeys(reading.row for reading in on_logits))
    whole = wanted == list(range(hidden.shape[0]))
    picked = hidden if whole else hidden.index_select(0, torch.tensor(wanted, device=hidden.device))
    rows = _Rows(logits_of(picked), {row: i for i, row in enumerate(wanted)}, masks)
    _answer(on_logits, rows)


def _exits(readings: list[Reading], boundaries: Mapping[int, Tensor], logits_of: Callable[[Tensor], Tensor]) -> None:
    """The most probable token at every boundary asked for; one product with the head per boundary."""
    found: dict[tuple[int, int], Choice] = {}
    for layer in sorted({layer for reading in readings for layer in reading.want.layers}):  # type: ignore[union-attr]
        rows = list(dict.fromkeys(r.row for r in readings if layer in r.want.layers))  # type: ignore[union-attr]
        states = boundaries[layer].index_select(0, torch.tensor(rows, device=boundaries[layer].device))
        logprobs, tokens = logits_of(states).log_softmax(-1).max(-1)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            found[row, layer] = Choice(token, logprob, logprob)
    for reading in readings:
        reading.result = tuple(found[reading.row, layer] for layer in reading.want.layers)  # type: ignore[union-attr]


def _answer(readings: list[Reading], rows: _Rows) -> None:
    raw = [r for r in readings if isinstance(r.want, LogProbs | Distribution | Probabilities) and r.want.raw]
    rest = [r for r in readings if not (isinstance(r.want, LogProbs | Distribution | Probabilities) and r.want.raw)]
    if raw:
        _values(raw, [rows.position[r.row] for r in raw], rows.raw)
    if not rest:
        return
    places = rows.process(rest)
    kinds: dict[object, tuple[list[Reading], list[int]]] = {}
    for reading, place in zip(rest, places, strict=True):
        error = rows.errors.get(place)
        if isinstance(error, NoTokenLeft) and isinstance(reading.want, TopK):
            reading.result = Top((), (), ())  # a search drops the branch and goes on with the others
            continue
        if error is not None:
            reading.error = error
            continue
        want = reading.want
        constraint = reading.pending.task.job.run.constraint
        if constraint is not None and constraint.vague(reading.node):
            raw_at = rows.position[reading.row]
            try:
                loose.take(reading, rows.processed.values[place], rows.raw.values[raw_at] - rows.raw.norm[raw_at])
            except DecodingError as failure:  # a recognizer's limit is this run's failure, not the batch's
                reading.error = failure
            continue
        kind = _kind(want)
        group = kinds.setdefault(kind, ([], []))
        group[0].append(reading)
        group[1].append(place)
    for members, at in kinds.values():
        first = members[0].want
        match first:
            case Argmax() | Sample():
                _choose(members, at, rows)
            case TopK():
                _top(members, at, rows, first)
            case LogProbs() | Distribution() | Probabilities():
                _values(members, at, rows.processed)
            case Hidden() | Attention() | Exits():  # pragma: no cover - separated above
                raise AssertionError


def _kind(want: Readout) -> object:
    """Readouts of one kind are taken together."""
    if isinstance(want, TopK):
        return TopK, want.k, want.renormalize
    return (Sample, want.gumbel) if isinstance(want, Sample) else type(want)


def _select(tensor: Tensor, index: list[int]) -> Tensor:
    """`tensor[index]`, without a copy when that is all of it."""
    if index == list(range(tensor.shape[0])):
        return tensor
    return tensor.index_select(0, torch.tensor(index, device=tensor.device))


def _choose(members: list[Reading], at: list[int], rows: _Rows) -> None:
    first = members[0].want
    if isinstance(first, Argmax):
        picked = _select(rows.processed.best, at).tolist()
    else:
        picked = _drawn(members, _select(rows.processed.values, at))
    found = raw = rows.processed.logprobs(at, picked)
    if rows.processed is not rows.raw:
        raw = rows.raw.logprobs([rows.position[r.row] for r in members], picked)
    for reading, token, logprob, raw_logprob in zip(members, picked, found, raw, strict=True):
        reading.result = Choice(token, logprob, raw_logprob)


def _drawn(members: list[Reading], logits: Tensor) -> list[int]:
    """A token of each row, by the noise or the uniform number of its place."""
    wants = [(reading.want, reading.node.length) for reading in members if isinstance(reading.want, Sample)]
    if wants[0][0].gumbel:
        noise = np.stack([want.random.gumbel(length, "sample", logits.shape[1]) for want, length in wants])
        tokens = (logits.double() + torch.from_numpy(noise).to(logits.device)).argmax(-1)
    else:
        draws = [want.random.uniform(length, "sample") for want, length in wants]
        tokens = sample_rows(logits, torch.tensor(draws, dtype=torch.float64, device=logits.device))
    return tokens.tolist()


def top_rows(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row and their ids, best first, the lowest id first on ties: `[N, k]` each."""
    values, ids = torch.topk(logits, min(k, logits.shape[1]), dim=-1)
    tied = ((values[:, 1:] == values[:, :-1]).any(-1)) | ((logits >= values[:, -1:]).sum(-1) > values.shape[1])
    for row in tied.nonzero().flatten().tolist():
        candidates = (logits[row] >= values[row, -1]).nonzero().flatten()
        order = torch.sort(logits[row, candidates], descending=True, stable=True).indices[: values.shape[1]]
        ids[row] = candidates[order]
        values[row] = logits[row, ids[row]]
    return values, ids


def _top(members: list[Reading], at: list[int], rows: _Rows, want: TopK) -> None:
    values, ids = top_rows(_select(rows.processed.values, at), want.k)
    if want.renormalize or rows.processed is rows.raw:
        values = values - _select(rows.processed.norm, at).unsqueeze(1)
    if rows.processed is rows.raw:
        raw = values
    else:
        raw_at = [rows.position[r.row] for r in members]
        raw = _select(rows.raw.values, raw_at).gather(1, ids) - _select(rows.raw.norm, raw_at).unsqueeze(1)
    for reading, tokens, logprobs, raw_logprobs in zip(
        members, ids.tolist(), values.tolist(), raw.tolist(), strict=True
    ):
        kept = sum(value > -torch.inf for value in logprobs)
        reading.result = Top(tuple(tokens[:kept]), tuple(logprobs[:kept]), tuple(raw_logprobs[:kept]))


def _values(members: list[Reading], at: list[int], rows: _Logits) -> None:
    logits, norm = rows.values, rows.norm
    for reading, place in zip(members, at, strict=True):
        if isinstance(reading.want, LogProbs):
            index = torch.tensor(reading.want.tokens, device=logits.device)
            reading.result = tuple((logits[place, index] - norm[place]).tolist())
        elif isinstance(reading.want, Probabilities):
            # In float64 throughout: residuals of two laws that are nearly equal are small differences.
            reading.result = torch.softmax(logits[place].double(), -1).cpu().numpy()
        else:
            reading.result = logits[place] - norm[place]
