"""What may be hung onto a run, as protocols: a constraint, a drafter, watchers of drafts; and the counts of drafting.

A run knows these by what they can do only; they live in `treille.constraints`, `treille.drafters` and `treille.trace`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from treille.draft_tree import DraftTree
    from treille.requests import Request
    from treille.strategy import Hypothesis, Run
    from treille.tree import Node


@dataclass(slots=True)
class DraftCounts:
    """What drafting did in a run, all branches together.

    Attributes:
        steps: verifications, i.e. target forwards of a text.
        drafted: nodes proposed.
        accepted: of these, nodes kept.
        emitted: tokens of the steps, corrections and bonus tokens included; tau is `emitted / steps`.
        tried: per depth, from 1 on, steps whose accepted path came to a node at depth - 1 with drafts under it.
        kept: per depth, steps in which one of these was accepted.
        depths: steps by the depth of their draft, from 0 on.
        forced: tokens that a constraint left no choice about, or only their spelling; not counted as drafted.
        backtracked: tokens taken back, because a constraint found that nothing can follow them.
        seconds: time of the drafters themselves, without forwards of draft models.
    """

    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    emitted: int = 0
    tried: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    forced: int = 0
    backtracked: int = 0
    seconds: float = 0.0

    def plain(self) -> None:
        """Add one step without a draft."""
        self.steps += 1
        self.emitted += 1
        if not self.depths:
            self.depths.append(0)
        self.depths[0] += 1

    def count(self, tree: DraftTree, accepted: Sequence[int], emitted: int, *, forced: bool = False) -> None:
        """Add one verified step; `forced`: its tree is what a constraint asked for."""
        self.steps += 1
        self.emitted += emitted
        if forced:
            self.forced += len(accepted)
            return
        self.drafted += tree.size
        self.accepted += len(accepted)
        self.depths.extend([0] * (tree.depth + 1 - len(self.depths)))
        self.depths[tree.depth] += 1
        for depth, node in enumerate((0, *accepted)):
            if not tree.trials[node]:
                break
            if depth == len(self.tried):
                self.tried.append(0)
                self.kept.append(0)
            self.tried[depth] += 1
            self.kept[depth] += depth < len(accepted)


class Constrained(Protocol):
    """What a run asks of its constraint (`treille.constraints`)."""

    @property
    def source(self) -> Any:
        """What the user wrote (`treille.constraints.base.Source`); None where there is no such thing."""
        ...

    @property
    def unenforced(self) -> tuple[str, ...]:
        """What was asked for and nothing enforces, because the user allowed that."""
        ...

    @property
    def loose(self) -> bool:
        """Whether masks allow so much that a text may come to a dead end, and its tokens be taken back."""
        ...

    def admits(self, node: Node, token: int) -> bool:
        """Whether this one token may follow `node`."""
        ...

    def vague(self, node: Node) -> int:
        """0 where the mask of `node` is exact; else tokens must be checked by `admits`, so many for their mass."""
        ...

    def sure(self, node: Node) -> NDArray[np.bool_] | None:
        """Tokens, `[V]`, that need no check by `admits` where the mask allows them; None where that is not known."""
        ...

    def refuse(self, node: Node, token: int) -> None:
        """Never allow `token` after `node` again: it led to a dead end."""
        ...

    def allows(self, node: Node) -> bool:
        """Whether the text up to `node` can be continued or ended."""
        ...

    def masks(self, nodes: Sequence[Node], out: NDArray[np.int32]) -> None:
        """Which tokens may follow each node: int32 `[n, ceil(V / 32)]`, bit ``t & 31`` of word ``t >> 5``."""
        ...

    def forced(self, node: Node) -> tuple[int, ...]:
        """The tokens that must follow `node`."""
        ...

    def expected(self, node: Node) -> tuple[int, ...]:
        """The likely spelling of what must follow `node`: a draft, and no promise."""
        ...

    def over(self, node: Node) -> bool:
        """Whether the text is complete and nothing but its end can follow."""
        ...

    def dead_end(self, node: Node) -> Exception:
        """The error of a node after which no token is allowed."""
        ...


class Watcher(Protocol):
    """Is told of every draft tree, e.g. to record it."""

    def drafted(self, tree: DraftTree) -> None:
        """A tree goes to the target."""
        ...

    def verified(self, tree: DraftTree, accepted: Sequence[int]) -> None:
        """These nodes of it were kept."""
        ...


class Drafting(Protocol):
    """What moves a text forward in the place of a plain forward (`treille.drafters`)."""

    @property
    def rows(self) -> int:
        """Nodes drafted in one step at the most."""
        ...

    @property
    def verification(self) -> str:
        """`match` or `rejection`."""
        ...

    def advance(self, run: Run, hypothesis: Hypothesis) -> Generator[Request, Any, Hypothesis]:
        """The hypothesis longer by one accepted step."""
        ...

    def branch(self) -> Drafting:
        """The same for a branch of the run."""
        ...
