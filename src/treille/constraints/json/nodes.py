"""A compiled schema: a graph of nodes, one per schema (and dynamic scope), without any JSON left in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treille.constraints.json.automaton import Pattern
    from treille.constraints.json.checks import NumberCheck, StringCheck


MAX_SETTLING = 16


class Kind(IntFlag):
    """The types of JSON values; integers are numbers."""

    NULL = 1
    BOOLEAN = 2
    NUMBER = 4
    STRING = 8
    ARRAY = 16
    OBJECT = 32


ALL_KINDS = Kind(63)


class Operator(IntEnum):
    """How a node depends on other nodes at the same place of the document."""

    ALL = 0
    ANY = 1
    ONE = 2
    NOT = 3
    IF = 4
    DEPENDENT = 5


@dataclass(frozen=True, slots=True, eq=False)
class InPlace:
    """An applicator to the same value.

    Attributes:
        keyword: the keyword that applies.
        operator: how the nodes are combined; `IF` takes condition, then, else (None where absent).
        nodes: the schemas.
        name: of `DEPENDENT`, the property that triggers it.
    """

    keyword: str
    operator: Operator
    nodes: tuple[Node | None, ...]
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayRules:
    """What one schema asks of an array and of its items; `source` is the keyword behind all of it, where it is one."""

    least: int = 0
    most: int | None = None
    unique: bool = False
    prefix: tuple[Node, ...] = ()
    prefix_keyword: str = "prefixItems"
    items: Node | None = None
    items_keyword: str = "items"
    source: str = ""
    contains: Node | None = None
    contains_least: int = 1
    contains_most: int | None = None
    contains_annotates: bool = True
    unevaluated: Node | None = None

    @property
    def rising(self) -> bool:
        """Whether what holds at some point holds for good, so that success is known early."""
        bounded = self.most is not None or self.contains_most is not None or self.unique
        return not (bounded or self.prefix or self.items or self.unevaluated)

    @property
    def late(self) -> tuple[str, ...]:
        """The keywords that can still fail at the end of the array."""
        found = [self.source or "minItems"] if self.least else []
        found += ["contains"] if self.contains is not None else []
        return (*found, *(["unevaluatedItems"] if self.unevaluated is not None else []))


@dataclass(frozen=True, slots=True, eq=False)
class ObjectRules:
    """What one schema asks of an object, its names and its values.

    Attributes:
        names: schemas of every name, with the keyword that asks: `propertyNames`, or an `additionalProperties` that is
            false, which is a statement about names too and as such decidable before the name ends.
        choices: the number of names that exist at all, if it is finite; no name comes twice.
        source: the keyword behind all of it, where it is one.
    """

    least: int = 0
    most: int | None = None
    choices: int | None = None
    required: tuple[str, ...] = ()
    dependent: tuple[tuple[str, tuple[str, ...]], ...] = ()
    dependent_keyword: str = "dependentRequired"
    properties: dict[str, Node] | None = None
    patterns: tuple[tuple[Pattern, Node], ...] = ()
    additional: Node | None = None
    names: tuple[tuple[Node, str], ...] = ()
    unevaluated: Node | None = None
    source: str = ""

    @property
    def rising(self) -> bool:
        """Whether what holds at some point holds for good, so that success is known early."""
        return not self.properties and self._rises_with_properties

    @property
    def settling(self) -> bool:
        """Whether success is known once each of a few listed properties has come."""
        return 0 < len(self.properties or ()) <= MAX_SETTLING and self._rises_with_properties

    @property
    def _rises_with_properties(self) -> bool:
        """Whether nothing but the listed properties can fail later."""
        values = self.patterns or self.additional or self.names or self.unevaluated
        return self.most is None and not (values or self.dependent)

    @property
    def late(self) -> tuple[str, ...]:
        """The keywords that can still fail at the end of the object."""
        found = [self.source or "minProperties"] if self.least else []
        found += [self.source or "required"] if self.required else []
        found += [self.dependent_keyword] if self.dependent else []
        return (*found, *(["unevaluatedProperties"] if self.unevaluated is not None else []))


@dataclass(slots=True, eq=False)
class Node:
    """One schema, ready to be run; filled by the compiler, never changed afterwards.

    Attributes:
        where: the schema's place, for messages.
        kinds: the types that a value may have.
        kinds_keyword: the keyword that says so; empty for the schema `false`.
        strings, number, array, object: what is asked of values of each type.
        literals: keys of the allowed ones among null, true and false; None: all.
        members: keys of allowed arrays and objects, compared at their end; None: all.
        members_keyword: the keyword of `literals` and `members`.
        in_place: applicators to the same value.
        annotates: whether names and items it has looked at count as evaluated.
    """

    where: str
    kinds: Kind = ALL_KINDS
    kinds_keyword: str = "type"
    strings: tuple[StringCheck, ...] = ()
    number: NumberCheck | None = None
    array: ArrayRules | None = None
    object: ObjectRules | None = None
    literals: frozenset[Any] | None = None
    members: frozenset[Any] | None = None
    members_keyword: str = "enum"
    in_place: tuple[InPlace, ...] = ()
    annotates: bool = True

    @property
    def trivial(self) -> bool:
        """Whether every value passes, with nothing to note."""
        return (
            self.kinds == ALL_KINDS
            and not (self.strings or self.number or self.array or self.object or self.in_place)
            and self.literals is None
            and self.members is None
        )

    def asks(self, kind: Kind) -> bool:
        """Whether anything but the type is asked of a value of this type, other schemas aside."""
        match kind:
            case Kind.STRING:
                return bool(self.strings)
            case Kind.NUMBER:
                return self.number is not None
            case Kind.ARRAY:
                return self.array is not None or self.members is not None
            case Kind.OBJECT:
                return self.object is not None or self.members is not None
        return self.literals is not None
