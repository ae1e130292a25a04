"""Masks of constraints, for all rows of a forward and computed while it runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from treille.kernels.logits import forbid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from torch import Tensor

    from treille.engine.readouts import Reading
    from treille.hooks import Constrained
    from treille.tree import Node

OVERLAPPED = 1 << 18
"""Bits of masks from which on they are computed beside the forward: waking the other thread costs as much as fewer."""


@cache
def _worker() -> ThreadPoolExecutor:
    """One thread: recognizers let other threads run while they work, and more of them would wait for each other."""
    return ThreadPoolExecutor(1, thread_name_prefix="treille-masks")


class Masks:
    """What may follow the nodes of a forward; the work starts at once and is waited for when it is asked for.

    Args:
        readings: the readouts of the forward.
        width: of the logits, V.
    """

    def __init__(self, readings: Sequence[Reading], width: int) -> None:
        self._width = width
        self._nodes: dict[Constrained, list[Node]] = {}
        self._rows: dict[tuple[int, int], int] = {}  # by constraint and node, in the order of `_nodes`
        self._failed: dict[int, Exception] = {}  # by constraint
        self._work: Future[NDArray[np.int32]] | None = None
        self._words: NDArray[np.int32] | None = None
        self._forbidden: Tensor | None = None
        self._empty: frozenset[int] = frozenset()
        wanted: dict[Constrained, dict[int, Node]] = {}
        for reading in readings:
            constraint = reading.pending.task.job.run.constraint
            if constraint is not None:
                wanted.setdefault(constraint, {})[id(reading.node)] = reading.node
        for constraint, nodes in wanted.items():
            self._nodes[constraint] = list(nodes.values())
            for node in nodes:
                self._rows[id(constraint), node] = len(self._rows)
        if len(self._rows) * width >= OVERLAPPED:
            self._work = _worker().submit(self._compute)

    @property
    def any(self) -> bool:
        """Whether any run of this forward has a constraint."""
        return bool(self._rows)

    def forbid(self, readings: Sequence[Reading], logits: Tensor) -> bool:
        """Set what the readings may not take to minus infinity in `logits` `[n, V]`; False if none has a constraint."""
        free = len(self._rows)  # the last mask, which allows everything
        rows = [free if row is None else row for row in self._found(readings)]
        if min(rows) == free:
            return False
        if self._words is None:
            self._words = self._compute() if self._work is None else self._work.result()
        if logits.device.type == "cpu":
            forbid(logits.numpy(), self._words, np.array(rows))
            return True
        if self._forbidden is None:
            bits = torch.arange(32, dtype=torch.int32, device=logits.device)
            packed = torch.from_numpy(self._words).to(logits.device)
            self._forbidden = ((packed.unsqueeze(-1) >> bits) & 1).flatten(1)[:, : self._width] == 0
        logits.masked_fill_(self._forbidden[torch.tensor(rows, device=logits.device)], -torch.inf)
        return True

    def empty(self, readings: Sequence[Reading]) -> list[int]:
        """The places of the readings that may take no token at all; to be asked after `forbid`."""
        if not self._empty:
            return []
        return [place for place, row in enumerate(self._found(readings)) if row in self._empty]

    def failure(self, reading: Reading) -> Exception | None:
        """Why a reading has no mask; it belongs to its run, never to the others of the forward."""
        return self._failed.get(id(reading.pending.task.job.run.constraint))

    def _found(self, readings: Sequence[Reading]) -> list[int | None]:
        return [self._rows.get((id(r.pending.task.job.run.constraint), id(r.node))) for r in readings]

    def _compute(self) -> NDArray[np.int32]:
        """What is allowed, packed `[rows + 1, ceil(V / 32)]`; where a constraint fails, nothing."""
        words = np.full((len(self._rows) + 1, -(-self._width // 32)), -1, np.int32)
        first = 0
        for constraint, nodes in self._nodes.items():
            out = words[first : first + len(nodes)]
            try:
                constraint.masks(nodes, out)
            except Exception as failure:  # noqa: BLE001 - whatever it was, the other runs go on
                self._failed[id(constraint)] = failure
                out[:] = 0
            first += len(nodes)
        self._empty = frozenset(np.flatnonzero(~words.any(1)).tolist())
        return words
