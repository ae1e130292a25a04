"""Records the events of one run."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from treille.engine.instruments import Instrument
from treille.requests import Choice, LogProbs, Top
from treille.trace.events import Event, TracedNode
from treille.trace.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.draft_tree import DraftTree
    from treille.engine.instruments import ForwardReport
    from treille.engine.job import Job
    from treille.requests import Readout
    from treille.strategy import Codec, Run
    from treille.trace.events import Status
    from treille.tree import Node

TARGET = "target"
_CONTEXT = 8  # tokens before a node that can change how its own tokens read


class Recorder(Instrument):
    """Listens to an engine for one run; what it has seen is `trace`.

    It joins `instruments` by itself and leaves when the run ends. Nodes are watched, not held: tracing a run does not
    keep its branches alive, so a traced run needs no more KV memory than an untraced one.

    Args:
        run: the run to record.
        instruments: the engine's list of listeners.
    """

    def __init__(self, run: Run, instruments: list[Instrument]) -> None:
        self._run = run
        self._instruments = instruments
        self._step = 0
        self._busy = False  # whether the forward in progress computes or reads anything of this run
        self._strategy = ""
        self._status: Status = "running"
        self._events: list[Event] = []
        self._readings: list[Event] = []  # of the forward in progress; they follow its `computed` events
        self._nodes: list[TracedNode] = []
        self._alive: dict[int, tuple[int, weakref.ref[Node]]] = {}  # by id(node): its number
        self._offers: dict[int, dict[int, float]] = {}  # per node, offered tokens that are not children yet
        self._returned: tuple[int, ...] = ()
        self._token_texts: dict[int, str] = {}
        self._number(run.tip)
        run.watchers.append(self)
        instruments.append(self)

    def close(self) -> None:
        """Stop listening."""
        if self in self._instruments:
            self._instruments.remove(self)

    @property
    def trace(self) -> Trace:
        """What has happened so far."""
        codec = self._run.codec
        for event in self._events:
            for token in event.tokens if event.kind != "prompt" else ():
                if token not in self._token_texts:
                    self._token_texts[token] = "" if codec is None else codec.decode([token])
        return Trace(
            self._strategy, self._status, tuple(self._nodes), tuple(self._events), self._returned,
            dict(self._token_texts),
        )  # fmt: skip

    # --- hooks --------------------------------------------------------------------------------------------------------

    def job_started(self, job: Job) -> None:
        """The strategy's name is known."""
        if job.run is self._run:
            self._strategy = repr(job.configured)

    def computed(self, job: Job, nodes: Sequence[Node], model: str) -> None:
        """Nodes got the target's KV; what draft models compute is their own business."""
        if job.run is self._run and model == TARGET:
            self._busy = True
            self._event("computed", tuple([self._number(node) for node in nodes]))

    def read(self, job: Job, node: Node, want: Readout, result: object, model: str) -> None:
        """Tokens were offered under a node."""
        if job.run is not self._run or model != TARGET:
            return
        self._busy = True
        match result:
            case Choice():
                offered = {result.token: result.logprob}
            case Top():
                offered = dict(zip(result.tokens, result.logprobs, strict=True))
            case tuple() if isinstance(want, LogProbs) and not want.raw:
                offered = dict(zip(want.tokens, result, strict=True))
            case _:
                return
        number = self._number(node)
        self._offers.setdefault(number, {}).update(offered)
        self._readings.append(Event(self._step, "proposed", (number,), tuple(offered), tuple(offered.values())))

    def drafted(self, tree: DraftTree) -> None:
        """A draft tree goes to the target: its nodes are known before they are computed, and not accepted yet."""
        self._number(tree.nodes[0])
        for node in tree.nodes[1:]:
            self._add(node, "drafted")

    def verified(self, tree: DraftTree, accepted: Sequence[int]) -> None:
        """The walk is over: what was kept of the draft, and what was not, by the node above."""
        self._events += self._readings  # the walk follows what was read
        self._readings.clear()
        if accepted:
            self._events.append(Event(self._step, "accepted", tuple([self._number(tree.nodes[i]) for i in accepted])))
        for parent, trials in enumerate(tree.trials):
            lost = tuple([trial.token for trial in trials if trial.index not in accepted])
            if lost:
                self._events.append(Event(self._step, "rejected", (self._number(tree.nodes[parent]),), lost))

    def after_forward(self, report: ForwardReport) -> None:
        """A forward of the target ended: the next step begins."""
        if report.model != TARGET:
            return
        self._events += self._readings
        self._readings.clear()
        self._step += self._busy
        self._busy = False

    def scored(self, job: Job, nodes: Sequence[Node], values: Sequence[float]) -> None:
        """A scorer valued nodes."""
        if job.run is self._run:
            numbers = tuple([self._number(node) for node in nodes])
            self._events.append(Event(self._step, "scored", numbers, values=tuple(values)))

    def preempted(self, job: Job) -> None:
        """The run lost its KV."""
        if job.run is self._run:
            self._event("preempted")

    def job_finished(self, job: Job) -> None:
        """The run ended: what is not part of its output is dropped."""
        if job.run is not self._run:
            return
        output = job.output
        self._status = "finished" if output is not None else "failed" if job.error is not None else "cancelled"
        candidates = () if output is None else output.candidates
        self._returned = tuple([self._number(candidate.node) for candidate in candidates])
        kept = {0}
        for number in self._returned:
            above: int | None = number
            while above is not None and above not in kept:
                kept.add(above)
                above = self._nodes[above].parent
        lost = sorted(number for number, _ in self._alive.values() if number not in kept)
        self._alive.clear()
        if lost:
            self._event("dropped", tuple(lost))
        for number in sorted(self._offers):
            self._reject(number)
        logprobs = tuple([candidate.logprob for candidate in candidates])
        self._events.append(Event(self._step, "finished", self._returned, values=logprobs))
        self.close()

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _event(self, kind: Literal["computed", "dropped", "preempted"], nodes: tuple[int, ...] = ()) -> None:
        """One more event; events of one kind that follow each other in a step are joined."""
        last = self._events[-1] if self._events else None
        if last is not None and last.kind == kind and last.step == self._step:
            self._events[-1] = replace(last, nodes=(*last.nodes, *nodes))
        else:
            self._events.append(Event(self._step, kind, nodes))

    def _number(self, node: Node) -> int:
        """The number of a node; a node seen for the first time is accepted, and its ancestors before it."""
        unseen: list[Node] = []
        above: Node | None = node
        while above is not None and id(above) not in self._alive:
            unseen.append(above)
            above = above.parent
        for new in reversed(unseen):
            self._add(new)
        return self._alive[id(node)][0]

    def _add(self, node: Node, kind: Literal["accepted", "drafted"] = "accepted") -> None:
        number = len(self._nodes)
        parent = None if node.parent is None else self._alive[id(node.parent)][0]
        tokens = tuple(node.tokens.tolist())
        offers = {} if parent is None else self._offers.get(parent, {})
        logprob = offers.pop(tokens[0], None)
        if len(tokens) > 1:
            logprob = None  # known of the first token only
        self._nodes.append(TracedNode(number, parent, tokens, _text(self._run.codec, node), logprob))
        key = id(node)
        # The callback runs before the id can belong to another node.
        self._alive[key] = (number, weakref.ref(node, lambda _: self._dropped(key)))
        values = () if logprob is None else (logprob,)
        self._events.append(Event(self._step, "prompt" if parent is None else kind, (number,), tokens, values))

    def _dropped(self, key: int) -> None:
        """Nobody can reach a node any more."""
        if key in self._alive:
            number, _ = self._alive.pop(key)
            self._reject(number)
            self._event("dropped", (number,))

    def _reject(self, number: int) -> None:
        """What was offered under a node and is not its child can not become one any more."""
        offers = self._offers.pop(number, {})
        if offers:
            self._events.append(Event(self._step, "rejected", (number,), tuple(offers), tuple(offers.values())))


def _text(codec: Codec | None, node: Node) -> str:
    """What a node's tokens add to the text of its path; an incomplete character belongs to the node that ends it."""
    if codec is None:
        return ""
    path = node.path
    before = codec.decode(path[max(0, node.start - _CONTEXT) : node.start].tolist()) if node.start else ""
    whole = codec.decode(path[max(0, node.start - _CONTEXT) :].tolist())
    before, whole = before.rstrip("\N{REPLACEMENT CHARACTER}"), whole.rstrip("\N{REPLACEMENT CHARACTER}")
    return whole[len(before) :] if whole.startswith(before) else codec.decode(node.tokens.tolist())
