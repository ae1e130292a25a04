"""Variants: a model as a forward may run it, whole, with fewer layers, or with a part of its context.

Rows of a variant hang on the same nodes as the model's own, under another key. They are scratch: they serve further
rows of the same variant and are dropped once the whole model has computed the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from treille.cache.segments import Rows
    from treille.requests import Forward, Layers
    from treille.tree import Node

_OPEN = 1 << 62  # the end of a span that has none
_SEPARATOR = "|"  # between the model's name and the rest of a key


@dataclass(frozen=True, slots=True)
class Variant:
    """How a forward runs a model.

    Attributes:
        key: under which nodes hold its rows; the model's name for the whole model.
        model: the model's name.
        layers: what of its layers runs, None for all.
        spans: positions of the context that rows see, the last span open; None for all.
        since: the first position that is the variant's; rows before are the whole model's.
        depth: layers that run if it only stops early, else 0.
    """

    key: str
    model: str
    layers: Layers | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    since: int = 0
    depth: int = 0

    @property
    def whole(self) -> bool:
        """Whether it is the model itself."""
        return self.key == self.model


@cache
def whole(model: str) -> Variant:
    """The model itself."""
    return Variant(model, model)


def variant_of(request: Forward, layer_count: int) -> Variant:
    """The variant that a request means, once it is known to be sound."""
    layers, view, model = request.layers, request.view, request.model
    if layers is not None and layers.prefix and layers.stop in (None, layer_count):
        layers = None
    if layers is None and view is None:
        return whole(model)
    if view is None and layers is not None and layers.prefix:
        # Rows of all depths share a key: a deeper row serves wherever a shallower one does.
        assert layers.stop is not None
        return Variant(f"{model}{_SEPARATOR}exit", model, layers, None, request.since, layers.stop)
    spans = None if view is None else (*view.spans, (view.start, _OPEN))
    parts = None if layers is None else (layers.stop, sorted(layers.skip_attention), sorted(layers.skip_mlp))
    return Variant(f"{model}{_SEPARATOR}{(parts, spans, request.since)}", model, layers, spans, request.since)


def held(node: Node, variant: Variant) -> tuple[Rows | None, int]:
    """Rows from which the variant goes on within or below `node`, and how many tokens of its path they are good for."""
    model = node.kv.get(variant.model)
    if model is not None and not model.alive:
        model = None
    full = 0 if model is None else model.length
    if variant.whole or node.length <= variant.since:
        return model, full
    if variant.depth:
        if full == node.length:
            return model, full
        own = node.kv.get(variant.key)
        if own is not None and own.alive and own.depth >= variant.depth and own.length > full:
            return own, own.length
        return model, full
    own = node.kv.get(variant.key)
    if own is not None and own.alive:
        return own, own.length
    if node.start < variant.since:
        return model, min(full, variant.since)
    return None, 0


def computed(node: Node, variant: Variant) -> int:
    """Number of tokens of `node`'s path whose rows it holds itself; 0 if it holds none."""
    return held(node, variant)[1]


def uncomputed(nodes: Iterable[Node], variant: Variant) -> list[Node]:
    """The nodes on the paths of `nodes` that lack rows, ancestors first, each once."""
    order: list[Node] = []
    seen: set[int] = set()
    for node in nodes:
        above: Node | None = node
        line: list[Node] = []
        while above is not None and id(above) not in seen and computed(above, variant) < above.length:
            seen.add(id(above))
            line.append(above)
            above = above.parent
        order.extend(reversed(line))
    return order


def without_context(order: Iterable[Node], variant: Variant) -> list[Node]:
    """Those of the uncomputed nodes that the whole model has to compute first: the context of the variant."""
    if not variant.since or variant.whole:
        return []
    model = whole(variant.model)
    return [n for n in order if n.start < variant.since and computed(n, model) < min(n.length, variant.since)]


def drop_scratch(node: Node, model: str) -> None:
    """Let go of the rows that variants of `model` have at `node`: it has its own now."""
    start = model + _SEPARATOR
    for key in [key for key in node.kv if key.startswith(start)]:
        del node.kv[key]
