"""What a decoding strategy is, what it may know of its run, and the parts from which strategies are made.

A strategy is a generator function `def name(run, …)`: it yields requests and returns an `Output`. It never sees slots,
devices, batches or other strategies, so the same function runs under the engine, in a server, and alone on a table of
probabilities (`testing.run_alone`). The protocol follows httpx's `auth_flow` (one generator, several drivers) and the
inferlets of Pie (SOSP 2025).
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from treille.errors import ParameterError
from treille.hooks import DraftCounts
from treille.parameters import checked_value, own_parameters
from treille.requests import Argmax, Choice, Forward, Request, Sample
from treille.tree import common_length

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from treille.hooks import Constrained, Drafting, Watcher
    from treille.sampling.random import Random
    from treille.tree import Node

FinishReason: TypeAlias = Literal["eos", "stop_string", "constraint", "length"]


class Codec(Protocol):
    """Token ids to text; a checkpoint without a tokenizer has none."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the answer ends.

    Attributes:
        max_new_tokens: tokens generated at the most, the end token included.
        eos_token_ids: tokens that end the text; the token is part of the output's tokens, not of its text.
        stop_strings: strings that end the text; the text is cut before the match.
    """

    max_new_tokens: int
    eos_token_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()

    def spoken(self, tokens: Iterable[int]) -> list[int]:
        """`tokens` without end tokens, which are no part of the text even where they are ordinary tokens."""
        return [token for token in tokens if token not in self.eos_token_ids]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A text under construction or finished.

    Attributes:
        node: its last node.
        logprob: sum of the log-probabilities (nats) of its generated tokens under p.
        raw_logprob: the same under the model alone, before processors and constraint.
        finish_reason: None while it can still grow.
        score: what the strategy ranks by, e.g. a length-normalised log-probability; None: not ranked.
    """

    node: Node
    logprob: float = 0.0
    raw_logprob: float = 0.0
    finish_reason: FinishReason | None = None
    score: float | None = None

    @property
    def length(self) -> int:
        """Number of tokens, the prompt's included."""
        return self.node.length


@dataclass(frozen=True, slots=True)
class Output:
    """What a strategy returns: its candidates, best first, and anything else worth telling (`details`)."""

    candidates: tuple[Hypothesis, ...]
    details: Mapping[str, Any] = field(default_factory=dict)


