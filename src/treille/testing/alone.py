"""Drive a strategy without the engine, on tables of probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from treille.drafters import ConfiguredDrafter, parse
from treille.drafters.base import Host
from treille.drafters.speculation import Speculation, Verification
from treille.errors import DecodingError, ParameterError, StrategyError
from treille.requests import Call, Forward, Gather, Race, Request, Score, ScoredText
from treille.sampling.random import Random
from treille.strategy import Configured, Hypothesis, Limits, Run
from treille.testing.readings import LAYERS, Readings, depth
from treille.testing.table import Letters, TableModel, Tokens
from treille.tree import Node

if TYPE_CHECKING:
    from treille.hooks import Constrained
    from treille.requests import Scorer
    from treille.sampling.chain import Chain
    from treille.strategy import Codec

Models: TypeAlias = TableModel | Mapping[str, TableModel]
Driven: TypeAlias = Configured | Callable[[Run], Generator[Request, Any, Any]]
_Waiting: TypeAlias = Generator[list[Forward | Score], list[Any], Any]


@dataclass(frozen=True, slots=True)
class Alone:
    """What a strategy did when it was driven alone.

    Attributes:
        output: what it returned.
        run: the run it was given.
        settled: lengths of the text (prompt included) that it promised, in order.
        forwards: forward passes by model; branches that wait together share one.
        rows: tokens computed by model; the tokens of a node are computed once.
        scorer_calls: how often a scorer was called.
        scored: texts given to scorers.
    """

    output: Any
    run: Run
    settled: list[int] = field(default_factory=list)
    forwards: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    scorer_calls: int = 0
    scored: int = 0

    @property
    def texts(self) -> tuple[Tokens, ...]:
        """Generated tokens of the candidates (of the hypothesis, if the strategy returned one), best first."""
        found = (self.output,) if isinstance(self.output, Hypothesis) else self.output.candidates
        return tuple(tuple(h.node.path[self.run.tip.length :].tolist()) for h in found)

    @property
    def text(self) -> Tokens:
        """Generated tokens of the best candidate."""
        return self.texts[0]


def run_alone(
    strategy: Driven,
    model: Models,
    *,
    prompt: Sequence[int] = (0,),
    max_new_tokens: int = 4,
    eos_token_ids: Sequence[int] = (),
    stop_strings: Sequence[str] = (),
    do_sample: bool | None = None,
    num_return_sequences: int = 1,
    processors: Chain | None = None,
    random: Random | None = None,
    codec: Codec | None = None,
    readings: Readings | None = None,
    draft: str | ConfiguredDrafter | None = None,
    draft_rows: int = 32,
    verification: Verification = "match",
    gumbel: bool = False,
    constraint: Callable[[Node], Constrained] | None = None,
) -> Alone:
    """The output of `strategy` on a table, with the counts that the engine would report.

    Args:
        strategy: a configured strategy, whose own options go first, or a generator function of a run.
        model: the table of the target, or tables by name when there is a draft model too.
        prompt: token ids, at least one.
        max_new_tokens: as everywhere.
        eos_token_ids: as everywhere.
        stop_strings: as everywhere.
        do_sample: by default what the strategy declares, False for a plain generator function.
        num_return_sequences: as everywhere.
        processors: the chain, applied as given (also by greedy and beam strategies) and to every model.
        random: by default `Random(0)`.
        codec: by default one letter per token, end tokens left out.
        readings: the tables' readouts, to be shared by many runs on the same tables with the same chain.
        draft: a drafter; the tables beside the target's are the models it can name.
        draft_rows: as everywhere.
        verification: as everywhere.
        gumbel: whether draws use Gumbel noise (`noise="gumbel"`).
        constraint: makes the constraint of a run from the end of its prompt, e.g. `testing.Words(…).bind`.

    Raises:
        ParameterError: the strategy refuses a value, or sets an option that needs an engine.
    """
    given: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "eos_token_ids": eos_token_ids, "stop_strings": stop_strings,
        "do_sample": do_sample, "num_return_sequences": num_return_sequences,
    }  # fmt: skip
    if isinstance(strategy, Configured):
        if unknown := set(strategy.options) - set(given):
            raise ParameterError(f"{', '.join(sorted(unknown))}: alone, a strategy takes its chain by processors=")
        given["do_sample"] = strategy.info.do_sample if do_sample is None else do_sample
        given.update(strategy.options)
    ends = frozenset(given["eos_token_ids"])
    models = model if isinstance(model, Mapping) else {"target": model}
    settled: list[int] = []
    tip = Node.root(prompt)
    run = Run(
        tip,
        Random(0) if random is None else random,
        Limits(given["max_new_tokens"], ends, tuple(given["stop_strings"])),
        do_sample=bool(given["do_sample"]),
        num_return_sequences=given["num_return_sequences"],
        codec=Letters(ends) if codec is None else codec,
        settled=lambda node: settled.append(node.length),
        draft=None if draft is None else _speculation(draft, draft_rows, verification, models, ends, given),
        gumbel=gumbel,
        constraint=None if constraint is None else constraint(tip),
    )
    if readings is None:
        readings = Readings(models, processors)
    driver = _Driver(run, readings)
    output = driver.drive(strategy.start(run) if isinstance(strategy, Configured) else strategy(run))
    return Alone(output, run, settled, driver.forwards, driver.rows, driver.scorer_calls, driver.scored)


@dataclass(frozen=True, slots=True)
class _TableShape:
    """What a drafter may ask about a table."""

    vocab_size: int
    layers: int = LAYERS
    context_length: int = 1 << 20
    layer_access: bool = True


def _speculation(
    draft: str | ConfiguredDrafter,
    rows: int,
    verification: Verification,
    models: Mapping[str, TableModel],
    ends: frozenset[int],
    given: Mapping[str, Any],
) -> Speculation:
    """The drafter as the language model would open it."""

    def find(name: str) -> _TableShape:
        if name not in models:
            raise ParameterError(f"draft: model={name!r} has no table; pass model={{'target': …, {name!r}: …}}")
        return _TableShape(models[name].vocabulary_size)

    chosen = parse(draft) if isinstance(draft, str) else draft
    host = Host(find("target"), find, {}, Letters(ends), ends, bool(given["do_sample"]))
    return Speculation(chosen.open(host), rows=rows, verification=verification)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An answer that is raised in the strategy."""

    error: Exception


