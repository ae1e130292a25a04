"""A constraint at work in one run: the states of its nodes, and their masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from treille.errors import NoTokenLeft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from treille.constraints.base import Constraint, Source
    from treille.tree import Node

_SHOWN = 120
"""Characters of a source in messages."""
_UNKNOWN = object()
"""No state yet; None is the state of a text that is not allowed."""


class Binding:
    """What may follow each node of a run. States live exactly as long as their nodes.

    Args:
        source: what the user wrote.
        constraint: compiled for the model's vocabulary.
        tip: the end of the prompt, where the constrained text begins.
    """

    def __init__(self, source: Source, constraint: Constraint[Any], tip: Node) -> None:
        self.source = source
        self.constraint = constraint
        self._tip = tip.length
        self._states: WeakKeyDictionary[Node, Any] = WeakKeyDictionary()
        self._refused: WeakKeyDictionary[Node, set[int]] = WeakKeyDictionary()
        self._dead: set[bytes] = set()  # texts, their essence, that nothing can follow
        self._near: WeakKeyDictionary[Node, bytes | None] = WeakKeyDictionary()
        self._states[tip] = constraint.start()

    @property
    def name(self) -> str:
        """The source, for messages."""
        written = repr(self.source)
        return written if len(written) <= _SHOWN else written[:_SHOWN] + "…"

    @property
    def unenforced(self) -> tuple[str, ...]:
        """What the source asks for and nothing enforces, because its user allowed that."""
        return self.constraint.unenforced

    def expected(self, node: Node) -> tuple[int, ...]:
        """The likely spelling of what must follow `node`."""
        state = self.state(node)
        return () if state is None else self.constraint.expected(state)

    def state(self, node: Node) -> Any | None:
        """The state after the text up to `node`, None where the constraint does not allow that text."""
        state = self._states.get(node, _UNKNOWN)
        if state is not _UNKNOWN:
            return state
        missing: list[Node] = []
        above: Node | None = node
        while above is not None and above not in self._states:
            missing.append(above)
            above = above.parent
        assert above is not None, "the node is not below the prompt"
        state = self._states[above]
        for below in reversed(missing):
            for token in below.tokens.tolist():
                state = None if state is None else self.constraint.advance(state, token)
            self._states[below] = state
        return state

    @property
    def loose(self) -> bool:
        """Whether masks allow so much that a text may come to a dead end, and tokens be taken back."""
        return self.constraint.loose

    def admits(self, node: Node, token: int) -> bool:
        """Whether this one token may follow `node`."""
        state = self.state(node)
        if state is None or token in self._refused.get(node, ()) or self._is_dead(node, state, token):
            return False
        return self.constraint.accepted(state, (token,)) == 1

    def refuse(self, node: Node, token: int) -> None:
        """Never allow `token` after `node` again, nor what comes to the same text: it led to a dead end."""
        self._refused.setdefault(node, set()).add(token)
        if self.loose and (state := self.state(node)) is not None:
            text = self.constraint.text(state) + self.constraint.vocabulary.decode([token])
            self._dead.add(self.constraint.essence(text))
            self._near.clear()

    def vague(self, node: Node) -> int:
        """How many of the most probable tokens that the mask of `node` allows must be checked by `admits`; 0: none."""
        state = self.state(node)
        return 0 if state is None else self.constraint.vague(state)

    def sure(self, node: Node) -> NDArray[np.bool_] | None:
        """Tokens, `[V]`, that need no check by `admits` where the mask allows them; None where that is not known."""
        state = self.state(node)
        return None if state is None or self._text_near(node, state) is not None else self.constraint.sure(state)

    def _is_dead(self, node: Node, state: Any, token: int) -> bool:
        """Whether `token` comes to a text that nothing can follow."""
        text = self._text_near(node, state)
        piece = b"" if text is None else self.constraint.vocabulary.decode([token])
        return bool(piece) and self.constraint.essence((text or b"") + piece) in self._dead

    def _text_near(self, node: Node, state: Any) -> bytes | None:
        """The text up to `node`, if one that nothing can follow may begin with it."""
        if not self._dead:
            return None
        if node not in self._near:
            text = self.constraint.text(state)
            stem = self.constraint.essence(text).rstrip()
            self._near[node] = text if any(dead.startswith(stem) for dead in self._dead) else None
        return self._near[node]

    def allows(self, node: Node) -> bool:
        """Whether the text up to `node` can be continued or ended."""
        return self.state(node) is not None

    def masks(self, nodes: Sequence[Node], out: NDArray[np.int32]) -> None:
        """Which tokens may follow each node, int32 `[n, ceil(V / 32)]`; none where its text is not allowed."""
        states = [self.state(node) for node in nodes]
        known = [row for row, state in enumerate(states) if state is not None]
        if len(known) == len(states):
            self.constraint.masks(states, out)
        else:
            out[:] = 0
            words = np.empty((len(known), out.shape[1]), np.int32)
            self.constraint.masks([states[row] for row in known], words)
            out[known] = words
        if self._refused:
            for row, node in enumerate(nodes):
                if node in self._refused:
                    out[row] &= ~self.constraint.vocabulary.mask_of(self._refused[node])

    def forced(self, node: Node) -> tuple[int, ...]:
        """The tokens that must follow `node`."""
        state = self.state(node)
        return () if state is None else self.constraint.forced(state)

    def over(self, node: Node) -> bool:
        """Whether the text up to `node` is complete and nothing but its end can follow."""
        state = self.state(node)
        if state is None or not self.constraint.is_final(state):
            return False
        words = np.zeros((1, self.constraint.vocabulary.words), np.int32)
        self.constraint.masks([state], words)
        more = words[0] & ~self.constraint.vocabulary.eos_mask
        if not self.loose or not more.any():
            return not more.any()
        tokens = map(int, self.constraint.vocabulary.tokens_of(more))
        return not any(self.constraint.accepted(state, (token,)) for token in tokens)

    def dead_end(self, node: Node) -> NoTokenLeft:
        """The error of a node after which no token is allowed; says where."""
        text = bytes(b"".join(self.constraint.vocabulary.tokens[t] for t in node.path[self._tip :].tolist()))
        shown = text.decode("utf-8", "replace")
        state = self.state(node)
        reason = "" if state is None else self.constraint.refusal(state)
        because = f" ({reason})" if reason else ""
        return NoTokenLeft(
            f"constraint {self.name}: no token may follow {shown[-60:]!r}{because}; loosen the constraint, or remove "
            "what takes its tokens away (bad_words_ids, logit_bias of -inf …)"
        )
