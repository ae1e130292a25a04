"""Which keyword exists in which draft, and which of them assert anything."""

from __future__ import annotations

from treille.constraints.json.documents import Draft

_ALWAYS = frozenset({
    "$ref", "additionalProperties", "allOf", "anyOf", "const", "contains", "else", "enum", "exclusiveMaximum",
    "exclusiveMinimum", "format", "if", "items", "maximum", "maxItems", "maxLength", "maxProperties", "minimum",
    "minItems", "minLength", "minProperties", "multipleOf", "not", "oneOf", "pattern", "patternProperties",
    "properties", "propertyNames", "required", "then", "type", "uniqueItems",
    # 2019-09 and 2020-12 split it in two, but schemas still carry it, and metaschemas still describe it.
    "dependencies",
})  # fmt: skip
_SINCE_2019 = frozenset({
    "dependentRequired", "dependentSchemas", "maxContains", "minContains", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
_ONLY_2020 = frozenset({"$dynamicRef", "prefixItems"})
_ONLY_2019 = frozenset({"$recursiveRef"})
_BEFORE_2020 = frozenset({"additionalItems"})
# Later drafts made them annotations.
_ONLY_7 = frozenset({"contentEncoding", "contentMediaType"})

ASSERTIONS = _ALWAYS | _SINCE_2019 | _ONLY_2020 | _ONLY_2019 | _BEFORE_2020 | _ONLY_7

# Keywords of the validation vocabulary; a metaschema may leave them out.
VALIDATION = frozenset({
    "const", "dependentRequired", "enum", "exclusiveMaximum", "exclusiveMinimum", "maximum", "maxContains", "maxItems",
    "maxLength", "maxProperties", "minContains", "minimum", "minItems", "minLength", "minProperties", "multipleOf",
    "pattern", "required", "type", "uniqueItems",
})  # fmt: skip


def since(keyword: str, draft: Draft) -> bool:
    """Whether an assertion keyword means something in a draft."""
    if keyword in _SINCE_2019:
        return draft >= Draft.DRAFT_2019_09
    if keyword in _ONLY_2020:
        return draft == Draft.DRAFT_2020_12
    if keyword in _ONLY_2019:
        return draft == Draft.DRAFT_2019_09
    if keyword in _ONLY_7:
        return draft == Draft.DRAFT_7
    if keyword in _BEFORE_2020:
        return draft < Draft.DRAFT_2020_12
    return True
