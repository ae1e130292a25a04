"""Speculation: one accepted step of a text, drafted by a drafter and verified by the target.

This is what `advance` does when the run has a drafter, so every strategy that generates spans of text is drafted for.
"""

from __future__ import annotations

import math
import time
import weakref
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from treille.draft_tree import DraftTree
from treille.drafters.base import Budget, Lookup, Observation
from treille.errors import InternalError, NoTokenLeft
from treille.requests import Choice, Forward, Probabilities
from treille.sampling.verify import Walk, match, reject

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from treille.drafters.base import Drafter
    from treille.drafters.governor import Governor
    from treille.hooks import Constrained
    from treille.requests import Request
    from treille.strategy import Hypothesis, Run
    from treille.tree import Node

FORCED = 64
"""Forced tokens of one step at the most."""

BACKTRACKS = 256
"""Tokens that a run takes back at the most, all branches together."""

NO_TOKEN = -1
"""The pick of a node at which no token is allowed: no draft matches it."""

Verification: TypeAlias = Literal["match", "rejection"]


class Speculation:
    """A drafter at work on one text of a run.

    Args:
        drafter: proposes.
        rows: nodes drafted in one step at the most: the scratch memory of a step (SpecMemo's bound).
        verification: `match` (rules V1, V2, V6: the plain text, token for token) or `rejection` (V3 to V5: the plain
            law, more of a drawn draft accepted); greedy decoding always matches.
        governor: decides how much of that is worth its cost; None: all of it.
    """

    def __init__(
        self,
        drafter: Drafter,
        *,
        rows: int = 64,
        verification: Verification = "match",
        governor: Governor | None = None,
    ) -> None:
        self.drafter = drafter
        self.rows = rows
        self.verification = verification
        self.governor = governor
        self._budgets = None if governor is None else governor.open(repr((drafter.info.name, drafter.arguments)))
        self._text: Any = None  # the path that the drafter knows
        self._last: weakref.ref[Node] | None = None
        self._trail: list[Hypothesis] = []  # under a loose constraint: what the text was, token by token

    def branch(self) -> Speculation:
        """The same for a branch of the run."""
        return Speculation(
            self.drafter.branch(), rows=self.rows, verification=self.verification, governor=self.governor
        )

    def advance(self, run: Run, hypothesis: Hypothesis) -> Generator[Request, Any, Hypothesis]:
        """The hypothesis longer by what was accepted of a draft, and by the target's own token after it."""
        node = hypothesis.node
        room = run.limits.max_new_tokens - run.generated(node) - 1  # the bonus token needs room too
        tree = None if run.constraint is None else _given(run.constraint, node, min(room, FORCED))
        forced = tree is not None
        rows = 0 if forced else self._rows(run, node, room)
        if not forced and not rows:
            return (yield from self._plain(run, hypothesis))
        began, drafting = time.perf_counter(), run.drafts.seconds
        self._catch_up(node)
        spent = time.perf_counter() - began
        if tree is None:
            tree = yield from self._draft(run, node, Budget(rows, room))
        if self.governor is not None:
            self.governor.proposed(tree.size)
        for watcher in run.watchers:
            watcher.drafted(tree)
        rejecting = run.rejecting
        own = (Probabilities(), Probabilities(raw=True)) if rejecting else (run.choose,)
        # A node nobody reaches may have no token left: its failure counts only if the walk comes there.
        results = yield from self.drafter.verify(run, tree, (*own, *self.drafter.wants))
        began = time.perf_counter()
        if isinstance(results[0], NoTokenLeft):
            return self._back(run, hypothesis, results[0])
        walk, choices = _rejected(tree, results, run) if rejecting else _matched(tree, results)
        longer = self._follow(run, hypothesis, tree, walk, choices)
        run.drafts.count(tree, walk.accepted, longer.length - node.length, forced=forced)
        self._learn(run, tree, walk, longer, [None if isinstance(r, Exception) else r[len(own) :] for r in results])
        if self._budgets is not None and not forced:
            spent += run.drafts.seconds - drafting + time.perf_counter() - began
            self._budgets.verified(tree.size, tree.depth, longer.length - node.length, spent)
        return longer

    def _plain(self, run: Run, hypothesis: Hypothesis) -> Generator[Request, Any, Hypothesis]:
        """One token, with nothing beside it: what a step costs without a draft is what plain decoding costs."""
        if self.governor is not None:
            self.governor.proposed(0)
        try:
            (choice,) = yield Forward((hypothesis.node,), run.choose)
        except NoTokenLeft as dead_end:
            return self._back(run, hypothesis, dead_end)
        if run.constraint is not None and run.constraint.loose:
            self._trail.append(hypothesis)
        longer = run.extend(hypothesis, choice)
        run.drafts.plain()
        if longer.finish_reason is not None and not (self._budgets is not None and self._budgets.resting):
            self._catch_up(longer.node)  # until then the drafter learns when it is asked again
        return longer

    def _draft(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """The drafter's tree, without what the target cannot accept, and with what must follow its first path."""
        try:
            tree = yield from _timed(self.drafter.propose(run, node, budget), run)
        except NoTokenLeft:  # a draft model came to a dead end of the constraint: not the target's concern
            return DraftTree(node)
        if tree.size > budget.rows or tree.depth > budget.depth:
            raise InternalError(f"drafter {self.drafter.info.name} proposed {tree} with {budget}")
        ends, constraint = run.limits.eos_token_ids, run.constraint
        if constraint is None and not any(drafted.token in ends for drafted in tree.nodes[1:]):
            return tree

        def computed(drafted: Node) -> bool:
            # Nothing follows an end token, so its row would say nothing: it is emitted without one.
            return drafted.token not in ends and (constraint is None or constraint.allows(drafted))

        tree = tree.cut(computed)
        last = tree.first_leaf
        if constraint is not None and last and not tree.trials[last]:
            _give(constraint, tree, last, min(budget.depth - tree.depths[last], self.rows - tree.size, FORCED))
        return tree

    def _rows(self, run: Run, node: Node, room: int) -> int:
        """How many nodes may be drafted where `room` positions are left; beyond the context none can be computed."""
        if room <= 0:
            return 0
        if self._budgets is None:
            return self.rows
        # Beside a prompt nothing is known yet of what a draft would cost and bring: others may come with theirs.
        return 0 if node is run.tip else self._budgets.rows(self.rows)

    def _follow(
        self, run: Run, hypothesis: Hypothesis, tree: DraftTree, walk: Walk, choices: Sequence[Choice]
    ) -> Hypothesis:
        """The hypothesis along the accepted nodes, up to the first end of the text."""
        for index, choice in zip((*walk.accepted, None), choices, strict=True):
            if run.constraint is not None and run.constraint.loose:
                self._trail.append(hypothesis)
            hypothesis = run.extend(hypothesis, choice, None if index is None else tree.nodes[index])
            if hypothesis.finish_reason is not None:
                break
        return hypothesis

    def _back(self, run: Run, hypothesis: Hypothesis, dead_end: NoTokenLeft) -> Hypothesis:
        """The hypothesis without its last token, which is refused from now on, because nothing can follow it.

        Raises:
            NoTokenLeft: there is no way back, or too many were taken.
        """
        while self._trail and self._trail[-1].length >= hypothesis.length:
            self._trail.pop()  # of another branch of the text
        node, parent = hypothesis.node, hypothesis.node.parent
        if run.constraint is None or not self._trail or self._trail[-1].node is not parent:
            raise dead_end
        if run.drafts.backtracked >= BACKTRACKS:
            raise NoTokenLeft(f"{dead_end} (after {BACKTRACKS} tokens taken back)")
        run.drafts.backtracked += 1
        run.constraint.refuse(parent, node.token)
        return self._trail.pop()

    def _catch_up(self, node: Node) -> None:
        """Tell the drafter about tokens that it did not draft: the prompt, or another branch of the text."""
        if self._last is not None and self._last() is node:
            return
        start = 0
        if self._text is not None:
            start = _common(self._text, node.path)
            if start < len(self._text):
                self.drafter.truncate(start)
        self._text, self._last = node.path, weakref.ref(node)
        if start < node.length:
            self.drafter.observe(Observation(node.path, start))

    def _learn(self, run: Run, tree: DraftTree, walk: Walk, longer: Hypothesis, readings: Sequence[Any]) -> None:
        before = tree.nodes[0].length
        for watcher in run.watchers:
            watcher.verified(tree, walk.accepted)
        self._known(longer.node, Observation(longer.node.path, before, tree, walk.accepted, readings))

    def _known(self, node: Node, seen: Observation) -> None:
        self._text, self._last = node.path, weakref.ref(node)
        self.drafter.observe(seen)


def _given(constraint: Constrained, node: Node, room: int) -> DraftTree | None:
    """A draft of what must follow `node`; None where that is not known."""
    tree = DraftTree(node)
    _give(constraint, tree, 0, room)
    return tree if tree.size else None


def _give(constraint: Constrained, tree: DraftTree, at: int, room: int) -> None:
    """Hang a chain of what must follow node `at` below it: its tokens, or else the likely spelling of bytes that must.

    Chosen, like any draft of a lookup: where there is no alternative always accepted, under every law.
    """
    if room <= 0:
        return
    forced = constraint.forced(tree.nodes[at])
    if forced:
        tree.add_chain(forced[:room], at)
        return
    for token in constraint.expected(tree.nodes[at])[:room]:
        below = tree.nodes[at].child(token)
        if not constraint.allows(below):
            return
        at = tree.add(at, token, node=below)


class Nothing(Lookup):
    """No draft at all: what a run with a constraint alone speculates with."""

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:  # noqa: ARG002 - the protocol's signature
        """An empty tree."""
        return DraftTree(node)


def _common(known: NDArray[Any], path: NDArray[Any]) -> int:
    """Number of leading tokens that both have."""
    shorter = min(len(known), len(path))
    different = np.flatnonzero(known[:shorter] != path[:shorter])
    return int(different[0]) if different.size else shorter


def _matched(tree: DraftTree, results: Sequence[Any]) -> tuple[Walk, list[Choice]]:
    """Rules V1, V2, V6; the choices at the nodes of the walk, root first."""
    walk = match(tree, [NO_TOKEN if isinstance(r, Exception) else r[0].token for r in results])
    nodes = [0, *walk.accepted]
    if isinstance(results[nodes[-1]], NoTokenLeft) and len(nodes) > 1:
        # Nothing can follow the last accepted node: it is the next step's concern.
        walk = Walk(walk.accepted[:-1], tree.nodes[nodes.pop()].token)
    for index in nodes:
        if isinstance(results[index], Exception):
            raise results[index]
    return walk, [results[index][0] for index in nodes]


def _rejected(tree: DraftTree, results: Sequence[Any], run: Run) -> tuple[Walk, list[Choice]]:
    """Rules V3, V4, V5; the choices at the nodes of the walk, root first."""
    walk = reject(tree, _Laws(results), run.random)
    tokens = [*(tree.nodes[index].token for index in walk.accepted), walk.token]
    rows = [results[index] for index in (0, *walk.accepted)]
    # float(…) of an exact fraction, too; the token was drawn, so neither probability is zero.
    pairs = zip(tokens, rows, strict=True)
    return walk, [Choice(t, math.log(row[0][t]), math.log(row[1][t])) for t, row in pairs]


class _Laws:
    """p at every node; the failure of a node without any is raised when the walk comes there."""

    def __init__(self, results: Sequence[Any]) -> None:
        self._results = results

    def __getitem__(self, index: int) -> Any:
        result = self._results[index]
        if isinstance(result, Exception):
            raise result
        return result[0]


def _timed(generator: Generator[Request, Any, DraftTree], run: Run) -> Generator[Request, Any, DraftTree]:
    """The generator's result; its own time, without that of its requests, is added to `run.drafts`."""
    answer: Any = None
    error: Exception | None = None
    while True:
        began = time.perf_counter()
        try:
            request = generator.send(answer) if error is None else generator.throw(error)
        except StopIteration as stop:
            tree: DraftTree = stop.value
            return tree
        finally:
            run.drafts.seconds += time.perf_counter() - began
        answer, error = None, None
        try:
            answer = yield request
        except Exception as failure:  # noqa: BLE001 - the drafter's to handle, else the strategy's
            error = failure
