"""What self-speculative drafters share: the target with fewer layers, or a part of its context, as a draft model."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any

from treille.drafters._siblings import Chosen, Source, is_open
from treille.errors import ParameterError
from treille.requests import Forward, TopK

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from treille.draft_tree import DraftTree
    from treille.drafters._siblings import Siblings
    from treille.drafters.base import Host, Shape
    from treille.requests import Layers, Request, View
    from treille.strategy import Run
    from treille.tree import Node


@dataclass(frozen=True, slots=True)
class Cheaper(Source):
    """Reads siblings from a cheaper variant of a model; the fields are those of `Forward`."""

    layers: Layers | None = None
    view: View | None = None
    since: int = 0

    def read(self, node: Node, most: int) -> Generator[Request, Any, tuple[float, Siblings]]:
        """The variant's confidence at a node, and siblings for it; none where no token is allowed.

        The confidence is the largest probability before processors, so that it means the same at every temperature. It
        is known before any token is drawn.
        """
        (answer,) = yield Forward(
            (node,), (TopK(1), *self._wants(most)), model=self.model, may_fail=True,
            layers=self.layers, view=self.view, since=self.since,
        )  # fmt: skip
        if isinstance(answer, Exception) or not answer[0].tokens:
            return 0.0, Chosen((), ())
        return exp(answer[0].raw_logprobs[0]), self._read(node, answer[1:], most)


def one(_: float) -> int:
    """The width of a chain."""
    return 1


def grow_chain(
    run: Run,
    tree: DraftTree,
    source: Cheaper,
    rows: int,
    depth: int,
    threshold: float,
    width: Callable[[float], int] = one,
) -> Generator[Request, Any, None]:
    """Fill `tree` with a chain of the variant's first tokens, and leaves beside them.

    Nothing is drafted before the prompt is read: its rows are then computed as they are without a draft, and equal to
    the last bit where sums depend on how many rows a forward has.

    Args:
        run: the run that is drafted for.
        tree: has its root only.
        source: the variant.
        rows: nodes at the most.
        depth: levels at the most.
        threshold: the chain ends with the token at which the confidence was below it.
        width: siblings of a level, the chain's own token included, by the confidence there.
    """
    last = 0
    for _ in range(0 if tree.nodes[0] is run.tip else depth):
        if tree.size >= rows or not is_open(run, tree, last):
            return
        confidence, siblings = yield from source.read(tree.nodes[last], width(0.0))
        if siblings.empty:
            return
        parent, last = last, tree.add(last, siblings.take()[0], siblings.law)
        for _ in range(width(confidence) - 1):
            if siblings.empty or tree.size >= rows:
                break
            tree.add(parent, siblings.take()[0], siblings.law)
        if confidence < threshold:
            return


def layered(host: Host, name: str, least: int = 2) -> Shape:
    """The target's sizes, if forwards can leave out some of its layers.

    Raises:
        ParameterError: they cannot.
    """
    shape = host.target
    if not shape.layer_access:
        raise ParameterError(
            f"draft={name!r}: the target is run through transformers, which gives no access to single layers; load it "
            "from a checkpoint directory of a supported family, or take another drafter"
        )
    if shape.layers < least:
        raise ParameterError(
            f"draft={name!r}: the target has {shape.layers} layers, {least} are needed; take another drafter"
        )
    return shape


def exits_of(name: str, layers: int, given: Sequence[int] | None, default: Sequence[int]) -> tuple[int, ...]:
    """Numbers of layers after which a network of `layers` may stop, ascending.

    Raises:
        ParameterError: they are not whole numbers in order within 1 … `layers`.
    """
    chosen = tuple(default if given is None else given)
    whole = all(isinstance(e, int) and not isinstance(e, bool) and 1 <= e <= layers for e in chosen)
    if not chosen or not whole or list(chosen) != sorted(set(chosen)):
        raise ParameterError(
            f"draft: {name}={given}: give ascending numbers of layers from 1 to {layers}, such as [1,2]"
        )
    return chosen
