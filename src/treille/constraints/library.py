"""Compiled constraints of one language model, kept for the runs that share them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from treille.constraints.binding import Binding
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from treille.constraints.base import Constraint, Source, Tokenization
    from treille.constraints.vocabulary import TokenTable
    from treille.tree import Node

KEPT = 64
"""Constraints kept, the oldest are dropped first."""


class ConstraintLibrary:
    """Compiles each source once for each set of end tokens.

    Args:
        tokenizer: of the language model, None if it has none.
        width: of its logits.
    """

    def __init__(self, tokenizer: TokenTable | None, width: int) -> None:
        self._tokenizer = tokenizer
        self._width = width
        self._lock = threading.Lock()
        self._vocabularies: dict[frozenset[int], Vocabulary] = {}
        self._constraints: dict[Any, Constraint[Any]] = {}  # oldest first

    def binder(self, source: Source, tokenization: Tokenization, ends: frozenset[int]) -> Callable[[Node], Binding]:
        """What binds the constraint to a run, given the end of its prompt.

        Raises:
            ParameterError: the source cannot be compiled, or the checkpoint has no tokenizer.
        """
        constraint = self.compile(source, tokenization, ends)
        return lambda tip: Binding(source, constraint, tip)

    def compile(self, source: Source, tokenization: Tokenization, ends: frozenset[int]) -> Constraint[Any]:
        """The constraint of a source for texts that end with `ends`.

        Raises:
            ParameterError: see `binder`.
        """
        if self._tokenizer is None:
            raise ParameterError("constraint: the checkpoint has no tokenizer, so its tokens have no text to constrain")
        key = source, tokenization, ends
        with self._lock:
            if ends not in self._vocabularies:
                self._vocabularies[ends] = Vocabulary.of(self._tokenizer, ends, self._width)
            vocabulary, known = self._vocabularies[ends], self._constraints.get(key)
        if known is not None:
            return known
        compiled = source.compile(vocabulary, tokenization)  # may take seconds: other runs go on
        with self._lock:
            while len(self._constraints) >= KEPT:
                del self._constraints[next(iter(self._constraints))]
            return self._constraints.setdefault(key, compiled)
