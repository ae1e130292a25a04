"""One of a few texts."""

from collections.abc import Iterable
from dataclasses import dataclass

from treille.constraints.guidance import Grammar
from treille.constraints.lark import GrammarSource, quoted
from treille.errors import ParameterError


@dataclass(frozen=True, slots=True)
class Choices(GrammarSource):
    """One of a few texts; see `choices`."""

    texts: tuple[str, ...]

    @property
    def name(self) -> str:
        """What messages call it."""
        return "choices"

    def grammar(self) -> Grammar:
        """One rule with an alternative per text."""
        return Grammar("start: " + " | ".join(quoted(text, self.name) for text in self.texts))


def choices(texts: Iterable[str]) -> Choices:
    """Exactly one of `texts`; for thousands of them, `treille.trie` compiles faster.

    Args:
        texts: At least one; repetitions count once.

    Raises:
        ParameterError: There is none, or one is not text.
    """
    return Choices(distinct(texts, "choices"))


def distinct(texts: Iterable[str], name: str) -> tuple[str, ...]:
    """The distinct texts in order.

    Raises:
        ParameterError: There is none, or one is not text.
    """
    if isinstance(texts, str):
        raise ParameterError(f"{name}={texts!r}: one text, of which each character would be one; give a list")
    kept = tuple(dict.fromkeys(texts))
    if wrong := [text for text in kept if not isinstance(text, str)]:
        raise ParameterError(f"{name}: {wrong[0]!r} is not text; give a list of str")
    if not kept:
        raise ParameterError(f"{name}: the list is empty, so no text would be allowed; give at least one")
    return kept
