"""Where n-grams stood in a text: a hash index that grows with the text and can be cut back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


class NgramIndex:
    """Ends of every n-gram of a text, in order; a lookup costs the same at every length.

    Args:
        sizes: the n, in the order in which `continuation` tries them.
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        self._sizes = tuple(sizes)
        self._ends: dict[int, dict[tuple[int, ...], list[int]]] = {n: {} for n in self._sizes}
        self._tokens: list[int] = []

    def extend(self, text: NDArray[Any], start: int) -> None:
        """Index the n-grams that end in `text[start:]`."""
        assert start == len(self._tokens), "the text was cut back without truncate"
        self._tokens.extend(text[start:].tolist())
        for n in self._sizes:
            ends = self._ends[n]
            for end in range(max(start, n - 1) + 1, len(self._tokens) + 1):
                ends.setdefault(tuple(self._tokens[end - n : end]), []).append(end)

    def truncate(self, length: int) -> None:
        """Forget the n-grams that end beyond `length`."""
        for n in self._sizes:
            ends = self._ends[n]
            for end in range(len(self._tokens), max(length, n - 1), -1):
                key = tuple(self._tokens[end - n : end])
                ends[key].pop()
                if not ends[key]:
                    del ends[key]
        del self._tokens[length:]

    def continuation(self, most: int, *, latest: bool) -> Sequence[int]:
        """Up to `most` tokens that followed the text's last n-gram before, of the first size that is known."""
        length = len(self._tokens)
        for n in self._sizes:
            if n > length:
                continue
            ends = self._ends[n].get(tuple(self._tokens[length - n :]), ())
            if len(ends) > 1:  # the last one is the text's own end
                begin = ends[-2] if latest else ends[0]
                return self._tokens[begin : begin + most]
        return ()
