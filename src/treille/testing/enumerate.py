"""The exact law of a strategy's output: replay it along every random choice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.testing.alone import Alone, Driven, Models, run_alone
from treille.testing.readings import Readings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from treille.sampling.chain import Chain
    from treille.testing.table import Law

LARGEST_DENOMINATOR = 10**6
"""A float this close (1e-12) to a fraction of a smaller denominator is taken for that fraction."""

_Options: TypeAlias = list[tuple[int, Fraction]]
_Key: TypeAlias = tuple[tuple[int, ...], int, str, int]


class _Laws:
    """Normalised laws and their possible outcomes, kept for the tuples of weights that replays ask for again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Sequence[float | Fraction], Law, _Options]] = {}

    def of(self, weights: Sequence[float | Fraction] | NDArray[Any]) -> tuple[Law, _Options]:
        """Exact probabilities by index, and the indices of positive probability with theirs."""
        if isinstance(weights, np.ndarray):
            weights = tuple(weights.tolist())
        known = self._known.get(id(weights))
        if known is None:
            exact = _exact(weights)
            total = sum(exact)
            law = tuple(weight / total for weight in exact)
            known = weights, law, [(i, p) for i, p in enumerate(law) if p]
            if isinstance(weights, tuple):  # kept alive by the entry, so its id stays its own
                self._known[id(weights)] = known
        return known[1:]


class _Script:
    """The choices of one replay: those given go first, then always the first possible one.

    A key stands for one uniform number, as in `Random`. A draw divides [0, 1) into one interval per outcome and takes
    one; a later draw with the same key and another law divides what is left of it. So draws that share a number (two
    nodes of a draft tree at one position) are enumerated with exactly the dependence that the engine gives them.

    Attributes:
        choices: per choice, the options (index and probability given what came before) and which of them was taken.
    """

    def __init__(self, given: Sequence[int], laws: _Laws) -> None:
        self.given = given
        self.laws = laws
        self.choices: list[tuple[_Options, int]] = []
        self._made: dict[_Key, tuple[Law, int]] = {}
        self._left: dict[_Key, tuple[Fraction, Fraction]] = {}  # where the key's number lies, once drawn

    def choose(self, weights: Sequence[float | Fraction] | NDArray[Any], key: _Key) -> int:
        """The index chosen for `key`; the same key and law get the same choice."""
        law, options = self.laws.of(weights)
        before = self._made.get(key)
        if before is None:
            index = self._take(options)
            self._made[key] = law, index
            return index
        if before[0] is law or before[0] == law:
            return before[1]
        low, high = self._left.get(key) or _interval(*before)
        inside = [(i, _overlap(_interval(law, i), (low, high)) / (high - low)) for i, _ in options]
        index = self._take([(i, p) for i, p in inside if p])
        of_index = _interval(law, index)
        self._left[key] = max(low, of_index[0]), min(high, of_index[1])
        self._made[key] = law, index
        return index

    def _take(self, options: _Options) -> int:
        if len(options) == 1:
            return options[0][0]
        at = len(self.choices)
        taken = self.given[at] if at < len(self.given) else 0
        self.choices.append((options, taken))
        return options[taken][0]

    @property
    def probability(self) -> Fraction:
        """Probability of these choices."""
        product = Fraction(1)
        for options, taken in self.choices:
            product *= options[taken][1]
        return product

    def next(self) -> list[int] | None:
        """The choices of the next replay in depth-first order, None after the last."""
        for at in range(len(self.choices) - 1, -1, -1):
            options, taken = self.choices[at]
            if taken + 1 < len(options):
                return [before for _, before in self.choices[:at]] + [taken + 1]
        return None


def _interval(law: Law, index: int) -> tuple[Fraction, Fraction]:
    """The part of [0, 1) in which a uniform number means `index`: outcomes lie side by side in their order."""
    low = sum(law[:index], start=Fraction(0))
    return low, low + law[index]


def _overlap(a: tuple[Fraction, Fraction], b: tuple[Fraction, Fraction]) -> Fraction:
    return max(Fraction(0), min(a[1], b[1]) - max(a[0], b[0]))