class Run:
    """What a strategy may know of the run it belongs to.

    Attributes:
        tip: the node at the end of the prompt.
        random: keyed randomness of this branch.
        limits: where texts end.
        do_sample: whether `choose` draws from p or takes its argmax.
        gumbel: whether draws use keyed Gumbel noise, which a draft can share, or one uniform.
        num_return_sequences: how many candidates the caller asked for.
        codec: token ids to text, None without a tokenizer.
        constraint: which tokens may follow each node, None: all.
        draft: drafts and verifies for `advance`, None: plain decoding.
        drafts: what drafting did so far, in all branches.
        watchers: told of every draft tree, in all branches.
    """

    __slots__ = (
        "_known", "_settled", "_window", "codec", "constraint", "do_sample", "draft", "drafts", "gumbel", "limits",
        "num_return_sequences", "random", "tip", "watchers",
    )  # fmt: skip

    def __init__(
        self,
        tip: Node,
        random: Random,
        limits: Limits,
        *,
        do_sample: bool = False,
        num_return_sequences: int = 1,
        codec: Codec | None = None,
        settled: Callable[[Node], None] | None = None,
        draft: Drafting | None = None,
        drafts: DraftCounts | None = None,
        gumbel: bool = False,
        constraint: Constrained | None = None,
    ) -> None:
        self.tip = tip
        self.random = random
        self.limits = limits
        self.do_sample = do_sample
        self.num_return_sequences = num_return_sequences
        self.codec = codec
        self.draft = draft
        self.drafts = DraftCounts() if drafts is None else drafts
        self.gumbel = gumbel
        self.constraint = constraint
        self.watchers: list[Watcher] = []
        self._settled = settled
        self._known = tip.length  # length of the path that is settled so far
        # A stop string of n bytes spans at most n tokens, plus those whose text starts before it.
        self._window = max((len(s.encode()) for s in limits.stop_strings), default=0) + 4

    @property
    def start(self) -> Hypothesis:
        """The empty hypothesis: nothing generated yet."""
        return Hypothesis(self.tip)

    @property
    def rejecting(self) -> bool:
        """Whether drafts are verified by rejection, so that a drawn token needs the law it was drawn from."""
        return self.do_sample and self.draft is not None and self.draft.verification == "rejection"

    @property
    def choose(self) -> Argmax | Sample:
        """The readout by which this run picks a token."""
        return Sample(self.random, self.gumbel) if self.do_sample else Argmax()

    def branch(self, index: int) -> Run:
        """A run for branch `index` with randomness of its own; what it settles is not yet settled for the whole."""
        branch = Run(
            self.tip, self.random.branch(index), self.limits, do_sample=self.do_sample, codec=self.codec,
            draft=None if self.draft is None else self.draft.branch(), drafts=self.drafts, gumbel=self.gumbel,
            constraint=self.constraint,
        )  # fmt: skip
        branch.watchers = self.watchers
        return branch

    def generated(self, node: Node) -> int:
        """Number of tokens on the path after the prompt."""
        return node.length - self.tip.length

    def finish(self, node: Node) -> FinishReason | None:
        """Why a text that ends in `node` is finished, or None if it can go on. Costs the same at every length."""
        if node.token in self.limits.eos_token_ids:
            return "eos"
        if self.limits.stop_strings and self._stopped(node):
            return "stop_string"
        if self.constraint is not None and self.constraint.over(node):
            return "constraint"
        return "length" if self.generated(node) >= self.limits.max_new_tokens else None

    def _stopped(self, node: Node) -> bool:
        assert self.codec is not None, "stop strings without a tokenizer are refused before a run starts"
        begin = max(self.tip.length, node.length - self._window)
        tail = self.codec.decode(node.path[begin:].tolist())
        return any(s in tail for s in self.limits.stop_strings)

    def extend(self, hypothesis: Hypothesis, choice: Choice, node: Node | None = None) -> Hypothesis:
        """The hypothesis one token longer, with its end recognised; `node` is the token's, if there is one already."""
        node = hypothesis.node.child(choice.token) if node is None else node
        return Hypothesis(
            node,
            hypothesis.logprob + choice.logprob,
            hypothesis.raw_logprob + choice.raw_logprob,
            self.finish(node),
        )

    def settle(self, *nodes: Node) -> None:
        """Promise that every output goes through one of `nodes`: what their paths share can be streamed.

        Ignored in a branch. Walks up from the first node only when more than before is shared.
        """
        if self._settled is None:
            return
        shared = common_length(nodes, self._known)
        node = nodes[0]
        while shared > self._known and node.length > shared and node.parent is not None:
            node = node.parent
        if self._known < node.length <= shared:
            self._known = node.length
            self._settled(node)

    def text(self, node: Node) -> str:
        """The generated text up to `node`, cut before a stop string."""
        if self.codec is None:
            raise ParameterError("this strategy needs texts, but the checkpoint has no tokenizer; add a tokenizer.json")
        text = self.codec.decode(self.limits.spoken(node.path[self.tip.length :].tolist()))
        return text[: min((at for s in self.limits.stop_strings if (at := text.find(s)) >= 0), default=len(text))]


def advance(run: Run, hypothesis: Hypothesis) -> Generator[Request, Any, Hypothesis]:
    """Move a hypothesis forward by one accepted step. Everything that generates spans of text is written with it."""
    if run.draft is not None:
        return (yield from run.draft.advance(run, hypothesis))
    (choice,) = yield Forward((hypothesis.node,), run.choose)
    return run.extend(hypothesis, choice)


def complete(run: Run, hypothesis: Hypothesis) -> Generator[Request, Any, Hypothesis]:
    """Advance a hypothesis until it is finished."""
    while hypothesis.finish_reason is None:
        hypothesis = yield from advance(run, hypothesis)
        if run.constraint is None or not run.constraint.loose:  # else tokens may be taken back
            run.settle(hypothesis.node)
    return hypothesis


