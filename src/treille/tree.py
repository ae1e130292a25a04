"""The token tree: nodes hold tokens, a node's path is the text from the root to it.

No tensors and no models here. Nodes point to their parents only, so a branch lives exactly as long as somebody can
still reach its tip; dropping the last reference frees its tokens and, through the handles in `Node.kv`, its rows in
every KV cache. Nothing in Treille frees a branch explicitly.

Tokens are kept in one growing buffer per line of descent: `child` on the newest node appends in place, `child` on an
older one (a fork) copies the buffer once. A path is therefore a view, whatever the length of the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class _Line:
    """A growing buffer of token ids shared by the nodes of one line of descent."""

    __slots__ = ("tokens", "used")

    def __init__(self, tokens: NDArray[np.int32], used: int) -> None:
        self.tokens = tokens
        self.used = used

    def append(self, tokens: Sequence[int], at: int) -> _Line:
        """The line that holds `tokens` from index `at` on: this one if nobody wrote there yet, else a copy."""
        line = self
        stop = at + len(tokens)
        if at != line.used:
            line = _Line(np.empty(max(64, 2 * stop), np.int32), at)
            line.tokens[:at] = self.tokens[:at]
        elif stop > len(line.tokens):
            grown = np.empty(2 * stop, np.int32)
            grown[:at] = line.tokens[:at]
            line.tokens = grown
        line.tokens[at:stop] = tokens
        line.used = stop
        return line


class Node:
    """One or more tokens under a parent; immutable, apart from the KV handles that a cache keeps in it.

    Attributes:
        parent: the node above, None for a root.
        length: number of tokens on the path, this node's included.
        kv: per model name, the handle that keeps this node's KV rows alive (owned by `treille.cache`).
    """

    __slots__ = ("__weakref__", "_line", "kv", "length", "parent")

    def __init__(self, parent: Node | None, line: _Line, length: int) -> None:
        self.parent = parent
        self._line = line
        self.length = length
        self.kv: dict[str, Any] = {}

    @staticmethod
    def root(tokens: Sequence[int]) -> Node:
        """A root that holds all of `tokens` (at least one): a prompt is one node."""
        if not len(tokens):
            msg = "a root needs at least one token"
            raise ValueError(msg)
        line = _Line(np.empty(max(64, 2 * len(tokens)), np.int32), 0).append(tokens, 0)
        return Node(None, line, len(tokens))

    def child(self, token: int) -> Node:
        """A new node under this one that holds `token`."""
        return Node(self, self._line.append((token,), self.length), self.length + 1)

    def extend(self, tokens: Sequence[int]) -> Node:
        """A new node under this one that holds all of `tokens` (at least one), e.g. forced or copied text."""
        if not len(tokens):
            msg = "a node needs at least one token"
            raise ValueError(msg)
        return Node(self, self._line.append(tokens, self.length), self.length + len(tokens))

    @property
    def start(self) -> int:
        """Position of this node's first token, 0-based."""
        return 0 if self.parent is None else self.parent.length

    @property
    def token(self) -> int:
        """The last token of this node; readouts describe the token after it."""
        return int(self._line.tokens[self.length - 1])

    @property
    def tokens(self) -> NDArray[np.int32]:
        """This node's own tokens, int32 `[length - start]`, a view."""
        return self._line.tokens[self.start : self.length]

    @property
    def path(self) -> NDArray[np.int32]:
        """All tokens from the root to this node, int32 `[length]`, a view: do not write to it."""
        return self._line.tokens[: self.length]

    def __repr__(self) -> str:
        tail = ", ".join(str(token) for token in self.path[-4:])
        return f"Node(length={self.length}, path=[{'… ' if self.length > 4 else ''}{tail}])"


def common_length(nodes: Sequence[Node], known: int = 0) -> int:
    """Number of leading tokens that all `nodes` share, given that the first `known` are shared."""
    shortest = min(node.length for node in nodes)
    first = nodes[0].path[known:shortest]
    for node in nodes[1:]:
        different = np.flatnonzero(first != node.path[known : known + len(first)])
        if different.size:
            first = first[: different[0]]
    return known + len(first)
