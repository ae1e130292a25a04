"""From a JSON Schema to one that llguidance can express and that allows at least the same documents.

A keyword may be left out only where that allows more. All places that are kept are such places, because `not`, `if` and
`oneOf` never are (`oneOf` becomes `anyOf`), and because what a keyword leaves over for another goes with it: without
`patternProperties`, `additionalProperties` would hold for more names.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from treille.constraints.json.documents import METASCHEMAS, Draft
from treille.constraints.json.keywords import ASSERTIONS, since

VALUES = frozenset({
    "type", "enum", "const", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "minProperties", "maxProperties", "required",
})  # fmt: skip
NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
LISTED = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})
SINGLE = frozenset({"items", "additionalItems", "additionalProperties"})
REFERENCES = frozenset({"$id", "$anchor", "$ref"})
IN_PLACE = frozenset({
    "$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "dependencies",
})  # fmt: skip
EXACT_FORMATS = frozenset({"ipv4", "uuid"})
"""Formats of which llguidance allows exactly the texts."""
WIDER_FORMATS = frozenset({"date", "date-time", "time", "duration", "email", "hostname", "ipv6", "uri"})
"""Formats of which llguidance allows more than the texts, such as 30 February."""

_OTHER_CLASSES = re.compile(r"\\[sSDW]")
"""Classes of characters that are not the same to llguidance and to ECMA-262."""

GROUPS: tuple[frozenset[str], ...] = tuple(
    frozenset(group.split())
    for group in (
        "pattern", "format", "patternProperties", "minProperties maxProperties", "multipleOf", "required", "allOf",
        "anyOf oneOf", "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
        "minLength maxLength", "enum const", "$ref", "minItems maxItems",
    )
)  # fmt: skip
"""Keywords that may be what llguidance refuses, those first that are most often."""

Place = tuple[str, str]
"""The JSON pointer of a schema, as in a URI fragment, and a keyword there."""


class Superset(NamedTuple):
    """A schema that allows at least what the original does.

    Attributes:
        schema: only keywords that llguidance knows.
        kept: the keywords of the original that it enforces wholly.
        lost: those that assert something and that it does not enforce wholly.
    """

    schema: Any
    kept: frozenset[Place]
    lost: frozenset[Place]


def superset(
    schema: Any, *, without: frozenset[str] = frozenset(), ordered: bool = True, formats: bool = True
) -> Superset:
    """The schema with what llguidance can express.

    Args:
        schema: parsed.
        without: keywords to leave out everywhere, and what depends on them.
        ordered: whether properties come in the schema's order and values are spelled as there; else every spelling of a
            document is allowed, which leaves out `required` and what fixes a spelling.
        formats: whether `format` asserts.
    """
    named = schema.get("$schema") if isinstance(schema, Mapping) else None
    draft = METASCHEMAS.get(str(named).rstrip("#")) if named is not None else Draft.DRAFT_2020_12
    if draft is None:  # a metaschema of its own says which keywords mean anything
        return Superset({}, frozenset(), frozenset({("#", "$schema")}))
    writer = _Writer(draft, without, ordered, formats, set(), set())
    written = writer.write(schema, "#")
    if named is not None and isinstance(written, dict) and draft != Draft.DRAFT_2020_12:
        written["$schema"] = named
    return Superset(written, frozenset(writer.kept), frozenset(writer.lost))


@dataclass(frozen=True, slots=True)
class _Writer:
    """The walk over a schema."""

    draft: Draft
    without: frozenset[str]
    ordered: bool
    formats: bool
    kept: set[Place]
    lost: set[Place]

    def write(self, schema: Any, pointer: str) -> Any:
        """What is kept of a schema."""
        if not isinstance(schema, Mapping):
            return schema
        if self.draft == Draft.DRAFT_7 and "$ref" in schema:  # its siblings mean nothing
            schema = {key: value for key, value in schema.items() if key in ("$ref", "$defs", "definitions")}
        left_out = self._left_out(schema)
        found: dict[str, Any] = {}
        for key, value in schema.items():
            if key not in left_out and self._knows(key, value):
                self._keep(found, key, value, pointer, schema)
            elif key in ASSERTIONS and since(key, self.draft) and (key != "format" or self.formats):
                self.lost.add((pointer, key))
        self._close(found, schema)
        return found if self.ordered else _unordered(found)

    def _left_out(self, schema: Mapping[str, Any]) -> frozenset[str]:
        """Keywords to leave out here, with those that would then hold for more than they are meant for."""
        left_out = self.without
        patterns = schema.get("patternProperties")
        if patterns is not None and ("patternProperties" in left_out or not self._knows("patternProperties", patterns)):
            left_out |= {"additionalProperties"}
        if not self.ordered:
            left_out |= {"required"}
        if "additionalItems" in schema and not (self.draft != Draft.DRAFT_2020_12 and _is_list(schema.get("items"))):
            left_out |= {"additionalItems"}
        return left_out

    def _knows(self, key: str, value: Any) -> bool:
        """Whether a keyword with this value can stand in llguidance's schema."""
        if key == "format":
            known = EXACT_FORMATS | WIDER_FORMATS if self.ordered else EXACT_FORMATS
            return self.formats and isinstance(value, str) and value in known
        if key in ("pattern", "patternProperties") and any(map(_OTHER_CLASSES.search, _patterns(value))):
            return False
        if not self.ordered and key in ("const", "enum"):
            return not _has_spellings(value)
        if key == "prefixItems":
            return self.draft == Draft.DRAFT_2020_12
        return key in VALUES or key in NAMED or key in LISTED or key in SINGLE or key in REFERENCES

    def _keep(self, found: dict[str, Any], key: str, value: Any, pointer: str, schema: Mapping[str, Any]) -> None:
        """Write one keyword, and note whether it is enforced wholly."""
        here = f"{pointer}/{_escaped(key)}"
        if key in NAMED and isinstance(value, Mapping):
            value = {name: self.write(inner, f"{here}/{_escaped(name)}") for name, inner in value.items()}
        elif (key in LISTED or key == "items") and _is_list(value):
            value = [self.write(inner, f"{here}/{index}") for index, inner in enumerate(value)]
        elif key in SINGLE:
            value = self.write(value, here)
        if not self.ordered and key == "type":
            value = _any_number(value)
        if key == "oneOf":
            _also(found, {"anyOf": value})
        else:
            found[key] = value
        whole = _is_whole(key, value, schema) and (self.ordered or (key != "properties" and value == schema[key]))
        (self.kept if whole else self.lost).add((pointer, key))

    def _close(self, found: dict[str, Any], schema: Mapping[str, Any]) -> None:
        """Where nothing else can look at a property, `unevaluatedProperties` is `additionalProperties`."""
        rest = schema.get("unevaluatedProperties")
        alone = not schema.keys() & (IN_PLACE | {"additionalProperties"})
        if rest is False and alone and ("patternProperties" in found or "patternProperties" not in schema):
            found["additionalProperties"] = False


