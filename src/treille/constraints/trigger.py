"""Free text until a trigger, then a grammar: tool calls and answers after a reasoning block."""

from dataclasses import dataclass

from treille.constraints.guidance import Grammar
from treille.constraints.lark import GrammarSource, quoted
from treille.errors import ParameterError

_ANY = "/(?s:.*)/"


@dataclass(frozen=True, slots=True)
class After(GrammarSource):
    """Free text until a trigger, then another source; see `after`."""

    trigger: str
    inner: GrammarSource
    special: bool = False
    required: bool = False
    repeat: bool = False

    @property
    def name(self) -> str:
        """The trigger and the inner source, for messages."""
        return f"after {self.trigger!r}: {self.inner.name}"

    def grammar(self) -> Grammar:
        """Pieces that end with the trigger and go on with the inner grammar, around text without the trigger."""
        inner = self.inner.grammar()
        mention, parts = inner.part()
        if self.special:
            free, head = _ANY, f"head: FREE {self.trigger}"
        else:
            # What is free must not hold the trigger: after it, only the inner grammar goes on.
            literal = quoted(self.trigger, self.name)
            free, head = f"/(?s:.*)/ & ~HOLDS\nHOLDS: {_ANY} {literal} {_ANY}", f"head[lazy]: {_ANY} {literal}"
        start = {
            (False, False): "call | FREE",
            (False, True): "call* FREE",
            (True, False): "call",
            (True, True): "call+ FREE",
        }[self.required, self.repeat]
        return Grammar(
            f"start: {start}\ncall: head {mention}\n{head}\nFREE: {free}", parts, (self.trigger, *inner.hints)
        )


def after(
    trigger: str, constraint: GrammarSource, *, special: bool = False, required: bool = False, repeat: bool = False
) -> After:
    """Free text until the first `trigger`, then a text of `constraint`.

    Args:
        trigger: Such as ``"<tool_call>"``.
        constraint: What must follow the trigger. After it the text ends, unless `repeat`.
        special: Whether `trigger` names a special token of the model, such as ``"<|python_tag|>"``, instead of a text.
        required: Whether the text may not end without the trigger.
        repeat: Whether free text, triggers and further texts of `constraint` may follow.

    Raises:
        ParameterError: The trigger is empty, or the constraint cannot stand inside a grammar.
    """
    if not trigger:
        raise ParameterError("after: the trigger is empty; give the text after which the constraint begins")
    if special and not (trigger.startswith("<") and trigger.endswith(">") and len(trigger) > 2):
        raise ParameterError(f"after: special token {trigger!r} must be written <…>, as the tokenizer does")
    if not isinstance(constraint, GrammarSource):
        raise ParameterError(
            f"after: {type(constraint).__name__} cannot stand inside a grammar; "
            "use choices(), regex(), grammar() or json_schema()"
        )
    return After(trigger, constraint, special, required, repeat)
