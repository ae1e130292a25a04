"""Trees of a given shape, grown level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from treille.drafters._siblings import is_open
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from treille.draft_tree import DraftTree
    from treille.drafters._siblings import Source
    from treille.requests import Request
    from treille.strategy import Run

Shape: TypeAlias = tuple["Shape", ...]
"""A tree without tokens: the shapes of the trees under its children, in the order of the siblings."""


def whole_numbers(name: str, values: Sequence[int]) -> list[int]:
    """`values`, a list of numbers of at least one.

    Raises:
        ParameterError: it is not.
    """
    if not values or min(values) < 1:
        raise ParameterError(f"draft: {name}={values!r}: give a list of whole numbers of at least 1, such as [2,1,1]")
    return list(values)


def uniform(widths: Sequence[int]) -> Shape:
    """The shape in which every node of level l has `widths[l]` children."""
    shape: Shape = ()
    for width in reversed(widths):
        shape = (shape,) * width
    return shape


def grow(
    run: Run, tree: DraftTree, shape: Shape, sources: Sequence[Source], rows: int, depth: int
) -> Generator[Request, None, None]:
    """Fill `tree` with the tokens of `sources`, one pass of each per level.

    Whether a token is drawn depends on what is known before the draw: on the shape, and on the rows and tokens left.

    Args:
        run: the run that is drafted for.
        tree: has its root only.
        shape: children of the root, from every source as many.
        sources: draft models, in the order of their siblings.
        rows: nodes in all at the most; those of higher levels come first.
        depth: levels at the most.
    """
    level = [(0, shape)]
    for _ in range(depth):
        level = [(index, children) for index, children in level if children and is_open(run, tree, index)]
        if not level or tree.size >= rows:
            return
        nodes = [tree.nodes[index] for index, _ in level]
        most = max(len(children) for _, children in level)
        found = []
        for source in sources:
            siblings_of = yield from source.siblings(nodes, most)
            found.append(siblings_of)
        below: list[tuple[int, Shape]] = []
        for at, (index, children) in enumerate(level):
            for siblings in (of_source[at] for of_source in found):
                for child in children:
                    if siblings.empty or tree.size >= rows:
                        break
                    added = tree.add(index, siblings.take()[0], siblings.law)
                    if added not in (known for known, _ in below):  # drawn before: computed and continued once
                        below.append((added, child))
        level = below
