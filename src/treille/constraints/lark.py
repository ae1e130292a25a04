"""Sources that are grammars for llguidance, and how text is quoted in its Lark dialect."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from treille.constraints.base import Constraint, Tokenization
from treille.constraints.guidance import Grammar, compile_grammar
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError


class GrammarSource(ABC):
    """A source that llguidance recognizes."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @abstractmethod
    def grammar(self) -> Grammar:
        """Its grammar.

        Raises:
            ParameterError: The description is wrong.
        """

    def compile(self, vocabulary: Vocabulary, tokenization: Tokenization = "any") -> Constraint[Any]:
        """The constraint for a vocabulary.

        Raises:
            ParameterError: The description is wrong, too large, or no text satisfies it.
        """
        return compile_grammar(self.grammar(), vocabulary, tokenization, self.name)

    def prefixed(self, prefix: str) -> "GrammarSource":
        """The source of all texts that are `prefix` followed by a text of this one."""
        return Prefixed(prefix, self) if prefix else self

    def check(self, text: str) -> None:  # noqa: B027 - most sources have nothing to check
        """Nothing: there are no other means to tell."""

    def parse(self, text: str) -> Any:
        """The text itself."""
        return text


def quoted(text: str, name: str) -> str:
    """A string literal of the Lark dialect.

    Raises:
        ParameterError: `text` holds half of a surrogate pair, which no UTF-8 text can.
    """
    check_unicode(text, name)
    return json.dumps(text, ensure_ascii=False)


def check_unicode(text: str, name: str) -> None:
    """Nothing, if `text` can be written as UTF-8.

    Raises:
        ParameterError: It holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(
            f"{name}: character {error.start} is half of a surrogate pair, which is no text; give the whole character"
        ) from error


@dataclass(frozen=True, slots=True)
class Prefixed(GrammarSource):
    """The texts that are a prefix followed by a text of another source.

    Attributes:
        prefix: what comes first.
        inner: the source of the rest.
    """

    prefix: str
    inner: GrammarSource

    @property
    def name(self) -> str:
        """The name of the inner source."""
        return self.inner.name

    def grammar(self) -> Grammar:
        """The prefix as a literal, then the inner grammar."""
        inner = self.inner.grammar()
        mention, parts = inner.part()
        return Grammar(f"start: {quoted(self.prefix, self.name)} {mention}", parts, inner.hints)

    def parse(self, text: str) -> Any:
        """What the inner source makes of the text after the prefix."""
        return self.inner.parse(text.removeprefix(self.prefix))
