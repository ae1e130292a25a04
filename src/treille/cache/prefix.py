"""The prefix cache: finished prompts and answers keep their KV rows until the memory is needed.

It is one more holder of `Rows`: entries are keyed by blocks of tokens in a trie, so a lookup costs the length of the
prompt once, and evicting an entry is letting go of a handle. Entries are exact: whole blocks of tokens are compared,
not hashes of them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from treille.cache.segments import Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 16  # tokens per entry


class PrefixCache:
    """Longest computed prefix of a token sequence, in blocks; least recently used entries go first."""

    def __init__(self) -> None:
        # Key: (number of the entry above, this block's tokens). Order: least recently used first, and an entry always
        # before those above it, so that eviction never cuts a path in the middle.
        self._entries: OrderedDict[tuple[int, bytes], tuple[int, Rows]] = OrderedDict()
        self._numbers = 0
        self.hits = 0

    def __len__(self) -> int:
        return len(self._entries)

    def insert(self, tokens: NDArray[np.int32], rows: Rows) -> None:
        """Remember the rows of `tokens` (int32 `[n]`), which `rows` covers."""
        pieces = list(rows.segment.pieces(rows.stop))
        above, keys, index = 0, [], 0
        for stop in range(BLOCK, min(len(tokens), rows.length) + 1, BLOCK):
            key = (above, tokens[stop - BLOCK : stop].tobytes())
            entry = self._entries.get(key)
            if entry is None:
                while pieces[index][0].origin + pieces[index][1] < stop:
                    index += 1
                segment = pieces[index][0]
                self._numbers += 1
                entry = self._entries[key] = (self._numbers, Rows(segment, stop - segment.origin, "cache"))
            keys.append(key)
            above = entry[0]
        self._touch(keys)

    def match(self, tokens: NDArray[np.int32]) -> Rows | None:
        """A handle (held as by a node) on the longest known prefix of `tokens`, None if not even a block is known."""
        above, keys = 0, []
        found: Rows | None = None
        for stop in range(BLOCK, len(tokens) + 1, BLOCK):
            key = (above, tokens[stop - BLOCK : stop].tobytes())
            entry = self._entries.get(key)
            if entry is None:
                break
            keys.append(key)
            above, found = entry
        self._touch(keys)
        if found is None:
            return None
        self.hits += len(keys) * BLOCK
        return Rows(found.segment, found.stop, "node")

    def _touch(self, keys: list[tuple[int, bytes]]) -> None:
        for key in reversed(keys):
            self._entries.move_to_end(key)

    def evict(self) -> bool:
        """Let go of the least recently used entry; False if there is none."""
        if not self._entries:
            return False
        self._entries.popitem(last=False)
        return True

    def clear(self) -> None:
        """Let go of everything."""
        self._entries.clear()


class NaivePrefixCache:
    """The specification of `PrefixCache` without eviction: a list of known sequences, compared one by one."""

    def __init__(self) -> None:
        self.known: list[list[int]] = []

    def insert(self, tokens: list[int]) -> None:
        """Remember a sequence."""
        self.known.append(tokens)

    def match(self, tokens: list[int]) -> int:
        """Length of the longest known prefix of `tokens`, in whole blocks."""
        best = 0
        for known in self.known:
            same = 0
            while same < min(len(known), len(tokens)) and known[same] == tokens[same]:
                same += 1
            best = max(best, same // BLOCK * BLOCK)
        return best
