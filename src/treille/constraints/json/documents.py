"""Schema documents: drafts, resources with their identifiers and anchors, and what a reference leads to.

Identifiers are looked for in schemas only: an `$id` inside an `enum` or an unknown keyword names nothing. No document
is ever fetched: a reference leads into the schema itself, into a document of the caller's registry, or to a metaschema.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Draft(IntEnum):
    """A version of JSON Schema."""

    DRAFT_7 = 7
    DRAFT_2019_09 = 2019
    DRAFT_2020_12 = 2020


METASCHEMAS: Mapping[str, Draft] = {
    "http://json-schema.org/draft-07/schema": Draft.DRAFT_7,
    "https://json-schema.org/draft/2019-09/schema": Draft.DRAFT_2019_09,
    "https://json-schema.org/draft/2020-12/schema": Draft.DRAFT_2020_12,
}
# Pointers are kept for every schema: without a limit, deep nesting would cost memory in proportion to its square.
MAX_POINTER = 2000
_VALIDATION = "/vocab/validation"
_FORMAT_ASSERTION = "/vocab/format-assertion"

# Keywords whose value is a schema, a list of schemas, a mapping to schemas. `items` is either of the first two; a value
# of `dependencies` may be a list of names.
ONE = frozenset({
    "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
MANY = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
NAMED = frozenset({"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"})


@dataclass(eq=False, slots=True)
class Resource:
    """A schema with its own identifier, or a whole document.

    Attributes:
        uri: absolute where the document says so, without fragment; empty for a schema without `$id`.
        document: the document it is part of.
        pointer: where it stands there.
        draft: the version its keywords are read in.
        vocabularies: those that its metaschema names; empty: all.
        anchors, dynamic: locations by plain name; `dynamic` those of `$dynamicAnchor`.
        recursive: `$recursiveAnchor` of 2019-09.
    """

    uri: str
    document: Document
    pointer: str
    draft: Draft
    vocabularies: tuple[str, ...]
    anchors: dict[str, Location] = field(default_factory=dict)
    dynamic: dict[str, Location] = field(default_factory=dict)
    recursive: bool = False

    @property
    def validates(self) -> bool:
        """Whether the assertions (`type`, `minimum`, …) are in force."""
        return not self.vocabularies or any(name.endswith(_VALIDATION) for name in self.vocabularies)

    @property
    def asserts_formats(self) -> bool:
        """Whether the metaschema makes `format` an assertion."""
        return any(name.endswith(_FORMAT_ASSERTION) for name in self.vocabularies)


@dataclass(eq=False, slots=True)
class Document:
    """A parsed JSON document, and for each schema in it the resource that it belongs to, by JSON pointer."""

    uri: str
    contents: Any
    owners: dict[str, Resource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a document."""

    document: Document
    pointer: str
    value: Any
    resource: Resource

    def __truediv__(self, token: str | int) -> Location:
        """The location of a member or an item."""
        step = token.replace("~", "~0").replace("/", "~1") if isinstance(token, str) else str(token)
        pointer = f"{self.pointer}/{step}"
        if len(pointer) > MAX_POINTER:
            reason = f"schemas are nested so deep that a pointer has more than {MAX_POINTER} characters"
            raise SchemaRefused(f"{self.document.uri}#{pointer[:80]}…", "", reason)
        owner = self.document.owners.get(pointer, self.resource)
        return Location(self.document, pointer, self.value[token], owner)

    @property
    def name(self) -> str:
        """How messages and reports name the place."""
        return f"{self.document.uri}#{self.pointer}"


class SchemaRefused(ParameterError):
    """A schema cannot be enforced, or is not one.

    Attributes:
        pointer: the schema's place, as a URI fragment after the document's URI.
        keyword: the keyword there; empty if the schema itself is at fault.
        reason: why, and what to do.
    """

    def __init__(self, pointer: str, keyword: str, reason: str) -> None:
        place = f"{pointer}/{keyword}" if keyword else pointer
        super().__init__(f"JSON Schema refused at {place}: {reason}")
        self.pointer = pointer
        self.keyword = keyword
        self.reason = reason


def refusal(location: Location, keyword: str, reason: str) -> SchemaRefused:
    """The error of a schema that is refused, with the keyword's pointer."""
    return SchemaRefused(location.name, keyword, reason)


@cache
def _specifications() -> dict[str, Any]:
    """The published metaschemas by URI, if the package that carries them is installed."""
    try:
        from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return {}
    return {uri.rstrip("#"): REGISTRY.contents(uri) for uri in REGISTRY}


