"""`enum` and `const` as nodes: scalars by prefix, containers as schemas of their own as long as they are few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.constraints.json import values
from treille.constraints.json.checks import Matching, Members, NumberCheck
from treille.constraints.json.nodes import ArrayRules, InPlace, Kind, Node, ObjectRules, Operator
from treille.constraints.json.values import Number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from treille.constraints.json.automaton import Pattern

MAX_SCHEMAS = 64
MAX_DEPTH = 100


def constrain(node: Node, candidates: list[Any], keyword: str) -> None:
    """Makes `node` accept exactly the `candidates`, besides what else it asks.

    Raises:
        TypeError: a candidate is no JSON value.
        ValueError: a candidate is nested deeper than `MAX_DEPTH`.
    """
    containers = [value for value in candidates if isinstance(value, dict | list | tuple)]
    scalars = [value for value in candidates if not isinstance(value, dict | list | tuple)]
    if not containers:
        _scalars(node, scalars, keyword)
    elif sum(_size(value) for value in containers) <= MAX_SCHEMAS:
        options = [constant(value, node.where, keyword) for value in containers]
        if scalars:
            options.append(Node(node.where, annotates=False))
            _scalars(options[-1], scalars, keyword)
        node.in_place += (InPlace(keyword, Operator.ANY, tuple(options)),)
    else:
        kinds = _scalars(node, scalars, keyword, keep_kinds=True)
        keys = frozenset(values.canonical(value) for value in containers)
        kinds |= Kind.ARRAY if any(key[0] == "[" for key in keys) else kinds
        kinds |= Kind.OBJECT if any(key[0] == "{" for key in keys) else kinds
        _restrict(node, kinds, keyword)
        node.members, node.members_keyword = keys, keyword


def _size(value: Any) -> int:
    """The number of values in a value, itself included."""
    count, waiting = 0, [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            msg = f"a value is nested deeper than {MAX_DEPTH}"
            raise ValueError(msg)
        if isinstance(item, dict):
            waiting.extend((inner, depth + 1) for inner in item.values())
        elif isinstance(item, list | tuple):
            waiting.extend((inner, depth + 1) for inner in item)
    return count


def _restrict(node: Node, kinds: Kind, keyword: str) -> None:
    """Leaves only `kinds`."""
    if node.kinds & kinds != node.kinds:
        node.kinds &= kinds
        node.kinds_keyword = keyword


def _scalars(node: Node, candidates: list[Any], keyword: str, *, keep_kinds: bool = False) -> Kind:
    """Makes `node` accept, of scalars, the candidates only; the kinds there are among them."""
    keys = [values.canonical(value) for value in candidates]
    numbers = frozenset(key for key in keys if isinstance(key, Number))
    texts = tuple(sorted({key for key in keys if isinstance(key, str)}))
    literals = frozenset(key for key in keys if not isinstance(key, Number | str))
    kinds = Kind.NUMBER if numbers else Kind(0)
    kinds |= Kind.STRING if texts else kinds
    kinds |= Kind.NULL if values.NULL in literals else kinds
    kinds |= Kind.BOOLEAN if literals - {values.NULL} else kinds
    if numbers:
        check = NumberCheck(members=numbers, keywords=(("members", keyword),))
        _also(node, check, keyword)
    if texts:
        node.strings += (Members(texts, keyword),)
    if literals:
        node.literals, node.members_keyword = literals, keyword
    if not keep_kinds:
        _restrict(node, kinds, keyword)
    return kinds


def _also(node: Node, check: NumberCheck, keyword: str) -> None:
    """Adds a check of numbers; where the node has one, the new one goes into a node of its own."""
    if node.number is None:
        node.number = check
    else:
        inner = Node(node.where, number=check)
        node.in_place += (InPlace(keyword, Operator.ALL, (inner,)),)


def constant(value: Any, where: str, keyword: str) -> Node:
    """A node that accepts exactly `value`; what it looks at does not count as evaluated."""
    node = Node(where, kinds_keyword=keyword, annotates=False)
    if isinstance(value, dict):
        node.kinds = Kind.OBJECT
        names = (
            Node(where, strings=(Members(tuple(sorted(value)), keyword),)) if value else Node(where, Kind(0), keyword)
        )
        node.object = ObjectRules(
            most=len(value), required=tuple(value), names=((names, keyword),), source=keyword,
            properties={name: constant(item, where, keyword) for name, item in value.items()},
        )  # fmt: skip
    elif isinstance(value, list | tuple):
        node.kinds = Kind.ARRAY
        prefix = tuple(constant(item, where, keyword) for item in value)
        node.array = ArrayRules(least=len(value), most=len(value), prefix=prefix, source=keyword)
    else:
        _scalars(node, [value], keyword)
    return node


def one_of_names(where: str, names: Iterable[str], patterns: Iterable[Pattern], keyword: str) -> Node:
    """A node for the names that are listed, or match one of the patterns."""
    options = [Node(where, strings=(Matching(pattern, None, keyword),)) for pattern in patterns]
    listed = tuple(sorted(set(names)))
    if listed:
        options.append(Node(where, strings=(Members(listed, keyword),)))
    if not options:
        return Node(where, Kind(0), keyword)
    return options[0] if len(options) == 1 else Node(where, in_place=(InPlace(keyword, Operator.ANY, tuple(options)),))
