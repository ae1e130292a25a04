"""A constraint on tables: a finite set of token sequences, so that laws under a constraint can be enumerated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treille.errors import InternalError, NoTokenLeft

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from treille.tree import Node


class Words:
    """The texts that are one of `words`, each given by its tokens; where one ends, the end token may follow.

    Args:
        words: token sequences.
        vocabulary_size: V.
        eos: the token that ends a text.
    """

    def __init__(self, words: Iterable[Sequence[int]], vocabulary_size: int, eos: int) -> None:
        self.words = frozenset(tuple(word) for word in words)
        self.vocabulary_size = vocabulary_size
        self.eos = eos

    def bind(self, tip: Node) -> BoundWords:
        """The constraint for texts that begin after `tip`."""
        return BoundWords(self, tip.length)


class BoundWords:
    """`Words` for one run; see `treille.hooks.Constrained`."""

    def __init__(self, words: Words, start: int) -> None:
        self._words = words
        self._start = start

    @property
    def source(self) -> None:
        """There is no text to check."""

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Nothing is left out."""
        return ()

    @property
    def loose(self) -> bool:
        """Masks are exact."""
        return False

    def admits(self, node: Node, token: int) -> bool:
        """Whether this one token may follow."""
        return bool(self._allowed(node)[token])

    def vague(self, node: Node) -> int:  # noqa: ARG002 - the protocol's signature
        """Masks are exact."""
        return 0

    def sure(self, node: Node) -> None:
        """Nobody asks: masks are exact."""

    def refuse(self, node: Node, token: int) -> None:
        """Not needed: no text comes to a dead end."""
        raise InternalError(f"{token} after {self._text(node)} led to a dead end")

    def allows(self, node: Node) -> bool:
        """Whether the text can be continued or ended."""
        text = self._text(node)
        if text and text[-1] == self._words.eos:
            return text[:-1] in self._words.words
        return any(word[: len(text)] == text for word in self._words.words)

    def masks(self, nodes: Sequence[Node], out: NDArray[np.int32]) -> None:
        """Which tokens may follow each node, int32 `[n, ceil(V / 32)]`."""
        bits = np.zeros((len(nodes), 32 * out.shape[1]), np.bool_)
        for row, node in enumerate(nodes):
            bits[row, : self._words.vocabulary_size] = self._allowed(node)
        out[:] = np.packbits(bits, 1, bitorder="little").view(np.int32)

    def forced(self, node: Node) -> tuple[int, ...]:
        """The tokens that must follow."""
        found: list[int] = []
        at = node
        while (row := self._allowed(at)).sum() == 1 and not row[self._words.eos]:
            found.append(int(row.argmax()))
            at = at.child(found[-1])
        return tuple(found)

    def expected(self, node: Node) -> tuple[int, ...]:  # noqa: ARG002 - the protocol's signature
        """Tokens are all there is, and those that must follow are forced."""
        return ()

    def over(self, node: Node) -> bool:
        """Whether the text is complete and cannot go on."""
        row = self._allowed(node)
        return bool(row[self._words.eos]) and row.sum() == 1

    def dead_end(self, node: Node) -> Exception:
        """No word goes on like this."""
        return NoTokenLeft(f"no word goes on after {self._text(node)}")

    def _allowed(self, node: Node) -> NDArray[np.bool_]:
        """Which tokens may follow, `[V]`."""
        allowed = np.zeros(self._words.vocabulary_size, np.bool_)
        text = self._text(node)
        for word in self._words.words:
            if word[: len(text)] == text:
                allowed[word[len(text)] if len(word) > len(text) else self._words.eos] = True
        return allowed

    def _text(self, node: Node) -> tuple[int, ...]:
        return tuple(node.path[self._start :].tolist())
