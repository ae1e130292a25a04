"""Where n-grams stood in a text: a hash index that grows with the text and can be cut back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Iterable, Sequence

    from numpy.typing import NDArray


class NgramIndex:
    """Ends of every n-gram of a text, in order; a lookup costs the same at every length.

    Args:
        sizes: the n, in the order in which `continuation` tries them.
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        self._sizes = tuple(sizes)
        self._ends: dict[int, dict[Hashable, list[int]]] = {n: {} for n in self._sizes}
        self._tokens: list[int] = []

    def extend(self, text: NDArray[Any], start: int) -> None:
        """Index the n-grams that end in `text[start:]`."""
        assert start == len(self._tokens), "the text was cut back without truncate"
        self._tokens.extend(text[start:].tolist())
        for n in self._sizes:
            ends = self._ends[n]
            for end in range(max(start + 1, n), len(self._tokens) + 1):
                ends.setdefault(self.key(end - n, end), []).append(end)

    def truncate(self, length: int) -> None:
        """Forget the n-grams that end beyond `length`."""
        for n in self._sizes:
            ends = self._ends[n]
            for end in range(len(self._tokens), max(length, n - 1), -1):
                key = self.key(end - n, end)
                ends[key].pop()
                if not ends[key]:
                    del ends[key]
        del self._tokens[length:]

    def key(self, start: int, stop: int) -> Hashable:
        """What the index knows an n-gram by: equal exactly for equal tokens."""
        return tuple(self._tokens[start:stop])

    def continuation(self, most: int, *, latest: bool) -> list[int]:
        """Up to `most` tokens that followed the text's last n-gram before, of the first size that is known.

        A copy that reaches the end of the text goes on with its own first tokens, as in LZ77: what stood there repeats
        itself.
        """
        length = len(self._tokens)
        for n in self._sizes:
            if n > length:
                continue
            ends = self._ends[n].get(self.key(length - n, length), ())
            if len(ends) > 1:  # the last one is the text's own end
                begin = ends[-2] if latest else ends[0]
                copied = self._tokens[begin : begin + most]
                while len(copied) < most:
                    copied += copied[: most - len(copied)]
                return copied
        return []


def up_to_end(tokens: Sequence[int], ends: Container[int]) -> Sequence[int]:
    """`tokens` up to the first one of `ends`, which is kept: nothing comes after it."""
    for at, token in enumerate(tokens):
        if token in ends:
            return tokens[: at + 1]
    return tokens
