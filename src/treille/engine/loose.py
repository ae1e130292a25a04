"""Readouts where a constraint's mask is vague: it allows too much, so every token is checked before it is answered.

Some constraints cannot say cheaply which of all tokens may follow, but can say of one token whether it may. A pick is
then rejected and drawn again until it is allowed, which gives exactly p renormalised over the allowed tokens.
Log-probabilities need the mass of all refused tokens: they are found most probable first, until what has not been
checked is too little to matter; near the end of a limited text, where most of what a mask allows is allowed, among the
few most probable that the constraint asks for. Tokens of which the constraint is sure need no check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from treille.requests import Argmax, Choice, Distribution, LogProbs, Probabilities, Sample, Top, TopK
from treille.sampling.random import sample_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from treille.engine.readouts import Reading


BLOCK = 64  # tokens that come to the host together
PICKED, LISTED = 1e-4, 1e-6
"""Share of the allowed mass that may stay unchecked where one token is picked, and where several are compared."""


def take(reading: Reading, processed: Tensor, raw: Tensor) -> None:
    """Answer one readout; its error if no token is left.

    Args:
        reading: of a node whose mask is vague.
        processed: `[V]` float32 logits after the constraint's mask and the processors.
        raw: `[V]` float32, the model's log-probabilities.
    """
    run = reading.pending.task.job.run
    constraint = run.constraint
    assert constraint is not None
    row = processed.clone()

    sure = constraint.sure(reading.node)
    checked = constraint.vague(reading.node)

    def admits(token: int) -> bool:
        return (sure is not None and bool(sure[token])) or constraint.admits(reading.node, token)

    match reading.want:
        case Argmax() | Sample():
            _settle(row, admits, sure, PICKED, checked)
            token = _pick(reading, row, admits)
            if token is None:
                reading.error = constraint.dead_end(reading.node)
                return
            logprob = float(row[token] - torch.logsumexp(row, -1))
            reading.result = Choice(token, logprob, float(raw[token]))
        case TopK(k, renormalize):
            if renormalize:
                _settle(row, admits, sure, LISTED, checked)
            reading.result = _top(row, raw, k, admits, renormalize=renormalize)
        case LogProbs(tokens):
            _settle(row, admits, sure, LISTED, checked)
            _drop(row, [token for token in tokens if not admits(token)])
            row = row - torch.logsumexp(row, -1)
            reading.result = tuple(row[list(tokens)].tolist())
        case Distribution() | Probabilities():
            _check_all(row, admits, 0.0 if checked >= len(row) else LISTED)
            if row.amax() == -torch.inf:
                reading.error = constraint.dead_end(reading.node)
            elif isinstance(reading.want, Probabilities):
                reading.result = torch.softmax(row.double(), -1).cpu().numpy()
            else:
                reading.result = torch.log_softmax(row, -1)


def _settle(
    row: Tensor, admits: Callable[[int], bool], sure: NDArray[np.bool_] | None, most: float, checked: int
) -> None:
    """Take refused tokens out of `row`, until what is unchecked is at most `most` of what is known to be allowed.

    At most `checked` tokens are looked at.
    """
    shares, allowed = torch.softmax(row.double(), -1), 0.0
    if sure is not None:
        known = torch.from_numpy(sure).to(row.device)
        allowed = float(shares[known].sum())
        shares = shares.masked_fill(known, 0.0)
    mass, order = torch.sort(shares, descending=True, stable=True)
    unchecked = mass.sum() - mass.cumsum(-1)
    refused: list[int] = []
    if float(mass.sum()) <= most * allowed:
        return
    for token, share, left in _by_block(order[:checked], mass[:checked], unchecked[:checked]):
        if share == 0.0:
            break
        if admits(token):
            allowed += share
        else:
            refused.append(token)
        if left <= most * allowed:
            break
    _drop(row, refused)


def _check_all(row: Tensor, admits: Callable[[int], bool], negligible: float) -> None:
    """Take refused tokens out of `row`, and the least probable ones that together have less than `negligible`.

    Where that would leave none, these are looked at as well.
    """
    mass, order = torch.sort(torch.softmax(row.double(), -1), descending=True, stable=True)
    beyond = int((mass.cumsum(-1) - mass <= 1 - negligible).sum()) if negligible else len(row)
    likely, rest = order[:beyond].tolist(), order[beyond:].tolist()
    _drop(row, [token for token in likely if row[token] > -torch.inf and not admits(token)])
    if row[likely].amax() > -torch.inf:
        _drop(row, rest)
    else:
        _drop(row, [token for token in rest if row[token] > -torch.inf and not admits(token)])


def _by_block(*columns: Tensor) -> Iterator[tuple[Any, ...]]:
    """The entries of equally long tensors side by side; only those that are looked at come to the host."""
    for start in range(0, len(columns[0]), BLOCK):
        yield from zip(*(column[start : start + BLOCK].tolist() for column in columns), strict=True)


def _drop(row: Tensor, tokens: list[int]) -> None:
    if tokens:
        row[tokens] = -torch.inf


def _pick(reading: Reading, row: Tensor, admits: Callable[[int], bool]) -> int | None:
    """The first allowed pick, None if there is none; what was found not to be allowed leaves `row`."""
    want, draw = reading.want, 0
    noise = None
    if isinstance(want, Sample) and want.gumbel:
        noise = torch.from_numpy(want.random.gumbel(reading.node.length, "sample", len(row))).to(row.device)
    while row.amax() > -torch.inf:
        if isinstance(want, Sample) and noise is None:
            uniform = want.random.uniform(reading.node.length, "sample", draw)
            drawn = sample_rows(row[None], torch.tensor([uniform], dtype=torch.float64, device=row.device))
            token = int(drawn[0])
        else:  # the largest of what is left, with the same noise: a draw from what is left
            token = int((row if noise is None else row.double() + noise).argmax())
        if admits(token):
            return token
        row[token] = -torch.inf
        draw += 1
    return None


def _top(row: Tensor, raw: Tensor, k: int, admits: Callable[[int], bool], *, renormalize: bool) -> Top:
    """The k best allowed tokens, the lowest id first on ties; fewer if there are fewer."""
    found: list[int] = []
    for (token,) in _by_block(torch.sort(row, descending=True, stable=True).indices):
        if len(found) == k or row[token] == -torch.inf:
            break
        if admits(token):
            found.append(token)
        else:
            row[token] = -torch.inf
    shift = torch.logsumexp(row, -1) if renormalize and found else 0.0
    return Top(tuple(found), tuple((row[found] - shift).tolist()), tuple(raw[found].tolist()))
