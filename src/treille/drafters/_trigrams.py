"""Weights of tri-grams, linked into a graph of pairs that a search can walk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

NOWHERE = -1


class Trigrams:
    """For pairs of tokens, the tokens that follow, each with a weight.

    A pair (a, b) is a row; the successor c leads to the row of the pair (b, c). Rows are kept in arrays, so that a
    search can walk them without a look-up by token.

    Args:
        most: successors of a pair that are kept; a new one takes the place of the lightest.
        cap: largest weight.
        pairs: pairs at the most; when they are used up, nothing new is learned.

    Attributes:
        tokens: int32 `[rows, most]`, the successors, in no order; `NOWHERE` where there is none.
        weights: float32 `[rows, most]`, 0 where there is none.
        links: int32 `[rows, most]`, the rows that they lead to.
    """

    def __init__(self, most: int = 12, cap: float = 3.0, pairs: int = 1_000_000) -> None:
        self.most = most
        self.cap = cap
        self.pairs = pairs
        self._rows: dict[tuple[int, int], int] = {}
        self.tokens, self.weights, self.links = self._blank(64)

    def _blank(self, rows: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
        shape = (rows, self.most)
        return np.full(shape, NOWHERE, np.int32), np.zeros(shape, np.float32), np.full(shape, NOWHERE, np.int32)

    def row(self, first: int, second: int) -> int:
        """The row of a pair, `NOWHERE` if it has none."""
        return self._rows.get((first, second), NOWHERE)

    def heaviest(self, row: int) -> int | None:
        """The successor of the largest weight, None if the row has none."""
        if row == NOWHERE or self.weights[row].max() == 0:
            return None
        return int(self.tokens[row, self.weights[row].argmax()])

    def weight(self, first: int, second: int, third: int) -> float:
        """The weight of a tri-gram, 0 if it is not known."""
        row = self.row(first, second)
        return 0.0 if row == NOWHERE else float(self.weights[row][self.tokens[row] == third].sum())

    def add(self, first: int, second: int, third: int, weight: float) -> None:
        """Add `weight` to a tri-gram's, up to the cap."""
        if len(self._rows) + 2 > self.pairs and not self.weight(first, second, third):
            return
        row = self._ensure(first, second)
        at = self._place(row, third)
        if self.tokens[row, at] != third:
            self.links[row, at] = self._ensure(second, third)  # may move the arrays
            self.tokens[row, at] = third
            self.weights[row, at] = 0
        self.weights[row, at] = min(self.cap, self.weights[row, at] + weight)

    def _place(self, row: int, token: int) -> int:
        """Where `token` stands in a row, or where it may: a free place or that of the lightest."""
        known = self.tokens[row] == token
        return int(known.argmax() if known.any() else self.weights[row].argmin())

    def _ensure(self, first: int, second: int) -> int:
        row = self._rows.setdefault((first, second), len(self._rows))
        if row == len(self.tokens):
            blank = self._blank(row)
            old = self.tokens, self.weights, self.links
            self.tokens, self.weights, self.links = (np.concatenate(pair) for pair in zip(old, blank, strict=True))
        return row

    @staticmethod
    def counted(texts: Iterable[NDArray[Any]], vocab_size: int, most: int, cap: float) -> Trigrams:
        """The tri-grams of a corpus, with their relative frequencies among those of a pair as weights.

        Of every pair the `most` heaviest successors are kept, and of the pairs the most frequent.

        Args:
            texts: token ids; one that is no smaller than `vocab_size` separates documents.
            vocab_size: number of token ids.
            most: as of the class.
            cap: as of the class.
        """
        codes, counts = _counts(texts, vocab_size)
        table = Trigrams(most, cap)
        pair, starts = np.unique(codes // vocab_size, return_index=True)
        totals = np.add.reduceat(counts, starts) if len(starts) else counts
        frequent = np.argsort(-totals, kind="stable")[: table.pairs // 2]
        ends = np.append(starts[1:], len(codes))
        for at in frequent.tolist():
            first, second = divmod(int(pair[at]), vocab_size)
            span = slice(starts[at], ends[at])
            for best in np.argsort(-counts[span], kind="stable")[:most].tolist():
                third = int(codes[span][best]) % vocab_size
                table.add(first, second, third, float(counts[span][best] / totals[at]))
        return table

    def copy(self) -> Trigrams:
        """A table of the same contents that learns by itself."""
        other = Trigrams(self.most, self.cap, self.pairs)
        other._rows = dict(self._rows)
        other.tokens, other.weights, other.links = self.tokens.copy(), self.weights.copy(), self.links.copy()
        return other

    def read(self, text: NDArray[Any], weight: float) -> None:
        """Add `weight` to every tri-gram of `text`."""
        tokens = text.tolist()
        for trigram in zip(tokens, tokens[1:], tokens[2:], strict=False):
            self.add(*trigram, weight)


def _counts(texts: Iterable[NDArray[Any]], vocab_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every tri-gram as one number, in order, and how often it occurs."""
    codes, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for text in texts:
        tokens = text.astype(np.int64)
        if len(tokens) < 3:
            continue
        trigrams = np.lib.stride_tricks.sliding_window_view(tokens, 3)
        a, b, c = trigrams[(trigrams < vocab_size).all(1)].T
        found, times = np.unique((a * vocab_size + b) * vocab_size + c, return_counts=True)
        codes, where = np.unique(np.concatenate((codes, found)), return_inverse=True)
        counts = np.bincount(where, np.concatenate((counts, times))).astype(np.int64)
    return codes, counts
