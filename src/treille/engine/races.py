"""Who wins a race: the output with the fewest tokens, the first branch on ties, whatever the order of execution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treille.engine.job import Group, Task


def _best(group: Group) -> tuple[int, int] | None:
    """(length, index) of the best branch that has finished."""
    lengths = [(group.results[i].length, i) for i, finished in enumerate(group.finished) if finished]
    return min(lengths, default=None)


def losers(group: Group) -> Iterator[Task]:
    """Branches that still run but can no longer win: they will have at least one token more than they asked about."""
    best = _best(group)
    if best is None:
        return
    for task in group.tasks:
        if not task.closed and (task.progress + 1, task.index) > best:
            yield task


def winner(group: Group) -> tuple[int, Any]:
    """`(index, output)` of the winner, once every other branch is closed."""
    best = _best(group)
    assert best is not None, "a race ends with a finisher"
    return best[1], group.results[best[1]]
