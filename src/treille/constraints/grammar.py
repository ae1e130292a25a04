"""Texts of a context-free grammar."""

import re
from dataclasses import dataclass

from treille.constraints.guidance import Grammar
from treille.constraints.lark import GrammarSource, check_unicode
from treille.errors import ParameterError


@dataclass(frozen=True, slots=True)
class Lark(GrammarSource):
    """A context-free grammar; see `grammar`."""

    text: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return "grammar"

    def grammar(self) -> Grammar:
        """The text itself."""
        check_unicode(self.text, self.name)
        if not re.search(r"^\s*start\s*(\[[^\]\n]*\])?\s*:", self.text, flags=re.MULTILINE):
            raise ParameterError("grammar: no rule named start; write 'start: …' for the whole text")
        if re.search(r"^\s*%llguidance\b", self.text, flags=re.MULTILINE):
            raise ParameterError("grammar: %llguidance options are set by tokenization=; leave the line out")
        return Grammar(self.text)


def grammar(text: str) -> Lark:
    """The texts of a context-free grammar, written as for the Lark parser.

    Rules have lower-case names, terminals upper-case ones; ``start`` is the whole text. Terminals are regular
    expressions (``/[a-z]+/``) or strings; ``%ignore`` names what may stand between them, ``%json {…}`` embeds a JSON
    Schema, ``<|name|>`` is a special token of the model.

    Args:
        text: The grammar.
    """
    return Lark(text)
