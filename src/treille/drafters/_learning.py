"""What drafters share that keep a table learned from the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from treille.drafters.base import Lookup

if TYPE_CHECKING:
    from treille.draft_tree import DraftTree
    from treille.drafters.base import Budget, Drafter, Host
    from treille.strategy import Run

Table = TypeVar("Table")


class Learning(Lookup, Generic[Table]):
    """A lookup in a table that grows with every verified step.

    Under `match` a table can only make a text come sooner, so it is kept in the language model's memory (`warm`) and
    shared by the branches of a run. Under `rejection` the text of a seed depends on its drafts (its law does not), and
    must not depend on what else was generated: every text then begins with an empty table of its own.

    Attributes:
        table: what was learned.
    """

    def __init__(self, host: Host, key: str, *, warm: bool) -> None:
        super().__init__(host)
        if warm and key not in host.memory:
            host.memory[key] = self.empty()
        self.table: Table = host.memory[key] if warm else self.empty()
        self._alone = False

    def empty(self) -> Table:
        """A table that has learned nothing."""
        raise NotImplementedError

    def share(self, origin: Drafter) -> None:
        """Learn in one table with the other branches of the run."""
        assert isinstance(origin, type(self))
        self.table = origin.table

    def separate(self, run: Run) -> bool:
        """Whether the table has just been exchanged for an empty one, because drafts are verified by rejection."""
        if self._alone or not run.rejecting:
            return False
        self._alone = True
        self.table = self.empty()
        return True


def fits(tree: DraftTree, above: int, run: Run, budget: Budget) -> bool:
    """Whether a node under `above` is within the budget, and not beyond the end of the text."""
    if tree.size >= budget.rows or tree.depths[above] >= budget.depth:
        return False
    return above == 0 or tree.nodes[above].token not in run.limits.eos_token_ids
