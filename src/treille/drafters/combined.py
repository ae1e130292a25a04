"""Several drafters at once: their trees merged into one, the nodes that most probably pay first."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from treille.draft_tree import DraftTree
from treille.drafters.base import ConfiguredDrafter, Drafter, Observation, drafter, parse
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from treille.drafters.base import Budget, Host
    from treille.requests import Readout, Request
    from treille.strategy import Run
    from treille.tree import Node

DEEPEST = 8
"""Depth from which on acceptance is counted together."""


class Source:
    """One of the drafters, and how often its proposals were right.

    Attributes:
        drafter: proposes.
        wants: where its readouts stand among those of all.
        tree: what it proposed last.
    """

    def __init__(self, drafter: Drafter, wants: tuple[int, ...]) -> None:
        self.drafter = drafter
        self.wants = wants
        self.tree: DraftTree | None = None
        self._counts: dict[tuple[int, int], list[int]] = {}  # by depth and rank among siblings: right, tried

    def acceptance(self, depth: int, rank: int) -> float:
        """Estimated probability that its proposal is right where its parent was; one half before anything is known."""
        right, tried = self._counts.get((min(depth, DEEPEST), rank), (0, 0))
        return (right + 1) / (tried + 2)

    def count(self, tokens: Sequence[int]) -> None:
        """Compare the last proposal with the tokens that came."""
        if self.tree is None:
            return
        at = 0
        for depth, token in enumerate(tokens):
            for rank, child in enumerate(self.tree.children(at)):
                counts = self._counts.setdefault((min(depth, DEEPEST), rank), [0, 0])
                counts[0] += self.tree.nodes[child].token == token
                counts[1] += 1
            below = self.tree.child(at, token)
            if below is None:
                break
            at = below
        self.tree = None

    def learn(self, origin: Source) -> None:
        """Start from what another one has counted, and share what its drafter shares."""
        self._counts = {key: list(counts) for key, counts in origin._counts.items()}
        self.drafter.share(origin.drafter)


@drafter(
    paper="rule 1 of verification: any union of drafts is exact; cf. Hu et al. 2024, SAM Decoding, arXiv:2411.10666",
    cost="what its drafters cost; as many rows as the budget has, shared by measured acceptance",
)
class combined(Drafter):  # noqa: N801 - one name in five places
    """Several drafters, merged into one tree: nodes in the order of their estimated probability to be accepted.

    A drawn token whose place in the tree is decided after the draw may not be verified by the law it was drawn from, so
    the merged tree counts as chosen, whatever the verification.

    Args:
        drafters: `name` or `name(key=value,…)`, at least two; or drafters made by `treille.drafters.configured`.
    """

    def __init__(
        self, host: Host, drafters: Sequence[str | ConfiguredDrafter] = ("prompt_lookup", "token_recycling")
    ) -> None:
        super().__init__(host)
        if isinstance(drafters, str) or len(drafters) < 2:
            raise ParameterError(
                f"draft: drafters={drafters!r}: give two or more, as in drafters=[prompt_lookup,suffix]"
            )
        wants: list[Readout] = []
        self.sources: list[Source] = []
        for given in drafters:
            opened = _read(given).open(host)
            if type(opened).verify is not Drafter.verify:
                raise ParameterError(f"draft: drafters: {given!r} drafts while the target verifies; use it by itself")
            wants += [want for want in opened.wants if want not in wants]
            self.sources.append(Source(opened, tuple(wants.index(want) for want in opened.wants)))
        self.wants = tuple(wants)

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """The best nodes of all proposals."""
        for source in self.sources:
            source.tree = yield from source.drafter.propose(run, node, budget)
        return _merged(node, self.sources, budget.rows)

    def observe(self, seen: Observation) -> None:
        """Count whose proposals were right, and tell every drafter what it asked for."""
        for source in self.sources:
            if seen.tree is not None:
                source.count(seen.text[seen.start :].tolist())
            source.tree = None
            readings = [None if found is None else tuple(found[i] for i in source.wants) for found in seen.readings]
            source.drafter.observe(Observation(seen.text, seen.start, seen.tree, seen.accepted, readings))

    def truncate(self, length: int) -> None:
        """Cut the text back for every drafter."""
        for source in self.sources:
            source.drafter.truncate(length)

    def share(self, origin: Drafter) -> None:
        """Start from the acceptance counted so far, and let the drafters share what they share."""
        assert isinstance(origin, combined)
        for source, other in zip(self.sources, origin.sources, strict=True):
            source.learn(other)


def _read(given: str | ConfiguredDrafter) -> ConfiguredDrafter:
    """The drafter that `name` or `name(key=value,…)` stands for."""
    if isinstance(given, ConfiguredDrafter):
        return given
    if not isinstance(given, str):
        raise ParameterError(f"draft: drafters: {given!r} is no drafter; write name or name(key=value)")
    name, bracket, rest = given.strip().partition("(")
    if bracket and not rest.endswith(")"):
        raise ParameterError(f"draft: drafters: {given!r}: the bracket is not closed; write name(key=value)")
    return parse(f"{name}:{rest[:-1]}" if bracket else name)


def _merged(root: Node, sources: Sequence[Source], rows: int) -> DraftTree:
    """The `rows` nodes of the sources' trees that are most probably accepted; a node has its parent with it."""
    tree = DraftTree(root)
    heap: list[tuple[float, int, int, int, list[tuple[Source, int]]]] = []
    pushed = 0

    def push(parent: int, probability: float, places: Sequence[tuple[Source, int]]) -> None:
        """What the sources propose under a node, which has `places` in their trees."""
        nonlocal pushed
        wrong: dict[int, float] = {}  # by token: all who propose it are wrong
        where: dict[int, list[tuple[Source, int]]] = {}
        for source, at in places:
            assert source.tree is not None
            for rank, child in enumerate(source.tree.children(at)):
                token = source.tree.nodes[child].token
                wrong[token] = wrong.get(token, 1.0) * (1 - source.acceptance(tree.depths[parent], rank))
                where.setdefault(token, []).append((source, child))
        for token, all_wrong in wrong.items():
            heapq.heappush(heap, (-probability * (1 - all_wrong), pushed, parent, token, where[token]))
            pushed += 1

    push(0, 1.0, [(source, 0) for source in sources])
    while heap and tree.size < rows:
        negative, _, parent, token, places = heapq.heappop(heap)
        known = [source.tree.nodes[at] for source, at in places if source.tree is not None]
        # A node that hangs on the same nodes has what a draft model computed for it.
        same = next((node for node in known if node.parent is tree.nodes[parent]), None)
        push(tree.add(parent, token, node=same), -negative, places)
    return tree
