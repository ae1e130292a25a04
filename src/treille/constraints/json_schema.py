"""JSON documents: any object, or those that a JSON Schema describes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from treille.constraints.guidance import Grammar
from treille.constraints.lark import GrammarSource, check_unicode
from treille.errors import ParameterError

Whitespace = Literal["any", "compact"] | int
_BLANKS = r"[\x20\x0A\x0D\x09]"
_DEFAULT_WHITESPACE = 32
_MOST_WHITESPACE = 1000


@dataclass(frozen=True, slots=True)
class JsonSchema(GrammarSource):
    """Documents of a JSON Schema; see `json_schema`.

    Attributes:
        text: the schema as compact JSON.
        whitespace: how much of it may stand between the parts of a document.
        model: the pydantic model that the schema was made from, which `parse` returns an object of.
    """

    text: str
    whitespace: Whitespace = _DEFAULT_WHITESPACE
    model: Any = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return "json_schema"

    @property
    def schema(self) -> Any:
        """The schema, parsed."""
        return json.loads(self.text)

    def grammar(self) -> Grammar:
        """One rule that is the schema."""
        schema = self.schema
        if not isinstance(schema, dict):
            schema = {"allOf": [schema]}  # options need an object to stand in
        options: dict[str, Any] = {"json_allow_general_unicode_escapes": True}
        if self.whitespace == "compact":
            options["whitespace_flexible"] = False
        elif self.whitespace != "any":
            options["whitespace_pattern"] = f"{_BLANKS}{{0,{self.whitespace}}}"
        return Grammar(f"start: %json {json.dumps({**schema, 'x-guidance': options})}")

    def parse(self, text: str) -> Any:
        """The document as Python values, or as an object of the pydantic model.

        Raises:
            ValueError: It is not a document of this schema (of the model's own validators, for instance).
        """
        return json.loads(text) if self.model is None else self.model.model_validate_json(text)


def json_schema(schema: Any, *, whitespace: Whitespace = _DEFAULT_WHITESPACE) -> JsonSchema:
    """The JSON documents that satisfy a schema.

    Args:
        schema: A dict or a bool, the path of a file, or a pydantic model class.
        whitespace: Characters of whitespace that may stand in one place between the parts of a document: a number,
            ``"any"``, or ``"compact"``, which is none.

    Raises:
        ParameterError: It is not a schema, or cannot be read.
    """
    if whitespace not in ("any", "compact") and (
        type(whitespace) is not int or not 0 <= whitespace <= _MOST_WHITESPACE
    ):
        raise ParameterError(
            f"whitespace={whitespace!r}: give a number from 0 to {_MOST_WHITESPACE}, 'any', or 'compact'"
        )
    model = schema if hasattr(schema, "model_json_schema") and hasattr(schema, "model_validate_json") else None
    if model is not None:
        schema = model.model_json_schema()
    elif isinstance(schema, str | Path):
        schema = _read(Path(schema))
    if not isinstance(schema, Mapping | bool):
        raise ParameterError(
            f"json_schema: {type(schema).__name__} is not a schema; give a dict, a bool, the path of a file, "
            "or a pydantic model class"
        )
    return JsonSchema(_written(schema), whitespace, model)


def json_object(*, whitespace: Whitespace = _DEFAULT_WHITESPACE) -> JsonSchema:
    """Any JSON object.

    Args:
        whitespace: As for `json_schema`.
    """
    return json_schema({"type": "object"}, whitespace=whitespace)


def _read(path: Path) -> Any:
    """The JSON of a file.

    Raises:
        ParameterError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"json_schema: {path}: {error.strerror}; give the path of a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"json_schema: {path}: not JSON ({error})") from error


def _written(schema: Any) -> str:
    """The schema as compact JSON.

    Raises:
        ParameterError: It holds what JSON cannot, or is nested too deeply.
    """
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError as error:
        raise ParameterError("json_schema: nested too deeply; use $defs and $ref") from error
    except (TypeError, ValueError) as error:
        raise ParameterError(f"json_schema: not JSON ({error}); give numbers, strings, lists and dicts") from error
    check_unicode(text, "json_schema")
    return text
