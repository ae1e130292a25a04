"""From a schema to nodes: every keyword is either turned into a check, reported as an annotation, or refused.

Nodes are made on demand from a work list, so that neither deep nor recursive schemas need recursion here. A schema that
`$dynamicRef` can reach has one node per dynamic scope, of which only the resources with dynamic anchors matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.constraints.json.constants import constrain
from treille.constraints.json.documents import Draft, Library, Location, Resource, SchemaRefused, refusal
from treille.constraints.json.keywords import ASSERTIONS, VALIDATION, since
from treille.constraints.json.nodes import InPlace, Kind, Node, Operator
from treille.constraints.json.report import Enforcement
from treille.constraints.json.rules import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NODES = 200_000

_TYPES = {
    "null": Kind.NULL, "boolean": Kind.BOOLEAN, "number": Kind.NUMBER, "integer": Kind.NUMBER, "string": Kind.STRING,
    "array": Kind.ARRAY, "object": Kind.OBJECT,
}  # fmt: skip
Scope = tuple[Resource, ...]


class Compiler:
    """Compiles one schema.

    Attributes:
        report: one entry per keyword of every schema that can be reached.
        refused: what cannot be enforced; empty if the schema compiles.
    """

    def __init__(self, library: Library, *, formats: bool) -> None:
        self._library = library
        self._formats = formats
        self._nodes: dict[tuple[int, str, Scope], Node] = {}
        self._waiting: list[tuple[Node, Location, Scope]] = []
        self.report: list[Enforcement] = []
        self.refused: list[SchemaRefused] = []

    def compile(self) -> Node:
        """The node of the root schema; what is refused is in `refused`."""
        root = self.node(self._library.root, ())
        while self._waiting:
            node, location, scope = self._waiting.pop()
            noted = len(self.report)
            try:
                if isinstance(location.value, dict):
                    self._fill(node, location, scope)
                elif not isinstance(location.value, bool):
                    kind = type(location.value).__name__
                    raise refusal(location, "", f"a schema is an object or a boolean, not {kind}")
            except SchemaRefused as reason:
                self._refuse(reason, noted)
        if not self.refused:
            self._refuse_loops()
        return root

    def _refuse(self, reason: SchemaRefused, noted: int) -> None:
        """Notes a refusal, in place of what has been noted about its keyword since the entry `noted`."""
        self.refused.append(reason)
        place = (reason.pointer, reason.keyword)
        self.report[noted:] = [entry for entry in self.report[noted:] if (entry.pointer, entry.keyword) != place]
        self.report.append(Enforcement(*place, "refused", reason.reason))

    def node(self, location: Location, scope: Scope) -> Node:
        """The node of a schema in a dynamic scope; it is filled later."""
        resource = location.resource
        if (resource.dynamic or resource.recursive) and resource not in scope:
            scope = (*scope, resource)
        key = (id(location.document), location.pointer, scope)
        known = self._nodes.get(key)
        if known is None:
            if len(self._nodes) >= MAX_NODES:
                raise refusal(location, "", f"the schema unfolds into more than {MAX_NODES} schemas")
            known = self._nodes[key] = Node(location.name)
            if location.value is False:
                known.kinds, known.kinds_keyword = Kind(0), ""
            elif location.value is not True:
                self._waiting.append((known, location, scope))
        return known

    def _fill(self, node: Node, location: Location, scope: Scope) -> None:
        """Compiles the keywords of one schema into its node."""
        draft = location.resource.draft
        if draft == Draft.DRAFT_7 and "$ref" in location.value:  # its siblings mean nothing there
            self._note(node, location, {"$ref"}, "next to $ref, ignored by draft 7")
            node.in_place = (self._reference(location, scope),)
            return
        active = {keyword for keyword in location.value if keyword in ASSERTIONS and since(keyword, draft)}
        if not location.resource.validates:
            active -= VALIDATION
        reader = Reader(self, location, scope, active, formats=self._formats)
        self._note(node, location, active, "", reader.annotation_reason)
        self._types(node, location, active)
        reader.strings(node)
        node.number = reader.numbers(integer="type" in active and self._integers_only(location))
        node.array = reader.arrays()
        node.object = reader.objects(node)
        node.in_place += tuple(self._in_place(location, scope, active, reader))
        for keyword in ("const", "enum"):
            if keyword in active:
                self._constants(node, location, keyword)

    def _note(self, node: Node, location: Location, active: set[str], other: str, annotation: Any = None) -> None:
        """Adds the schema's keywords to the report."""
        for keyword in location.value:
            reason = annotation(keyword) if annotation is not None and keyword in active else ""
            if keyword in active and not reason:
                self.report.append(Enforcement(node.where, keyword, "second layer"))
            else:
                why = reason or other or _why_annotation(keyword, location.resource)
                self.report.append(Enforcement(node.where, keyword, "annotation", why))

    def _types(self, node: Node, location: Location, active: set[str]) -> None:
        """`type`."""
        if "type" not in active:
            return
        wanted = location.value["type"]
        names = wanted if isinstance(wanted, list) else [wanted]
        unknown = [name for name in names if not isinstance(name, str) or name not in _TYPES]
        if unknown:
            raise refusal(location, "type", f"{unknown[0]!r} is no type; types are {', '.join(_TYPES)}")
        node.kinds = Kind(0)
        for name in names:
            node.kinds |= _TYPES[name]

    def _integers_only(self, location: Location) -> bool:
        """Whether `type` allows of numbers only integers."""
        wanted = location.value["type"]
        names = wanted if isinstance(wanted, list) else [wanted]
        return "integer" in names and "number" not in names

    def _constants(self, node: Node, location: Location, keyword: str) -> None:
        """`enum` and `const`."""
        candidates = location.value[keyword]
        if keyword == "enum" and not isinstance(candidates, list):
            raise refusal(location, keyword, "an enumeration is a list")
        target = node
        if node.number or node.literals is not None or node.members is not None or node.in_place:
            # A node of its own: the other keywords ask of the same values.
            target = Node(location.name, annotates=False)
            node.in_place += (InPlace(keyword, Operator.ALL, (target,)),)
        try:
            constrain(target, candidates if keyword == "enum" else [candidates], keyword)
        except (TypeError, ValueError) as reason:
            raise refusal(location, keyword, str(reason)) from None
        if not (candidates if keyword == "enum" else True):
            target.kinds, target.kinds_keyword = Kind(0), keyword

    def _in_place(self, location: Location, scope: Scope, active: set[str], reader: Reader) -> Iterator[InPlace]:
        """The applicators to the same value."""
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if keyword in active:
                yield self._reference(location, scope, keyword)
        for keyword, operator in (("allOf", Operator.ALL), ("anyOf", Operator.ANY), ("oneOf", Operator.ONE)):
            if keyword in active:
                yield InPlace(keyword, operator, reader.schemas(keyword))
        if "not" in active:
            yield InPlace("not", Operator.NOT, (reader.schema("not"),))
        if "if" in active:
            branches = tuple(reader.schema(keyword) if keyword in active else None for keyword in ("then", "else"))
            yield InPlace("if", Operator.IF, (reader.schema("if"), *branches))
        yield from reader.dependent_schemas()

    def _reference(self, location: Location, scope: Scope, keyword: str = "$ref") -> InPlace:
        """`$ref`, or one of those that look at the dynamic scope."""
        reference = location.value[keyword]
        if not isinstance(reference, str):
            raise refusal(location, keyword, f"{reference!r} is no reference")
        target = self._library.resolve(reference, location, keyword)
        if keyword == "$dynamicRef":
            target = _outermost_anchor(target, reference.partition("#")[2], scope)
        elif keyword == "$recursiveRef" and target.resource.recursive:
            for resource in scope:
                if resource.recursive:
                    target = self._library.resolve("#", _root(resource), keyword)
                    break
        return InPlace(keyword, Operator.ALL, (self.node(target, scope),))

    def _refuse_loops(self) -> None:
        """Refuses schemas that apply themselves to the same value: they never come to an end."""
        done: set[Node] = set()
        for start in self._nodes.values():
            path: dict[Node, None] = {}
            stack: list[tuple[Node, bool]] = [(start, False)]
            while stack:
                node, leaving = stack.pop()
                if leaving:
                    done.add(node)
                    path.pop(node, None)
                elif node in path:
                    reason = "the schema applies itself to the same value, through references without end"
                    self.refused.append(SchemaRefused(node.where, "$ref", reason))
                    return
                elif node not in done:
                    path[node] = None
                    stack.append((node, True))
                    stack.extend((inner, False) for step in node.in_place for inner in step.nodes if inner is not None)


def _root(resource: Resource) -> Location:
    """The location of a resource's own schema."""
    place = Location(resource.document, "", resource.document.contents, resource)
    for token in resource.pointer.split("/")[1:]:
        value = place.value
        key = token.replace("~1", "/").replace("~0", "~")
        place = place / (int(key) if isinstance(value, list) else key)
    return place


def _outermost_anchor(target: Location, name: str, scope: Scope) -> Location:
    """Where `$dynamicRef` leads, given where its reference leads statically."""
    bookend = target.resource.dynamic.get(name)
    if bookend is None or bookend.pointer != target.pointer:
        return target
    return next((resource.dynamic[name] for resource in scope if name in resource.dynamic), target)


def _why_annotation(keyword: str, resource: Resource) -> str:
    """Why a keyword asserts nothing."""
    if keyword in ASSERTIONS and not since(keyword, resource.draft):
        return f"no keyword of draft {resource.draft.name.removeprefix('DRAFT_').replace('_', '-')}"
    if keyword in VALIDATION:
        return "the metaschema's vocabularies leave assertions out"
    return ""
