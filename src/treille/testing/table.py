"""Language models that are tables of rational numbers, so that every law about decoding can be checked exactly."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from treille.errors import ParameterError

Law: TypeAlias = tuple[Fraction, ...]
"""Probabilities of all tokens, by token id."""
Tokens: TypeAlias = tuple[int, ...]
Conditionals: TypeAlias = Mapping[Tokens, Sequence[Fraction]] | Callable[[Tokens], Sequence[Fraction]]


class TableModel:
    """A language model given by its conditionals, exact and without tensors.

    Args:
        vocabulary_size: V; token ids are 0 … V - 1.
        conditionals: next-token probabilities by the full path, prompt included: a mapping from tuples of token ids,
            or a function of such a tuple. `markov`, `random` and `hashed` build common ones.
    """

    def __init__(self, vocabulary_size: int, conditionals: Conditionals) -> None:
        self.vocabulary_size = vocabulary_size
        self._conditionals = conditionals
        self._known: dict[Tokens, Law] = {}

    @classmethod
    def markov(
        cls, rows: Sequence[Sequence[Fraction | str | int]] | Mapping[Tokens, Sequence[Fraction | str | int]]
    ) -> TableModel:
        """A model whose law depends on the last tokens only: `rows[t]` for the last token, or keys of equal length.

        Probabilities may be strings (`"1/3"`, `"0.3"`), which `Fraction` reads exactly.
        """
        by_key = rows if isinstance(rows, Mapping) else {(token,): row for token, row in enumerate(rows)}
        laws = {key: tuple(Fraction(p) for p in row) for key, row in by_key.items()}
        order = len(next(iter(laws)))
        return cls(len(next(iter(laws.values()))), lambda path: laws[path[-order:]])

    @classmethod
    def random(cls, vocabulary_size: int, seed: int, *, largest: int = 20) -> TableModel:
        """A model with a law of its own after every path: whole weights in 1 … `largest`, normalised."""

        def conditional(path: Tokens) -> Law:
            return _normalised([1 + _hash(seed, path, token) % largest for token in range(vocabulary_size)])

        return cls(vocabulary_size, conditional)

    @classmethod
    def hashed(cls, vocabulary_size: int, seed: int) -> TableModel:
        """A model whose logits are a hash of the path in [-2, 2], rounded to rational probabilities.

        With a vocabulary of 4 of which one ends the text, and at most 4 new tokens, there are 121 texts.
        """

        def conditional(path: Tokens) -> Law:
            logits = [_hash(seed, path, token) / 2**64 * 4 - 2 for token in range(vocabulary_size)]
            return _normalised([round(1000 * math.exp(logit)) for logit in logits])

        return cls(vocabulary_size, conditional)

    def law(self, path: Sequence[int]) -> Law:
        """Probabilities of the tokens after `path`.

        Raises:
            ParameterError: the table has no row for `path`, or a row that is no distribution.
        """
        key = tuple(int(token) for token in path)
        if key not in self._known:
            self._known[key] = self._checked(key)
        return self._known[key]

    def _checked(self, key: Tokens) -> Law:
        try:
            row = self._conditionals(key) if callable(self._conditionals) else self._conditionals[key]
        except LookupError:
            raise ParameterError(f"the table has no conditional for the path {key}; add one") from None
        law = tuple(Fraction(p) for p in row)
        if len(law) != self.vocabulary_size or min(law) < 0 or sum(law) != 1:
            raise ParameterError(
                f"the conditional for the path {key} is no distribution of {self.vocabulary_size}: {row}"
            )
        return law

    def probability(self, tokens: Sequence[int], prompt: Sequence[int]) -> Fraction:
        """Probability that the model continues `prompt` with `tokens`."""
        path = [*prompt, *tokens]
        return math.prod((self.law(path[:at])[path[at]] for at in range(len(prompt), len(path))), start=Fraction(1))

    def texts(
        self, *, prompt: Sequence[int], max_new_tokens: int, eos_token_ids: frozenset[int]
    ) -> dict[Tokens, Fraction]:
        """Every complete text of positive probability, with its probability under plain sampling."""
        finished: dict[Tokens, Fraction] = {}
        open_texts: dict[Tokens, Fraction] = {(): Fraction(1)}
        for length in range(1, max_new_tokens + 1):
            grown: dict[Tokens, Fraction] = {}
            for (text, mass), token in itertools.product(open_texts.items(), range(self.vocabulary_size)):
                p = mass * self.law([*prompt, *text])[token]
                ends = token in eos_token_ids or length == max_new_tokens
                if p:
                    (finished if ends else grown)[*text, token] = p
            open_texts = grown
        return finished


@dataclass(frozen=True, slots=True)
class Letters:
    """A codec for tables: token 0 is `a`, token 1 is `b`, and so on; `special` tokens have no text."""

    special: frozenset[int] = frozenset()

    def decode(self, ids: Sequence[int]) -> str:
        """One letter per token."""
        return "".join(chr(ord("a") + token) for token in ids if token not in self.special)


def _hash(seed: int, path: Tokens, token: int) -> int:
    """64 bits that depend on all three, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr((seed, path, token)).encode(), digest_size=8).digest(), "little")


def _normalised(weights: Sequence[int]) -> Law:
    total = sum(weights)
    return tuple(Fraction(weight, total) for weight in weights)