def _is_whole(key: str, value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether llguidance enforces a keyword that it knows for all documents."""
    if key == "format":
        return value in EXACT_FORMATS
    if key == "minProperties":  # names that are not listed may come twice, and would count twice
        return schema.get("additionalProperties") is False and "patternProperties" not in schema
    return key != "oneOf"


def _patterns(value: Any) -> list[str]:
    """The patterns of `pattern` or `patternProperties`."""
    return [pattern for pattern in ([value] if isinstance(value, str) else value) if isinstance(pattern, str)]


def _has_spellings(value: Any) -> bool:
    """Whether a value can be written in several ways, whitespace aside: 1 is 1.0, and members have no order."""
    if isinstance(value, list):
        return any(map(_has_spellings, value))
    return isinstance(value, dict) or (isinstance(value, int | float) and not isinstance(value, bool))


def _any_number(kinds: Any) -> Any:
    """The types with `number` for `integer`, because 1.0 is an integer too."""
    if isinstance(kinds, list):
        return list(dict.fromkeys(_any_number(kind) for kind in kinds))
    return "number" if kinds == "integer" else kinds


def _unordered(found: dict[str, Any]) -> dict[str, Any]:
    """The schema with its properties as patterns of names, which may come in any order, and more than once."""
    properties = found.pop("properties", None)
    if isinstance(properties, Mapping):
        patterns = dict(found.get("patternProperties", {}))
        for name, inner in properties.items():
            patterns[f"^{re.escape(name)}$"] = inner
        found["patternProperties"] = patterns
    return found


def _also(found: dict[str, Any], inner: dict[str, Any]) -> None:
    """Require one more schema."""
    found["allOf"] = [*found.get("allOf", []), inner]


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _escaped(token: str) -> str:
    """A token of a JSON pointer."""
    return token.replace("~", "~0").replace("/", "~1")


def tightest(
    schema: Any,
    accepts: Callable[[Any], bool],
    *,
    ordered: bool = True,
    formats: bool = True,
    attempts: int = 2 * len(GROUPS),
) -> Superset:
    """The superset of few left out keywords that llguidance accepts; at last the one that is any document.

    Args:
        schema: parsed.
        accepts: whether llguidance accepts a schema.
        ordered: as for `superset`.
        formats: as for `superset`.
        attempts: how many supersets are tried after the first.
    """
    together = [frozenset[str]().union(*GROUPS[: size + 1]) for size in range(1, len(GROUPS))]
    tried: set[str] = set()
    for without in (frozenset[str](), *(*GROUPS, *together)[:attempts]):
        found = superset(schema, without=without, ordered=ordered, formats=formats)
        key = repr(found.schema)
        if key not in tried and accepts(found.schema):
            return found
        tried.add(key)
    whole = superset(schema, ordered=ordered, formats=formats)
    return Superset({}, frozenset(), whole.lost | whole.kept | {("#", "")})
