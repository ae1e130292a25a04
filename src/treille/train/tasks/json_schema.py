"""A checker for the subset of JSON Schema that the json task uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a parsed JSON value fits a schema.

    Understood: type, enum, minimum, maximum, items, minItems, maxItems, and properties, all of which are required,
    and no others allowed (the task's schemas say so too). The type is exact: true is not an integer, and neither is
    3.0.
    """
    if type(value) is not KINDS[schema["type"]]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    match value:
        case int():
            return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
        case list():
            length_fits = schema["minItems"] <= len(value) <= schema["maxItems"]
            return length_fits and all(fits(item, schema["items"]) for item in value)
        case dict():
            properties = schema["properties"]
            return value.keys() == properties.keys() and all(fits(value[key], properties[key]) for key in properties)
        case _:
            return True
