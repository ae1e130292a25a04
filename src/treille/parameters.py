"""Parameters of strategies and drafters: which there are, and whether a value's type fits what a signature says."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from treille.errors import ParameterError

_PLAIN = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
}
_SEQUENCES = ("Sequence", "list", "tuple")


@functools.cache
def own_parameters(function: Callable[..., Any], *given: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function without those that Treille gives it; every request asks, so it is kept."""
    named = inspect.signature(function).parameters
    return MappingProxyType({name: parameter for name, parameter in named.items() if name not in given})


def checked_value(owner: str, parameter: inspect.Parameter, value: Any) -> Any:
    """`value`, if its type fits the annotation as far as that speaks of plain values, sequences of them and functions.

    Raises:
        ParameterError: it does not; names `owner`, the value and the way out.
    """
    # Annotations are strings where the file postpones their evaluation; names of types need not exist at run time.
    annotation = parameter.annotation
    kind = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    if annotation is not inspect.Parameter.empty and not _fits(_parsed(kind), value):
        required = parameter.default is inspect.Parameter.empty
        way_out = "give one" if required else f"give one, or leave it out for {parameter.default!r}"
        raise ParameterError(f"{owner}({parameter.name}={value!r}): not a value of type {kind}; {way_out}")
    return float(value) if kind == "float" else value


@functools.cache
def _parsed(annotation: str) -> ast.expr | None:
    """The annotation as an expression; None where its text is none, such as that of a class inside a function."""
    try:
        return ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return None


def _fits(kind: ast.expr | None, value: Any) -> bool:
    """Whether the value fits; what is none of these kinds is left to its owner."""
    match kind:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(left, value) or _fits(right, value)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in _PLAIN:
            return _PLAIN[name](value)
        case ast.Subscript(value=ast.Name(id="Callable") | ast.Attribute(attr="Callable")):
            return callable(value)
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inside) if name in _SEQUENCES:
            element = inside.elts[0] if isinstance(inside, ast.Tuple) else inside
            plain = isinstance(value, Sequence) and not isinstance(value, str | bytes)
            return plain and all(_fits(element, member) for member in value)
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=inside):
            known = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            kinds = {type(member.value) if isinstance(member, ast.Constant) else None for member in known}
            return None in kinds or type(value) in kinds  # its owner says which
        case _:
            return True
