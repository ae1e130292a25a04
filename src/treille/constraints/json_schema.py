"""JSON documents: any object, or those that a JSON Schema describes.

llguidance's mask enforces what it can express. For what it cannot, the schema is widened to one that it can, and the
incremental validator of `treille.constraints.json` runs beside it. No keyword is dropped without a word: what neither
of the two can enforce is refused, or with ``strict=False`` listed in the output's stats.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from treille.constraints.base import Constraint, Tokenization
from treille.constraints.bounded import TooLarge
from treille.constraints.guidance import Grammar, GuidanceConstraint, compile_grammar
from treille.constraints.independent import check_document
from treille.constraints.json import Enforcement
from treille.constraints.json_plan import Plan, Settings, Whitespace, plan_of, report_of, validator_of, with_options
from treille.constraints.json_superset import superset
from treille.constraints.lark import GrammarSource, check_unicode, quoted
from treille.constraints.layered import LayeredConstraint, dead_from_the_start, guide_of
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError

_MOST_WHITESPACE = 1000


@dataclass(frozen=True, slots=True)
class JsonSchema(GrammarSource):
    """Documents of a JSON Schema; see `json_schema`.

    Attributes:
        text: the schema as compact JSON.
        settings: how it is read.
        prefix: what comes before the document.
        model: the pydantic model that the schema was made from, which `parse` returns an object of.
    """

    text: str
    settings: Settings = field(default_factory=Settings)
    prefix: str = ""
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
        """One rule that is the schema, for use inside other grammars.

        Raises:
            ParameterError: The grammar alone does not enforce the schema.
        """
        plan = self._plan()
        if plan.program is not None:
            raise ParameterError(
                f"json_schema inside another grammar: {plan.reason} needs more than a grammar; leave it out there, or "
                "use the schema as the constraint itself"
            )
        return self._grammar(plan.schema, checked=False)

    def compile(self, vocabulary: Vocabulary, tokenization: Tokenization = "any") -> Constraint[Any]:
        """The constraint for a vocabulary: a mask, with the validator beside it where the schema needs it.

        Raises:
            SchemaRefused: A keyword cannot be enforced; names it.
            ParameterError: The schema is too large, or no document satisfies it.
        """
        try:
            whole = superset(self.schema, ordered=self.settings.ordered, formats=self.settings.formats)
            if not whole.lost:
                return self._masked(self._grammar(whole.schema, checked=False), vocabulary, tokenization)
        except TooLarge:
            raise
        except RecursionError as error:
            raise ParameterError("json_schema: nested too deeply; use $defs and $ref") from error
        except ParameterError:  # llguidance does not take it as it is
            pass
        plan = self._plan()
        grammar = self._grammar(plan.schema, checked=plan.program is not None)
        mask = self._masked(grammar, vocabulary, tokenization)
        if plan.program is None:
            mask.unenforced = plan.unenforced
            return mask
        layered = LayeredConstraint(mask, plan.program, len(self.prefix.encode()), plan.unenforced)
        if not self.prefix and (reason := dead_from_the_start(layered)):
            raise ParameterError(f"{self.name}: no document satisfies it ({reason}); loosen it")
        return layered

    def report(self) -> list[Enforcement]:
        """Who enforces which keyword: the mask, the second layer, or nobody because it is refused.

        `reason` tells where the mask departs from the standard, such as the order of properties.

        Raises:
            ParameterError: The schema is nested too deeply.
        """
        return report_of(self.text, self.settings)

    def prefixed(self, prefix: str) -> "JsonSchema":
        """The documents with `prefix` before each."""
        return replace(self, prefix=prefix + self.prefix)

    def parse(self, text: str) -> Any:
        """The document as Python values, or as an object of the pydantic model.

        Raises:
            ValueError: It is not a document of this schema (of the model's own validators, for instance).
        """
        text = text.removeprefix(self.prefix)
        return json.loads(text) if self.model is None else self.model.model_validate_json(text)

    def check(self, text: str) -> None:
        """Nothing, if the package `jsonschema` finds that a finished text satisfies the schema.

        Raises:
            InternalError: It does not.
        """
        if not self._plan().unenforced:
            check_document(self.text, text.removeprefix(self.prefix))

    def _masked(self, grammar: Grammar, vocabulary: Vocabulary, tokenization: Tokenization) -> GuidanceConstraint:
        """The mask, which the validator tells how documents are completed."""
        mask = compile_grammar(grammar, vocabulary, tokenization, self.name)
        mask.guide = guide_of(lambda: validator_of(self.text, self.settings), len(self.prefix.encode()))
        return mask

    def _plan(self) -> Plan:
        return plan_of(self.text, self.settings)

    def _grammar(self, schema: Any, *, checked: bool) -> Grammar:
        """The rule of a schema, after the prefix; `checked`: the validator reads the document too."""
        document = f"%json {json.dumps(with_options(schema, self.settings.whitespace, checked=checked))}"
        return Grammar(f"start: {quoted(self.prefix, self.name)} {document}" if self.prefix else f"start: {document}")


def json_schema(
    schema: Any,
    *,
    whitespace: Whitespace = "usual",
    ordered: bool = True,
    strict: bool = True,
    formats: bool = True,
    registry: Mapping[str, Any] | None = None,
) -> JsonSchema:
    """The JSON documents that satisfy a schema.

    Args:
        schema: A dict or a bool, the path of a file, or a pydantic model class.
        whitespace: What may stand in one place between the parts of a document: ``"usual"``, which is nothing, one
            space, or a line break with up to 32 spaces or tabs after it (a model that likes blank lines would fill the
            text with them); a number of characters of whitespace; ``"any"``; or ``"compact"``, which is none.
        ordered: Properties come in the order in which the schema lists them, and the values of `const` and `enum` are
            spelled as there, which is fast. False: every order and spelling of a valid document.
        strict: A keyword that cannot be enforced is an error. False: it is left out, and the output's
            ``stats.unenforced`` names it.
        formats: Whether ``format`` asserts; else it is an annotation, as the standard has it by default.
        registry: Further documents that references may lead to, by URI; nothing is ever fetched.

    Raises:
        ParameterError: It is not a schema, or cannot be read.
    """
    if whitespace not in ("usual", "any", "compact") and (
        type(whitespace) is not int or not 0 <= whitespace <= _MOST_WHITESPACE
    ):
        raise ParameterError(
            f"whitespace={whitespace!r}: give 'usual', a number from 0 to {_MOST_WHITESPACE}, 'any', or 'compact'"
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
    settings = Settings(whitespace, ordered, strict, formats, _written(dict(registry or {})))
    return JsonSchema(_written(schema), settings, model=model)


def json_object(*, whitespace: Whitespace = "usual") -> JsonSchema:
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
