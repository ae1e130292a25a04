"""Compiled constraints of one language model, kept for the runs that share them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from treille.constraints.binding import Binding
from treille.constraints.budget import BudgetConstraint
from treille.constraints.healing import Beginning, heal
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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

    def binder(
        self, source: Source, tokenization: Tokenization, ends: frozenset[int], limit: int | None = None
    ) -> Callable[[Node], Binding]:
        """What binds the constraint to a run, given the end of its prompt.

        Args:
            source: what the user wrote.
            tokenization: which spellings are allowed.
            ends: tokens that end a text.
            limit: tokens within which texts are to be complete; None: no matter.

        Raises:
            ParameterError: the source cannot be compiled, the limit is too small for any text, or the checkpoint has
                no tokenizer.
        """
        constraint = self.compile(source, tokenization, ends)
        if limit is not None and not isinstance(source, Beginning):  # what follows a beginning is free
            constraint = BudgetConstraint(constraint, limit)
        return lambda tip: Binding(source, constraint, tip)

    def healed(
        self, prompt: Sequence[int], source: Source | None, ends: frozenset[int]
    ) -> tuple[list[int], Source | None]:
        """The prompt without the tokens that a longer one could replace, and what the text must be instead.

        Raises:
            ParameterError: the checkpoint has no tokenizer.
        """
        kept, prefix = heal(prompt, self._vocabulary(ends))
        if not prefix:
            return list(kept), source
        return list(kept), Beginning(prefix) if source is None else source.prefixed(prefix)

    def _vocabulary(self, ends: frozenset[int]) -> Vocabulary:
        """The tokens as bytes, for texts with these ends."""
        if self._tokenizer is None:
            raise ParameterError("constraint: the checkpoint has no tokenizer, so its tokens have no text to constrain")
        with self._lock:
            if ends not in self._vocabularies:
                self._vocabularies[ends] = Vocabulary.of(self._tokenizer, ends, self._width)
            return self._vocabularies[ends]

    def compile(self, source: Source, tokenization: Tokenization, ends: frozenset[int]) -> Constraint[Any]:
        """The constraint of a source for texts that end with `ends`.

        Raises:
            ParameterError: see `binder`.
        """
        vocabulary = self._vocabulary(ends)
        key = source, tokenization, ends
        with self._lock:
            known = self._constraints.get(key)
        if known is not None:
            return known
        compiled = source.compile(vocabulary, tokenization)  # may take seconds: other runs go on
        with self._lock:
            while len(self._constraints) >= KEPT:
                del self._constraints[next(iter(self._constraints))]
            return self._constraints.setdefault(key, compiled)
