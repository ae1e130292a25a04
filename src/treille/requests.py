"""The closed set of requests a strategy can yield, and the readouts a `Forward` can ask for.

These frozen classes are everything that passes between a strategy and whatever drives it (the engine, or
`testing.run_alone`). `result = yield request`. A new request needs a design note; a new strategy does not.

============  ==========================================  =============================================
request       does                                        result
============  ==========================================  =============================================
`Forward`     compute nodes, read their distributions     one readout result per node
`Gather`      run strategies concurrently                 their outputs, in order
`Race`        the same, the shortest finisher wins        `(index, output)` of the winner
`Score`       value texts with a scorer                   one float per node
`Call`        blocking host work                          the function's value
============  ==========================================  =============================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from treille.sampling.random import Random
    from treille.tree import Node


class Scorer(Protocol):
    """Values texts. Called once per engine step with the texts of all runs that wait for this scorer."""

    def __call__(self, texts: Sequence[ScoredText]) -> Sequence[float]:
        """One value per text; higher is better."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredText:
    """What a scorer sees of a node."""

    prompt: str
    text: str
    tokens: tuple[int, ...]


# --- readouts: the reduction of a node's next-token distribution p that a strategy asks for ---------------------------
# p is the target's distribution after the processors and the constraint, for that node's own path.


@dataclass(frozen=True, slots=True)
class Argmax:
    """The most probable token, the lowest id on ties. Result: `Choice`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One token drawn from p, keyed by (seed, stream, position). Result: `Choice`.

    By inverse CDF of one uniform, or with `gumbel` as argmax(log p + noise) with noise keyed by the token id too: two
    models that draw with the same noise agree with probability at least (1 - TV) / (1 + TV) (Daliri et al. 2024).
    """

    random: Random
    gumbel: bool = False


@dataclass(frozen=True, slots=True)
class TopK:
    """The k most probable tokens, best first, the lowest id first on ties. Result: `Top`.

    With `renormalize=False` the processors act on `log_softmax(logits)` and their result is not normalised again, which
    is what `transformers` gives its beam search.
    """

    k: int
    renormalize: bool = True


@dataclass(frozen=True, slots=True)
class LogProbs:
    """Log-probabilities of given tokens, in nats. Result: tuple of floats. `raw`: before processors and constraint."""

    tokens: tuple[int, ...]
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Distribution:
    """The whole of log p in nats, float32 `[V]`, on the model's device. `raw`: before processors and constraint."""

    raw: bool = False


@dataclass(frozen=True, slots=True)
class Probabilities:
    """The whole of p on the host, float64 `[V]` that sums to one. `raw`: before processors and constraint.

    What verification by rejection calculates with; on tables of rationals the entries are exact fractions.
    """

    raw: bool = False


@dataclass(frozen=True, slots=True)
class Hidden:
    """Hidden states of the node's last token. Result: float32 `[len(layers), H]`.

    Layers are boundaries: 0 is the embedding, L the output of the last layer, -1 the final norm's output.
    """

    layers: tuple[int, ...] = (-1,)


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention weights of the node's last token over its whole path, by layer (0 … L - 1) and query head.

    Result: float32 `[len(layers), Hq, length]`; positions beyond a layer's window have weight 0. It reads the path's
    keys, so it costs as much as the text is long.
    """

    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exits:
    """The most probable token if the model stopped after so many layers: final norm and head at layer boundaries.

    Result: one `Choice` per entry of `layers` (1 … L), before processors and constraint. A product with the head each.
    """

    layers: tuple[int, ...]


Readout: TypeAlias = Argmax | Sample | TopK | LogProbs | Distribution | Probabilities | Hidden | Attention | Exits


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token with its log-probability (nats) under p and under the model alone (`raw_logprob`)."""

    token: int
    logprob: float
    raw_logprob: float


@dataclass(frozen=True, slots=True)
class Top:
    """Tokens, best first, with their log-probabilities (nats) under p and under the model alone (`raw_logprobs`).

    Shorter than k when fewer tokens are allowed.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    raw_logprobs: tuple[float, ...]


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layers:
    """A shallower network of the same weights: what of a model's layers a forward runs.

    Attributes:
        stop: layers 0 … stop - 1 run, then the final norm and the head (an early exit); None: to the last layer.
        skip_attention: layers whose attention is left out; they write no keys, and the residual stream passes by.
        skip_mlp: layers whose MLP is left out.
    """

    stop: int | None = None
    skip_attention: frozenset[int] = frozenset()
    skip_mlp: frozenset[int] = frozenset()

    @staticmethod
    def without(layers: Iterable[int]) -> Layers:
        """All layers but these."""
        left_out = frozenset(layers)
        return Layers(None, left_out, left_out)

    @property
    def prefix(self) -> bool:
        """Whether it only stops early: its rows are then the first layers of the whole model's rows."""
        return not self.skip_attention and not self.skip_mlp


@dataclass(frozen=True, slots=True)
class View:
    """What of the context a forward attends to: the positions in `spans`, and all from `start` on.

    Spans are `[begin, end)`, ascending, and end before `start`.
    """

    spans: tuple[tuple[int, int], ...]
    start: int


@dataclass(frozen=True, slots=True)
class Forward:
    """Compute `nodes` and any ancestors not computed yet; one result per node: of `want`, or a tuple if it is one.

    `model` names whose KV and logits are meant: the target, or a draft model registered with the engine, which keeps
    its own KV over the same tree. With `may_fail`, a node whose readout fails (no token is allowed there) has the
    exception as its result; otherwise it is raised in the strategy.

    `layers` and `view` make a cheaper model of the same weights. They hold from position `since` on: what stands before
    is the whole model's and is computed first if need be. The rows they leave are scratch: the whole model computes its
    own when it is asked for the same nodes, and the scratch is dropped then.
    """

    nodes: Sequence[Node]
    want: Readout | tuple[Readout, ...]
    model: str = "target"
    may_fail: bool = False
    layers: Layers | None = None
    view: View | None = None
    since: int = 0

    @property
    def of_text(self) -> bool:
        """Whether it asks the whole target: what a draft looks at is not text yet."""
        return self.model == "target" and self.layers is None and self.view is None


class Gather:
    """Run strategies concurrently as branches of one run. Result: the list of their outputs, in order."""

    __slots__ = ("strategies",)

    def __init__(self, *strategies: Strategy) -> None:
        self.strategies = strategies


class Race:
    """Run strategies concurrently; the one whose output has the fewest tokens wins, the first on ties.

    Outputs need a `length` in tokens (`Hypothesis` has one). A branch is closed as soon as its text is so long that it
    cannot win any more, which makes the result independent of scheduling and of drafting. Result: `(index, output)`.
    """

    __slots__ = ("strategies",)

    def __init__(self, *strategies: Strategy) -> None:
        self.strategies = strategies


@dataclass(frozen=True, slots=True)
class Score:
    """Value the texts of `nodes`; batched over all runs that wait for the same scorer. Result: list of floats."""

    scorer: Scorer
    nodes: Sequence[Node]


class Call:
    """Run `function(*args)` in a worker thread. Result: its value; an exception is raised in the strategy."""

    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function = function
        self.args = args


Request: TypeAlias = Forward | Gather | Race | Score | Call
Strategy: TypeAlias = "Generator[Request, Any, Any]"
