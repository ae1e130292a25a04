"""One schema's keywords by the type of value they speak about."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from treille.constraints.json import values
from treille.constraints.json.automaton import Pattern, pattern
from treille.constraints.json.checks import Formatted, Length, Matching, NumberCheck
from treille.constraints.json.constants import one_of_names
from treille.constraints.json.documents import Draft, Location, Resource, refusal
from treille.constraints.json.formats import FORMATS, Format, is_content, missing_package
from treille.constraints.json.nodes import ArrayRules, InPlace, Node, ObjectRules, Operator
from treille.constraints.json.patterns import PatternError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treille.constraints.json.checks import StringCheck
    from treille.constraints.json.values import Number


_CONTENT = {"contentEncoding": "base64", "contentMediaType": "application/json"}
_ARRAY_KEYWORDS = ("minItems", "maxItems", "uniqueItems", "prefixItems", "items", "contains", "unevaluatedItems")
_OBJECT_KEYWORDS = (
    "minProperties", "maxProperties", "required", "dependentRequired", "dependencies", "properties",
    "patternProperties", "additionalProperties", "propertyNames", "unevaluatedProperties",
)  # fmt: skip


class Nodes(Protocol):
    """Where nodes come from."""

    def node(self, location: Location, scope: tuple[Resource, ...]) -> Node:
        """The node of a schema in a dynamic scope."""


class Reader:
    """Reads the keywords `active` of one schema.

    Raises:
        SchemaRefused: from every method, if a value is not what its keyword takes.
    """

    def __init__(
        self, nodes: Nodes, location: Location, scope: tuple[Resource, ...], active: set[str], *, formats: bool
    ) -> None:
        self._nodes = nodes
        self._at = location
        self._scope = scope
        self._active = active
        self._formats = formats or location.resource.asserts_formats
        self._draft = location.resource.draft

    def has(self, *keywords: str) -> bool:
        """Whether one of the keywords is there."""
        return not self._active.isdisjoint(keywords)

    def annotation_reason(self, keyword: str) -> str:
        """Why an active keyword asserts nothing here; empty if it does."""
        schema = self._at.value
        if keyword == "format" and not self._formats:
            return "formats are not asserted (formats=False)"
        if keyword == "format" and schema["format"] not in FORMATS:
            return f"the format {schema['format']!r} is not known"
        if keyword in _CONTENT and not self._formats:
            return "contents are not asserted (formats=False)"
        if keyword in _CONTENT and schema[keyword] != _CONTENT[keyword]:
            return f"{schema[keyword]!r} is not known"
        if keyword in {"then", "else"} and "if" not in schema:
            return "there is no if"
        if keyword in {"minContains", "maxContains"} and "contains" not in schema:
            return "there is no contains"
        if keyword == "additionalItems" and not isinstance(schema.get("items"), list):
            return "there is no list of items"
        return ""

    def schema(self, keyword: str) -> Node:
        """The node of the schema that is the keyword's value."""
        return self._nodes.node(self._at / keyword, self._scope)

    def schemas(self, keyword: str) -> tuple[Node, ...]:
        """The nodes of a list of schemas."""
        found = self._at.value[keyword]
        if not isinstance(found, list) or not found:
            raise refusal(self._at, keyword, "a list of schemas is wanted, with at least one")
        inner = self._at / keyword
        return tuple(self._nodes.node(inner / index, self._scope) for index in range(len(found)))

    def named(self, keyword: str) -> dict[str, Node]:
        """The nodes of a mapping to schemas."""
        found = self._mapping(keyword)
        inner = self._at / keyword if found else self._at
        return {name: self._nodes.node(inner / name, self._scope) for name in found}

    def _mapping(self, keyword: str) -> dict[str, Any]:
        """The keyword's value, a mapping by name; empty if it is not there."""
        found = self._at.value[keyword] if self.has(keyword) else {}
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise refusal(self._at, keyword, "a mapping by name is wanted")
        return found

    def _names(self, keyword: str, found: Any) -> tuple[str, ...]:
        """A list of names, each once."""
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise refusal(self._at, keyword, "a list of names is wanted")
        return tuple(dict.fromkeys(found))

    def count(self, keyword: str) -> int | None:
        """A bound on a count; None if it is not there."""
        if not self.has(keyword):
            return None
        found = self._number(keyword)
        if not found.is_integer or found.coefficient < 0 or found.exponent > values.MAX_DIGITS:
            raise refusal(self._at, keyword, f"{self._at.value[keyword]!r} is no count")
        return found.coefficient * int(10**found.exponent)

    def _number(self, keyword: str) -> Number:
        """The keyword's value, exact."""
        value = self._at.value[keyword]
        is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        found = values.from_python(value) if is_number else None
        if found is None:
            raise refusal(
                self._at, keyword, f"{str(value)[:40]} is no finite number of at most {values.MAX_DIGITS} digits"
            )
        return found

    def strings(self, node: Node) -> None:
        """Adds `minLength`, `maxLength`, `pattern` and `format` to a node."""
        found: list[StringCheck] = []
        least, most = self.count("minLength") or 0, self.count("maxLength")
        if least:
            found.append(Length(least, None, "minLength"))
        if most is not None:
            found.append(Length(0, most, "maxLength"))
        if self.has("pattern"):
            found.append(Matching(self._pattern("pattern", self._at.value["pattern"]), most))
        name = self._at.value.get("format")
        if self.has("format") and not isinstance(name, str):
            raise refusal(self._at, "format", f"{name!r} is no name")
        if self._formats and self.has("format") and name in FORMATS:
            if package := missing_package(name):
                raise refusal(self._at, "format", f"{name!r} needs the package {package}: pip install {package}")
            format_ = FORMATS[name]
            found.append(Formatted(format_, pattern(format_.shape) if format_.shape else None))
        node.strings = (*found, *self._content())

    def _content(self) -> Iterator[StringCheck]:
        """`contentEncoding` and `contentMediaType`."""
        known = [keyword for keyword in _CONTENT if self.has(keyword) and not self.annotation_reason(keyword)]
        if known:
            encoding, media_type = (_CONTENT[keyword] if keyword in known else None for keyword in _CONTENT)
            check = partial(is_content, encoding=encoding, media_type=media_type)
            yield Formatted(Format(check), None, known[-1])

    def _pattern(self, keyword: str, text: Any) -> Pattern:
        """A pattern as an automaton."""
        if not isinstance(text, str):
            raise refusal(self._at, keyword, f"{text!r} is no pattern")
        try:
            return pattern(text)
        except PatternError as reason:
            raise refusal(self._at, keyword, str(reason)) from None

    def numbers(self, *, integer: bool) -> NumberCheck | None:
        """What is asked of numbers; None: nothing."""
        bounds: dict[str, tuple[Number, bool]] = {}
        keywords: dict[str, str] = {}
        for keyword, part in (
            ("minimum", "low"), ("exclusiveMinimum", "low"), ("maximum", "high"), ("exclusiveMaximum", "high"),
        ):  # fmt: skip
            if self.has(keyword):
                bound = (self._number(keyword), keyword.startswith("exclusive"))
                order = values.compare(bound[0], bounds[part][0]) if part in bounds else 0
                tighter = order > 0 if part == "low" else order < 0
                if part not in bounds or tighter or (order == 0 and bound[1]):
                    bounds[part], keywords[part] = bound, keyword
        divisor = self._number("multipleOf") if self.has("multipleOf") else None
        if divisor is not None and divisor.coefficient <= 0:
            raise refusal(self._at, "multipleOf", "the divisor must be above zero")
        if not (bounds or divisor or integer):
            return None
        return NumberCheck(integer, bounds.get("low"), bounds.get("high"), divisor, None, tuple(keywords.items()))

    def arrays(self) -> ArrayRules | None:
        """What is asked of arrays; None: nothing."""
        if not self.has(*_ARRAY_KEYWORDS):
            return None
        rules = ArrayRules(
            least=self.count("minItems") or 0,
            most=self.count("maxItems"),
            unique=self._flag("uniqueItems"),
            unevaluated=self.schema("unevaluatedItems") if self.has("unevaluatedItems") else None,
        )
        if self.has("contains"):
            least = self.count("minContains")
            rules = replace(
                rules,
                contains=self.schema("contains"),
                contains_least=1 if least is None else least,
                contains_most=self.count("maxContains"),
                contains_annotates=self._draft == Draft.DRAFT_2020_12,
            )
        return self._items(rules)

    def _items(self, rules: ArrayRules) -> ArrayRules:
        """Adds `prefixItems` and `items`, or their older forms."""
        if self._draft == Draft.DRAFT_2020_12:
            prefix = self.schemas("prefixItems") if self.has("prefixItems") else ()
            items = self.schema("items") if self.has("items") else None
            return replace(rules, prefix=prefix, items=items)
        if not self.has("items"):
            return rules
        if not isinstance(self._at.value["items"], list):
            return replace(rules, items=self.schema("items"))
        rest = self.schema("additionalItems") if self.has("additionalItems") else None
        prefix = self.schemas("items") if self._at.value["items"] else ()
        return replace(rules, prefix=prefix, prefix_keyword="items", items=rest, items_keyword="additionalItems")

    def _flag(self, keyword: str) -> bool:
        """A keyword that is true or false; false if it is not there."""
        found = self._at.value[keyword] if self.has(keyword) else False
        if not isinstance(found, bool):
            raise refusal(self._at, keyword, f"{found!r} is neither true nor false")
        return found

    def objects(self, node: Node) -> ObjectRules | None:
        """What is asked of objects; None: nothing."""
        if not self.has(*_OBJECT_KEYWORDS):
            return None
        properties = self.named("properties")
        patterns = tuple(
            (self._pattern("patternProperties", text), inner) for text, inner in self.named("patternProperties").items()
        )
        additional = self.schema("additionalProperties") if self.has("additionalProperties") else None
        names: list[tuple[Node, str]] = []
        if self.has("propertyNames"):
            names.append((self.schema("propertyNames"), "propertyNames"))
        closed = additional is not None and self._at.value["additionalProperties"] is False
        if closed:
            names.append(
                (
                    one_of_names(node.where, properties, [found for found, _ in patterns], "additionalProperties"),
                    "additionalProperties",
                )
            )
        return ObjectRules(
            least=self.count("minProperties") or 0,
            most=self.count("maxProperties"),
            choices=len(properties) if closed and not patterns else None,
            required=self._names("required", self._at.value["required"]) if self.has("required") else (),
            dependent=tuple(self._dependent_names()),
            dependent_keyword="dependencies" if self.has("dependencies") else "dependentRequired",
            properties=properties,
            patterns=patterns,
            additional=additional,
            names=tuple(names),
            unevaluated=self.schema("unevaluatedProperties") if self.has("unevaluatedProperties") else None,
        )

    def _dependent_names(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """`dependentRequired`, and of `dependencies` the lists."""
        for name, needed in self._mapping("dependentRequired").items():
            yield name, self._names("dependentRequired", needed)
        for name, needed in self._mapping("dependencies").items():
            if isinstance(needed, list):
                yield name, self._names("dependencies", needed)

    def dependent_schemas(self) -> Iterator[InPlace]:
        """`dependentSchemas`, and of `dependencies` the schemas."""
        for keyword in ("dependentSchemas", "dependencies"):
            inner = self._at / keyword if self.has(keyword) else self._at
            for name, schema in self._mapping(keyword).items():
                if keyword == "dependentSchemas" or not isinstance(schema, list):
                    node = self._nodes.node(inner / name, self._scope)
                    yield InPlace(keyword, Operator.DEPENDENT, (node,), name)