def _name(request: Forward) -> str:
    """What a pass is counted under: a model, or a model by fewer layers."""
    layers = depth(request)
    return request.model if layers == LAYERS else f"{request.model}/{layers}"


class _Driver:
    """Drives one strategy and its branches in lock-step: one forward per round for all that wait."""

    def __init__(self, run: Run, readings: Readings) -> None:
        self.run = run
        self.readings = readings
        self.forwards: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.scorer_calls = 0
        self.scored = 0
        self._computed: dict[str, set[Node]] = {name: set() for name in readings.models}

    def drive(self, strategy: Generator[Request, Any, Any]) -> Any:
        """The strategy's output; every generator is closed when this returns or raises."""
        task = _task(strategy)
        try:
            requests = next(task)
            while True:
                requests = task.send(self._answer(requests))
        except StopIteration as stop:
            return stop.value
        finally:
            task.close()

    def _answer(self, requests: Sequence[Forward | Score]) -> list[Any]:
        """One answer per request; forwards of one model are one pass, texts for one scorer one call."""
        self.forwards.update({_name(request) for request in requests if isinstance(request, Forward)})
        scorers = {id(request.scorer): request.scorer for request in requests if isinstance(request, Score)}
        values = {key: iter(self._score(scorer, requests)) for key, scorer in scorers.items()}
        answers: list[Any] = []
        for request in requests:
            if isinstance(request, Forward):
                answers.append(self._forward(request))
            else:
                answers.append([next(values[id(request.scorer)]) for _ in request.nodes])
        return answers

    def _forward(self, request: Forward) -> Any:
        try:
            return [self._read(node, request) for node in request.nodes]
        except DecodingError as error:
            return _Failure(error)

    def _read(self, node: Node, request: Forward) -> Any:
        try:
            return self._read_one(node, request)
        except DecodingError as error:
            if request.may_fail:
                return error
            raise

    def _read_one(self, node: Node, request: Forward) -> Any:
        self._compute(node, _name(request))
        wants = request.want if isinstance(request.want, tuple) else (request.want,)
        found = tuple(self.readings.read(node, want, request.model, self.run, depth(request)) for want in wants)
        return found if isinstance(request.want, tuple) else found[0]

    def _compute(self, node: Node, model: str) -> None:
        """Count the rows of `node` and of its ancestors that no earlier forward computed."""
        computed = self._computed.setdefault(model, set())
        above: Node | None = node
        while above is not None and above not in computed:
            computed.add(above)
            self.rows[model] += above.length - above.start
            above = above.parent

    def _score(self, scorer: Scorer, requests: Sequence[Forward | Score]) -> list[float]:
        nodes = [node for r in requests if isinstance(r, Score) and r.scorer is scorer for node in r.nodes]
        tip = self.run.tip
        assert self.run.codec is not None
        prompt = self.run.codec.decode(tip.path.tolist())
        self.scorer_calls += 1
        self.scored += len(nodes)
        return list(scorer([ScoredText(prompt, self.run.text(n), tuple(n.path[tip.length :].tolist())) for n in nodes]))


