"""Sequoia: the static tree that measured acceptance makes best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters._checks import between
from treille.drafters._grow import grow
from treille.drafters._sequoia import trees
from treille.drafters._siblings import TreeDrafter
from treille.drafters.base import ConfiguredDrafter, DrafterInfo, drafter
from treille.drafters.rsd_c import rsd_c
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Budget, Host, Observation
    from treille.requests import Request
    from treille.strategy import Run
    from treille.tree import Node

ACCEPTANCE = (0.6, 0.15, 0.06, 0.03, 0.02, 0.01)
"""A fair draft model; `measure_acceptance` gives yours."""


@drafter(
    paper="Chen et al. 2024, Sequoia, arXiv:2402.12374",
    cost="one pass of the draft model per level, one row of the target per node",
)
class sequoia(TreeDrafter):  # noqa: N801 - one name in five places
    """Sequoia: the tree of `rows` nodes whose expected accepted length is largest, by dynamic programming.

    Its shape depends on `acceptance` alone: the probability that the b-th child of a node is the one that is accepted.
    Children are drawn without replacement, or, without verification by rejection, the best ones.
    """

    def __init__(
        self,
        host: Host,
        rows: int = 16,
        depth: int = 6,
        acceptance: Sequence[float] = ACCEPTANCE,
        model: str = "draft",
        keep: Keep = None,
    ) -> None:
        super().__init__(host, model, keep)
        between(1, 512, rows=rows)  # the search for the best tree takes time with the square of its size
        between(1, 64, depth=depth)
        self.rows = rows
        self.trees = trees(_probabilities(acceptance), rows + 1, depth)

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """The best tree within the budget."""
        tree = DraftTree(node)
        rows, depth = min(self.rows, budget.rows), max(0, self.depth(node, budget))
        shape = self.trees.shape(rows + 1, depth)
        yield from grow(run, tree, shape, [self.source(run, node)], rows, depth)
        return tree


def _probabilities(acceptance: Any) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in acceptance)
    except (TypeError, ValueError):
        values = ()
    if not values or min(values) < 0 or not 0 < sum(values) <= 1 + 1e-9:
        raise ParameterError(
            f"draft: acceptance={acceptance!r}: give the probability that the first, the second, … child is accepted, "
            "which together are at most 1; `measure_acceptance` counts them"
        )
    return values


def measure_acceptance(
    generate: Callable[..., Any],
    prompts: Iterable[Any],
    *,
    strategy: str = "sample",
    width: int = 8,
    model: str = "draft",
    **options: Any,
) -> tuple[float, ...]:
    """How often the first, the second, … child of a node is the one that is accepted, `[width]`: for `acceptance=`.

    Args:
        generate: of the language model: `lm.generate`.
        prompts: on which it is counted.
        strategy: how the text is decoded.
        width: children drafted at every step; one level.
        model: the draft model.
        options: of the generation, as they will be used: temperature, verification, …
    """
    tried, counts = [0], [0] * width

    class probe(rsd_c):  # noqa: N801
        def observe(self, seen: Observation) -> None:
            if seen.tree is not None and seen.tree.size:
                tried[0] += 1
                if seen.accepted:
                    counts[seen.tree.children(0).index(seen.accepted[0])] += 1

    probe.info = DrafterInfo("probe", probe, "", "", "")
    drafter = ConfiguredDrafter(probe.info, {"widths": [width], "model": model})
    for prompt in prompts:
        generate(prompt, strategy, draft=drafter, draft_rows=width, governor=False, **options)
    return tuple(count / max(1, tried[0]) for count in counts)
