"""SpecInfer: several independent candidates per node, of one draft model or of several."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._grow import grow, uniform, whole_numbers
from treille.drafters._models import draft_shape
from treille.drafters._siblings import TreeDrafter
from treille.drafters.base import drafter
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node


@drafter(
    paper="Miao et al. 2023, SpecInfer, arXiv:2305.09781",
    cost="one pass of every draft model per level, one row of the target per distinct node",
)
class specinfer(TreeDrafter):  # noqa: N801 - one name in five places
    """SpecInfer: every node of level l gets widths[l] independent draws of each draft model.

    A token drawn twice is computed once and tried twice: dropping the second try would change its law. Without
    verification by rejection the children are each model's best tokens.
    """

    def __init__(
        self,
        host: Host,
        widths: Sequence[int] = (1, 1, 3, 1),
        model: str | Sequence[str] = "draft",
        keep: Keep = None,
    ) -> None:
        names = [model] if isinstance(model, str) else list(model)
        if not names or not all(isinstance(name, str) for name in names):
            raise ParameterError(f"draft: model={model!r}: give the name of a draft model, or a list of names")
        super().__init__(host, names[0], keep)
        self.shape = uniform(whole_numbers("widths", widths))
        self.models = names
        self.context = min(draft_shape(host, name).context_length for name in names)

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A tree of the given widths."""
        tree = DraftTree(node)
        first = replace(self.source(run, node), replacement=True)
        sources = [replace(first, model=name) for name in self.models]
        yield from grow(run, tree, self.shape, sources, budget.rows, self.depth(node, budget))
        return tree