class Library:
    """All documents that references of one schema can lead to.

    Args:
        schema: the schema; its references are resolved against its `$id`.
        registry: further documents by URI.
        draft: the version to read the schema in, whatever its `$schema` says; None: what that says, else 2020-12.
            Further documents without `$schema` are read in the version of the schema.
    """

    def __init__(self, schema: Any, registry: Mapping[str, Any], draft: Draft | None) -> None:
        self._registry = {uri.rstrip("#"): contents for uri, contents in registry.items()}
        self._draft = draft or Draft.DRAFT_2020_12
        self._forced = draft
        self.resources: dict[str, Resource] = {}
        self.root = self._add("", schema)
        self._draft = draft or self.root.resource.draft  # of documents that do not say theirs

    def _add(self, uri: str, contents: Any) -> Location:
        """The root of a new document."""
        document = Document(uri, contents)
        resource = Resource(uri, document, "", self._draft, ())
        root = Location(document, "", contents, resource)
        resource.draft, resource.vocabularies = self._version(contents, self._draft, root)
        self.resources[uri] = resource
        self._walk(root)
        return Location(document, "", contents, document.owners.get("", resource))

    def _version(self, schema: Any, default: Draft, location: Location) -> tuple[Draft, tuple[str, ...]]:
        """The draft of a resource, and the vocabularies of its metaschema (empty: all)."""
        uri = schema.get("$schema") if isinstance(schema, dict) else None
        if uri is None or (self._forced is not None and not location.document.uri):
            return default, ()
        if not isinstance(uri, str):
            raise refusal(location, "$schema", f"{uri!r} is no URI")
        uri = uri.rstrip("#")
        if uri in METASCHEMAS:
            return METASCHEMAS[uri], ()
        meta = self._registry.get(uri)
        if not isinstance(meta, dict):
            known = ", ".join(METASCHEMAS)
            reason = (
                f"{uri!r} is unknown; known are {known}; pass draft= to read it as one, or its document in registry="
            )
            raise refusal(location, "$schema", reason)
        vocabulary = tuple(meta.get("$vocabulary", ()))
        drafts = [draft for draft in Draft if any(f"/draft/{draft}" in name for name in vocabulary)]
        found = drafts[0] if drafts else self._version(meta, default, location)[0]
        return found, vocabulary

    def _walk(self, root: Location) -> None:
        """Notes identifiers and anchors of a schema and all schemas inside it."""
        waiting = [root]
        while waiting:
            location = waiting.pop()
            if isinstance(location.value, dict):
                location = self._identify(location)
                waiting.extend(subschemas(location))
            location.document.owners[location.pointer] = location.resource

    def _identify(self, location: Location) -> Location:
        """The location, in the resource that its own `$id` opens if it has one; its anchors are noted."""
        schema, resource = location.value, location.resource
        identifier = schema.get("$id")
        old = resource.draft == Draft.DRAFT_7 and "$schema" not in schema
        if isinstance(identifier, str) and not (old and "$ref" in schema):
            if identifier.startswith("#") and resource.draft == Draft.DRAFT_7:
                resource.anchors[identifier[1:]] = location
            elif identifier.rstrip("#"):
                resource = self._open(location, identifier)
                location = Location(location.document, location.pointer, schema, resource)
        for keyword, table in (("$anchor", resource.anchors), ("$dynamicAnchor", resource.dynamic)):
            name = schema.get(keyword)
            if isinstance(name, str) and resource.draft != Draft.DRAFT_7:
                table[name] = location
                resource.anchors[name] = location
        if schema.get("$recursiveAnchor") is True and location.pointer == resource.pointer:
            resource.recursive = resource.draft == Draft.DRAFT_2019_09
        return location

    def _open(self, location: Location, identifier: str) -> Resource:
        """The resource of a schema with an `$id`; the root of a document keeps its retrieval URI too."""
        outer = location.resource
        uri = join(outer.uri, identifier).rstrip("#")
        draft, vocabularies = self._version(location.value, outer.draft, location)
        if "$schema" not in location.value:
            vocabularies = outer.vocabularies
        resource = Resource(uri, location.document, location.pointer, draft, vocabularies)
        self.resources[uri] = resource
        if not location.pointer:
            self.resources[location.document.uri] = resource
        return resource

    def resolve(self, reference: str, location: Location, keyword: str) -> Location:
        """The place a reference leads to.

        Raises:
            ParameterError: it leads nowhere, or to a document that is not at hand.
        """
        uri, _, fragment = join(location.resource.uri, reference).partition("#")
        resource = self.resources.get(uri) or self._find(uri, location, keyword)
        fragment = unquote(fragment)
        if not fragment or fragment.startswith("/"):
            return self._follow(resource, fragment, location, keyword)
        if fragment not in resource.anchors:
            raise refusal(location, keyword, f"{reference!r}: there is no anchor {fragment!r}")
        return resource.anchors[fragment]

    def _find(self, uri: str, location: Location, keyword: str) -> Resource:
        """The resource of a document that has not been used so far."""
        known = self._registry.get(uri)
        if known is None:
            known = _specifications().get(uri)
        if known is None:
            reason = f"{uri!r} is not part of the schema and is not fetched; pass its document in registry="
            raise refusal(location, keyword, reason)
        return self._add(uri, known).resource

    def _follow(self, resource: Resource, fragment: str, location: Location, keyword: str) -> Location:
        """The place that a JSON pointer leads to from a resource's root."""
        value: Any = resource.document.contents
        pointer, owner = "", resource
        for token in (resource.pointer + fragment).split("/")[1:]:
            pointer += f"/{token}"
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise refusal(location, keyword, f"the pointer {fragment!r} leads nowhere (no {key!r})")
            owner = resource.document.owners.get(pointer, owner)
        place = Location(resource.document, pointer, value, owner)
        if pointer not in resource.document.owners:  # inside a keyword that holds no schemas as far as we know
            self._walk(place)
            place = Location(resource.document, pointer, value, resource.document.owners[pointer])
        return place


def join(base: str, reference: str) -> str:
    """`reference` resolved against `base`; URNs, which `urljoin` does not resolve against, keep their fragments."""
    if reference.startswith("#"):
        return base + reference
    return urljoin(base, reference)


def subschemas(location: Location) -> Iterator[Location]:
    """The schemas directly inside a schema."""
    for keyword, value in location.value.items():
        if keyword in ONE and isinstance(value, dict | bool):
            yield location / keyword
        elif keyword in MANY and isinstance(value, list):
            inner = location / keyword
            yield from (inner / index for index in range(len(value)))
        elif keyword in NAMED and isinstance(value, dict):
            inner = location / keyword
            yield from (inner / name for name in value if isinstance(value[name], dict | bool))
