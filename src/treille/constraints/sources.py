"""What a user may give as `constraint=`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.constraints.base import Source
from treille.constraints.json_schema import json_schema
from treille.errors import ParameterError

if TYPE_CHECKING:
    from typing import TypeGuard


def as_source(given: Any) -> Source:
    """The source that `given` is or describes: a source, a JSON Schema as a dictionary, or a pydantic model.

    Raises:
        ParameterError: It is none of these.
    """
    if _is_source(given):
        return given
    if isinstance(given, dict) or hasattr(given, "model_json_schema"):
        return json_schema(given)
    raise ParameterError(
        f"constraint={given!r}: give json_schema(…), json_object(), regex(…), grammar(…), choices([…]), trie([…]) or "
        "after(…), a JSON Schema as a dictionary, or a pydantic model"
    )


def _is_source(given: Any) -> TypeGuard[Source]:
    return not isinstance(given, type) and isinstance(given, Source)