# --- registry: one name for the file, the argument, the command line, the docs page and the test ----------------------

StrategyFunction: TypeAlias = "Callable[..., Generator[Request, Any, Output]]"


@dataclass(frozen=True, slots=True)
class StrategyInfo:
    """What is known of a strategy: shown by `treille strategies` and in the docs."""

    name: str
    function: StrategyFunction
    paper: str
    exactness: str
    cost: str
    do_sample: bool
    drafts: bool = False

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The strategy's own parameters, without `run`."""
        return own_parameters(self.function, "run")

    @property
    def summary(self) -> str:
        """First line of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]


@dataclass(frozen=True, slots=True)
class Configured:
    """A strategy with its parameters, not yet bound to a run.

    `options` are generation parameters (temperature, max_new_tokens, …) that hold for this strategy's run.
    """

    info: StrategyInfo
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]

    def start(self, run: Run) -> Generator[Request, Any, Output]:
        """A fresh generator of this strategy for `run`."""
        return self.info.function(run, **self.arguments)

    def with_options(self, options: Mapping[str, Any]) -> Configured:
        """The same strategy with `options` added; what was set on the strategy itself goes first."""
        return replace(self, options={**options, **self.options})

    def __repr__(self) -> str:
        given = {**self.arguments, **self.options}
        return f"{self.info.name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"


class Registry:
    """Strategies by name; iterates over them in the order of registration."""

    def __init__(self) -> None:
        self._infos: dict[str, StrategyInfo] = {}

    def add(self, info: StrategyInfo) -> None:
        """Register a strategy; a later one of the same name replaces it (a notebook cell run again)."""
        self._infos[info.name] = info

    def __iter__(self) -> Iterator[StrategyInfo]:
        return iter(self._infos.values())

    def __getitem__(self, name: str) -> StrategyInfo:
        if name not in self._infos:
            raise ParameterError(f"strategy={name!r} is not known; choose one of {', '.join(sorted(self._infos))}")
        return self._infos[name]


registry = Registry()


def strategy(
    *, paper: str = "", exactness: str = "", cost: str = "", do_sample: bool = False, drafts: bool = False
) -> Callable[[StrategyFunction], Callable[..., Configured]]:
    """Register a generator function as a strategy; calling the decorated name gives it its parameters.

    Args:
        paper: where the method comes from.
        exactness: what its output is guaranteed to be.
        cost: forwards or tokens, relative to plain decoding.
        do_sample: whether `run.choose` draws tokens; also decides whether temperature and truncations apply.
        drafts: whether it grows its texts by `advance` or `complete`, so that a drafter speeds it up.

    `beam(width=4, max_new_tokens=64)` is a `Configured`; `beam.function` is the plain generator function.
    """

    def decorate(function: StrategyFunction) -> Callable[..., Configured]:
        info = StrategyInfo(function.__name__, function, paper, exactness, cost, do_sample, drafts)
        registry.add(info)

        @functools.wraps(function)
        def configure(**given: Any) -> Configured:
            return configured(info, given)

        configure.info = info  # type: ignore[attr-defined]
        configure.function = function  # type: ignore[attr-defined]
        return configure

    return decorate


def configured(info: StrategyInfo, given: Mapping[str, Any]) -> Configured:
    """Split `given` into the strategy's own arguments and generation parameters.

    Raises:
        ParameterError: a required argument is missing. (Values are checked when the strategy starts; names of
            generation parameters when the run is built.)
    """
    own = info.parameters
    missing = [name for name, p in own.items() if p.default is inspect.Parameter.empty and name not in given]
    if missing:
        raise ParameterError(f"strategy {info.name!r} needs a value for {', '.join(missing)}")
    arguments = {name: checked_value(info.name, own[name], value) for name, value in given.items() if name in own}
    return Configured(info, arguments, {name: value for name, value in given.items() if name not in own})
