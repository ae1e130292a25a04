"""An independent check of finished documents, by the package `jsonschema`.

Numbers are decimals there, as they are in JSON, so that multiples of 0.01 are exact. Formats are not checked, and a
schema with patterns only if Python's `re` surely reads them like ECMA-262.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.validators import extend, validator_for
from referencing.exceptions import Unresolvable

from treille.errors import InternalError

_PLAIN = re.compile(r"\^?(?:[^\\.$^\[\]()]|\\[.\-/+*?()\[\]{}|^$]|\[[\w\- ]+\]|\((?!\?)|\)|\.)*\$?", re.ASCII)
"""Patterns that mean the same to Python and to ECMA-262."""


def check_document(schema: str, text: str) -> None:
    """Nothing, if a document satisfies a schema, or the package cannot tell; both are JSON.

    Raises:
        InternalError: It does not: a constraint has let through what it should not have.
    """
    validator = _validator(schema)
    if validator is None:
        return
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(json.loads(text, parse_float=Decimal)))
    except (Unresolvable, RecursionError, InvalidOperation):  # a number of thousands of digits, for instance
        return
    if error is not None:
        place = "/".join(map(str, error.absolute_schema_path))
        raise InternalError(f"json_schema: {text[:200]!r} was generated, but violates #/{place}: {error.message[:200]}")


@lru_cache(64)
def _validator(schema: str) -> Any | None:
    """The validator of a schema; None where it would read a pattern in another way."""
    parsed = json.loads(schema, parse_float=Decimal)
    if not all(_PLAIN.fullmatch(pattern) for pattern in _patterns(parsed)):
        return None
    base = validator_for(parsed, default=None)
    if base is None:
        if isinstance(parsed, dict) and "$schema" in parsed:
            return None  # a metaschema of its own
        base = jsonschema.Draft202012Validator
    return extend(base, type_checker=base.TYPE_CHECKER.redefine("integer", _is_integer))(parsed)


def _patterns(schema: Any) -> Iterator[str]:
    """Everything in a schema that may be a pattern."""
    if isinstance(schema, list):
        for item in schema:
            yield from _patterns(item)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                yield value
            elif key == "patternProperties" and isinstance(value, dict):
                yield from value
            yield from _patterns(value)


def _is_integer(_checker: Any, instance: Any) -> bool:
    """Whether a number has no fraction."""
    if isinstance(instance, Decimal):
        return bool(instance == instance.to_integral_value())
    return isinstance(instance, int) and not isinstance(instance, bool)