class ScriptedRandom(Random):
    """Randomness whose discrete draws follow a script."""

    __slots__ = ("_script",)

    def __init__(self, script: _Script, stream: tuple[int, ...] = ()) -> None:
        # The base's keys are left out: nothing here is drawn by them, and replays are many.
        self.seed = 0
        self.stream = stream
        self._script = script

    def branch(self, index: int) -> Self:
        """The same script, under another stream."""
        return type(self)(self._script, (*self.stream, int(index)))

    def bernoulli(self, p: float | Fraction, position: int, purpose: str, draw: int = 0) -> bool:
        """Both outcomes in turn; only one where `p` is 0 or 1 (or beyond)."""
        chance = min(max(_rational(p), Fraction(0)), Fraction(1))
        return self._script.choose((chance, 1 - chance), (self.stream, position, purpose, draw)) == 0

    def categorical(
        self, weights: Sequence[float | Fraction] | NDArray[Any], position: int, purpose: str, draw: int = 0
    ) -> int:
        """Every index of positive weight in turn."""
        return self._script.choose(weights, (self.stream, position, purpose, draw))

    def uniform(self, position: int, purpose: str, draw: int = 0) -> float:  # noqa: ARG002 - the base's signature
        """Refused: a continuous draw has no finite list of outcomes."""
        raise ParameterError(
            f"the uniform for {purpose!r} at {position} cannot be enumerated; draw by bernoulli or categorical"
        )

    def gumbel(self, position: int, purpose: str, size: int) -> NDArray[np.float64]:  # noqa: ARG002
        """Refused: a continuous draw has no finite list of outcomes."""
        raise ParameterError(
            f"the noise for {purpose!r} at {position} cannot be enumerated; draw by bernoulli or categorical"
        )


def enumerate_outputs(
    strategy: Driven,
    model: Models,
    *,
    key: Callable[[Alone], Hashable] | None = None,
    processors: Chain | None = None,
    budget: int = 100_000,
    **limits: Any,
) -> dict[Any, Fraction]:
    """The exact law of what `strategy` returns: probabilities by output, most probable first; they sum to one.

    Args:
        strategy: as for `run_alone`.
        model: as for `run_alone`.
        key: what counts as the output; by default the generated tokens of the best candidate, or of all candidates when
            more than one is returned.
        processors: as for `run_alone`.
        budget: replays at the most.
        limits: further arguments of `run_alone`.

    Raises:
        ParameterError: the budget is spent, or the strategy draws something that has no finite list of outcomes.
    """
    readings = Readings(model if isinstance(model, Mapping) else {"target": model}, processors)
    laws = _Laws()
    found: dict[Any, Fraction] = {}
    given: list[int] | None = []
    replays = 0
    while given is not None:
        if replays == budget:
            raise ParameterError(
                f"budget={budget} replays are spent with {float(sum(found.values())):.3g} of the probability covered; "
                "take fewer tokens, a smaller vocabulary or a larger budget"
            )
        script = _Script(given, laws)
        done = run_alone(strategy, model, random=ScriptedRandom(script), readings=readings, **limits)
        output = _default_key(done) if key is None else key(done)
        found[output] = found.get(output, Fraction(0)) + script.probability
        given = script.next()
        replays += 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _default_key(done: Alone) -> Hashable:
    texts = done.texts
    return texts[0] if len(texts) == 1 else texts


def _rational(p: float | Fraction) -> Fraction:
    """The fraction that a float stands for, if it is close to a simple one, else the float itself."""
    if isinstance(p, Fraction):
        return p
    simple = Fraction(p).limit_denominator(LARGEST_DENOMINATOR)
    return simple if abs(float(simple) - p) <= 1e-12 else Fraction(p)


def _exact(weights: Sequence[float | Fraction]) -> tuple[Fraction, ...]:
    """Exact probabilities; float weights that sum to one are read as simple fractions if these sum to one exactly."""
    if not all(weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise ParameterError(f"weights must be >= 0 with a positive sum, but are {list(weights)[:8]}")
    if all(isinstance(weight, Fraction) for weight in weights):
        return tuple(Fraction(weight) for weight in weights)
    floats = [float(weight) for weight in weights]
    total = sum(floats)
    simple = tuple(_rational(weight / total) for weight in floats)
    return simple if sum(simple) == 1 else tuple(Fraction(weight) for weight in floats)
