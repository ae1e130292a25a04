"""Masks of constraints, for all rows of a forward and computed while it runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from torch import Tensor

    from treille.engine.readouts import Reading
    from treille.hooks import Constrained
    from treille.tree import Node


@cache
def _worker() -> ThreadPoolExecutor:
    """One thread: recognizers let other threads run while they work, and more of them would wait for each other."""
    return ThreadPoolExecutor(1, thread_name_prefix="treille-masks")


class Masks:
    """What may follow the nodes of a forward; the work starts at once and is waited for when it is asked for.

    Args:
        readings: the readouts of the forward.
    """

    def __init__(self, readings: Sequence[Reading]) -> None:
        wanted: dict[Constrained, dict[int, Node]] = {}
        for reading in readings:
            constraint = reading.pending.task.job.run.constraint
            if constraint is not None:
                wanted.setdefault(constraint, {})[id(reading.node)] = reading.node
        self._found: list[tuple[Constrained, list[int], Future[NDArray[np.bool_]]]] = []
        for constraint, nodes in wanted.items():
            future = _worker().submit(constraint.masks, list(nodes.values()))
            self._found.append((constraint, list(nodes), future))
        self._rows: dict[tuple[int, int], NDArray[np.bool_]] | None = None
        self._failed: dict[int, Exception] = {}  # by constraint

    @property
    def any(self) -> bool:
        """Whether any run of this forward has a constraint."""
        return bool(self._found)

    def allowed(self, readings: Sequence[Reading], width: int, device: torch.device) -> Tensor | None:
        """Which tokens each reading may take, bool `[n, V]`; None where none of them has a constraint."""
        if self._rows is None:
            self._rows = self._collect(width)
        rows = [self._rows.get((id(r.pending.task.job.run.constraint), id(r.node))) for r in readings]
        if all(row is None for row in rows):
            return None
        free = np.ones(width, np.bool_)
        return torch.from_numpy(np.stack([free if row is None else row for row in rows])).to(device)

    def failure(self, reading: Reading) -> Exception | None:
        """Why a reading has no mask; it belongs to its run, never to the others of the forward."""
        return self._failed.get(id(reading.pending.task.job.run.constraint))

    def _collect(self, width: int) -> dict[tuple[int, int], NDArray[np.bool_]]:
        """Rows by constraint and node; where a constraint failed, they allow nothing."""
        rows: dict[tuple[int, int], NDArray[np.bool_]] = {}
        for constraint, nodes, future in self._found:
            failure = future.exception()
            if isinstance(failure, Exception):
                self._failed[id(constraint)] = failure
                found = np.zeros((len(nodes), width), np.bool_)
            else:
                found = future.result()
            rows.update({(id(constraint), node): row for node, row in zip(nodes, found, strict=True)})
        return rows