def _task(strategy: Generator[Request, Any, Any]) -> _Waiting:
    """A strategy as a generator of the forwards and scores that it and its branches wait for."""
    try:
        request = next(strategy)
        while True:
            match request:
                case Forward() | Score():
                    answer = (yield [request])[0]
                case Gather():
                    answer = yield from _together(request.strategies, race=False)
                case Race():
                    answer = yield from _together(request.strategies, race=True)
                case Call():
                    answer = _call(request)
                case _:
                    raise StrategyError(f"a strategy yielded {request!r}, which is not a request")
            failed = isinstance(answer, _Failure)
            request = strategy.throw(answer.error) if failed else strategy.send(answer)
    except StopIteration as stop:
        return stop.value
    finally:
        strategy.close()


def _call(request: Call) -> Any:
    try:
        return request.function(*request.args)
    except Exception as error:  # noqa: BLE001 - whatever the function raises is the strategy's to handle
        return _Failure(error)


class _Branch:
    """A branch of a `Gather` or `Race`: what it waits for, and a bound on how short its text can still be."""

    def __init__(self, index: int, strategy: Generator[Request, Any, Any]) -> None:
        self.index = index
        self.task = _task(strategy)
        self.waits: list[Forward | Score] = []
        self.output: Any = None
        self.done = False
        self._resume(lambda: next(self.task))

    def answer(self, answers: list[Any]) -> None:
        """Go on with the answers to `waits`."""
        self._resume(lambda: self.task.send(answers))

    def _resume(self, go: Callable[[], list[Forward | Score]]) -> None:
        try:
            self.waits = go()
        except StopIteration as stop:
            self.output, self.done, self.waits = stop.value, True, []

    @property
    def bound(self) -> tuple[int, int]:
        """The least (length, index) it can finish with: a text that asks about its end gets one token more."""
        if self.done:
            return self.output.length, self.index
        texts = [request for request in self.waits if isinstance(request, Forward) and request.of_text]
        lengths = [node.length for request in texts for node in request.nodes]
        return min(lengths, default=-1) + 1, self.index


def _together(strategies: Sequence[Generator[Request, Any, Any]], *, race: bool) -> _Waiting:
    """Branches in lock-step: their outputs in order, or `(index, output)` of a race's winner."""
    branches: list[_Branch] = []
    try:
        for index, strategy in enumerate(strategies):
            branches.append(_Branch(index, strategy))
        running = [branch for branch in branches if not branch.done]
        while True:
            if race:
                best = min((branch.bound for branch in branches if branch.done), default=None)
                for branch in [b for b in running if best is not None and b.bound > best]:
                    branch.task.close()
                    running.remove(branch)
            if not running:
                break
            answers = yield [request for branch in running for request in branch.waits]
            for branch in running:
                own, answers = answers[: len(branch.waits)], answers[len(branch.waits) :]
                branch.answer(own)
            running = [branch for branch in running if not branch.done]
    finally:
        for branch in branches:
            branch.task.close()
        for strategy in strategies:  # also those that never started, because one before them failed
            strategy.close()
    if not race:
        return [branch.output for branch in branches]
    winner = min((branch for branch in branches if branch.done), key=lambda branch: branch.bound)
    return winner.index, winner.output
