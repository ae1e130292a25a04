"""How a JSON Schema is enforced: which schema the mask gets, whether the validator runs, and what nobody enforces."""

import json
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import llguidance

from treille.constraints.bounded import SMALL, check_bounded
from treille.constraints.guidance import Grammar
from treille.constraints.json import Enforcement, Program, SchemaRefused
from treille.constraints.json_superset import GROUPS, Place, Superset, tightest
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterable

Whitespace = Literal["usual", "any", "compact"] | int
_BLANKS = r"[\x20\x0A\x0D\x09]"
_USUAL = r"(\x20|\x0D?\x0A[\x20\x09]{0,32})?"
_NO_UNICODE = 'nrbtf\\"'
"""The escapes that JSON strings may hold, without those of characters by number."""
_KEPT = 64
"""Plans that are remembered."""
_REFUSALS = 100
"""Keywords that are left out of one schema at the most with ``strict=False``."""
_NOT_WIDENED = ("not", "if", "oneOf", "contains", "propertyNames", "dependentSchemas", "dependencies")
"""Keywords inside which leaving something out may allow less; they are left out whole."""
_DEPARTURES = {
    "properties": "in the order of the schema (ordered=False: in any order)",
    "const": "numbers and objects are spelled as they stand there (ordered=False: in any way)",
    "enum": "numbers and objects are spelled as they stand there (ordered=False: in any way)",
    "type": "integers are spelled without a fraction (ordered=False: in any way)",
    "additionalProperties": "these names come after those of the schema",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a schema is read.

    Attributes:
        whitespace: how much of it may stand between the parts of a document.
        ordered: whether properties come in the schema's order, and values are spelled as there.
        strict: whether a keyword that cannot be enforced is an error.
        formats: whether `format` asserts.
        registry: further documents by URI, as JSON.
    """

    whitespace: Whitespace = "usual"
    ordered: bool = True
    strict: bool = True
    formats: bool = True
    registry: str = "{}"

    def of_program(self) -> dict[str, Any]:
        """Those of the validator."""
        return {"formats": self.formats, "registry": json.loads(self.registry)}


@dataclass(frozen=True, slots=True)
class Plan:
    """How a schema is enforced.

    Attributes:
        schema: what the mask enforces.
        program: what the validator runs; None where the mask enforces everything.
        reason: the first keyword that the mask does not enforce.
        unenforced: keywords that neither enforces, each as ``pointer/keyword: why``.
    """

    schema: Any
    program: Program | None
    reason: str = ""
    unenforced: tuple[str, ...] = ()


@lru_cache(_KEPT)
def plan_of(text: str, settings: Settings) -> Plan:
    """The plan of a schema, which is given as JSON.

    Raises:
        SchemaRefused: Neither layer can enforce a keyword, and the settings are strict.
        ParameterError: The schema is nested too deeply.
    """
    schema = json.loads(text)
    try:
        mask = _mask_of(schema, settings)
        unenforced: list[str] = []
        if not mask.lost:
            return Plan(mask.schema, None)
        reason = "/".join(min(mask.lost))
        while (refused := _refused(schema, settings, mask.kept)) is not None:
            entry, kept_by_mask = refused
            if settings.strict and not kept_by_mask:
                raise SchemaRefused(entry.pointer, entry.keyword, entry.reason)
            place = (entry.pointer, entry.keyword) if kept_by_mask else _removable(entry)
            if len(unenforced) == _REFUSALS or not _remove(schema, place):
                raise SchemaRefused(entry.pointer, entry.keyword, entry.reason)
            if not kept_by_mask:
                unenforced.append(f"{'/'.join(place)}: {entry.reason}")
                mask = _mask_of(schema, settings)
        program = Program.compile(schema, **settings.of_program()) if mask.lost else None
        return Plan(mask.schema, program, reason, tuple(unenforced))
    except RecursionError as error:
        raise ParameterError("json_schema: nested too deeply; use $defs and $ref") from error


@lru_cache(_KEPT)
def validator_of(text: str, settings: Settings) -> Program | None:
    """The validator of a schema, which is given as JSON; None where it does not know a keyword."""
    try:
        return Program.compile(json.loads(text), **settings.of_program())
    except (ParameterError, RecursionError):
        return None


def with_options(schema: Any, whitespace: Whitespace, *, checked: bool = False) -> dict[str, Any]:
    """The schema with llguidance's options in it.

    Names with escapes would pass for additional ones, so where these are allowed characters stand for themselves,
    unless the document is `checked` by the validator.
    """
    if not isinstance(schema, dict):
        schema = {"allOf": [schema]}  # options need an object to stand in
    options: dict[str, Any] = {"json_allow_general_unicode_escapes": True}
    if not (checked or _are_names_closed(schema)):
        options = {"json_allowed_escapes": _NO_UNICODE}
    if whitespace == "compact":
        options["whitespace_flexible"] = False
    elif whitespace == "usual":
        options["whitespace_pattern"] = _USUAL
    elif whitespace != "any":
        options["whitespace_pattern"] = f"{_BLANKS}{{0,{whitespace}}}"
    return {**schema, "x-guidance": options}


def _are_names_closed(schema: Any) -> bool:
    """Whether no object with listed names allows others."""
    if isinstance(schema, list):
        return all(map(_are_names_closed, schema))
    if not isinstance(schema, dict):
        return True
    lists = "properties" in schema or "patternProperties" in schema
    if lists and schema.get("additionalProperties") is not False:
        return False
    return all(map(_are_names_closed, schema.values()))


def report_of(text: str, settings: Settings) -> list[Enforcement]:
    """Who enforces which keyword of a schema, which is given as JSON.

    Raises:
        ParameterError: The schema is nested too deeply.
    """
    schema = json.loads(text)
    try:
        kept = _mask_of(schema, settings).kept
        return [
            _judged(entry, kept, ordered=settings.ordered) for entry in Program.inspect(schema, **settings.of_program())
        ]
    except RecursionError as error:
        raise ParameterError("json_schema: nested too deeply; use $defs and $ref") from error


def _judged(entry: Enforcement, kept: frozenset[Place], *, ordered: bool) -> Enforcement:
    """The entry with the mask named where it enforces the keyword, and where it departs from the standard."""
    if entry.by == "annotation" or (entry.pointer, entry.keyword) not in kept or _shielded(entry.pointer):
        return entry
    return replace(entry, by="mask", reason=_DEPARTURES.get(entry.keyword, "") if ordered else "")


def _mask_of(schema: Any, settings: Settings) -> Superset:
    """The tightest superset that llguidance takes."""

    def accepts(candidate: Any) -> bool:
        grammar = Grammar(f"start: %json {json.dumps(with_options(candidate, settings.whitespace))}").serialize("any")
        try:
            check_bounded(grammar, _bytes(), "json_schema")
        except ParameterError:
            return False
        return not llguidance.LLMatcher(_bytes().environment, grammar, log_level=0).is_error()

    # Each attempt at a large schema takes a process of its own.
    attempts = 0 if len(json.dumps(schema)) > SMALL else 2 * len(GROUPS)
    return tightest(schema, accepts, ordered=settings.ordered, formats=settings.formats, attempts=attempts)


@cache
def _bytes() -> Vocabulary:
    """A small vocabulary: whether a schema is accepted does not depend on it."""
    return Vocabulary((*(bytes([byte]) for byte in range(256)), b""), frozenset((256,)), 257)


def _refused(schema: Any, settings: Settings, kept: frozenset[Place]) -> tuple[Enforcement, bool] | None:
    """The first keyword that the validator refuses, and whether the mask enforces it; None if there is none."""
    for entry in Program.inspect(schema, **settings.of_program()):
        if entry.by == "refused":
            return entry, (entry.pointer, entry.keyword) in kept and not _shielded(entry.pointer)
    return None


def _steps(pointer: str) -> list[str]:
    """The tokens of a JSON pointer in a URI fragment."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.partition("#")[2].split("/")[1:]]


def _shielded(pointer: str) -> bool:
    """Whether a schema may stand inside a keyword where leaving something out could allow less."""
    return any(step in _NOT_WIDENED for step in _steps(pointer))


def _removable(entry: Enforcement) -> Place:
    """The refused keyword, or the first one around it inside which nothing may be left out."""
    before: list[str] = []
    for step in entry.pointer.partition("#")[2].split("/")[1:]:
        if step in _NOT_WIDENED:
            return "#" + "".join(f"/{token}" for token in before), step
        before.append(step)
    return entry.pointer, entry.keyword


def _remove(schema: Any, place: Place) -> bool:
    """Take a keyword out of a schema; whether it was there."""
    for step in _steps(place[0]):
        schema = schema[int(step)] if isinstance(schema, list) else schema[step]
    found = isinstance(schema, dict) and place[1] in schema
    if found:
        del schema[place[1]]
        _remove_dependents(schema, place[1])
    return found


def _remove_dependents(schema: dict[str, Any], keyword: str) -> None:
    """Take out what would hold for more without `keyword`."""
    dependents: dict[str, Iterable[str]] = {
        "patternProperties": ("additionalProperties", "unevaluatedProperties"),
        "if": ("then", "else"),
    }
    for dependent in dependents.get(keyword, ()):
        schema.pop(dependent, None)
