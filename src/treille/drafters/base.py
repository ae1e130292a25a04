"""What a drafter is, and how one is named and configured.

A drafter proposes a draft tree under a node; the target verifies it in one forward. It can only make decoding faster or
slower, never change its law, so it is free to guess, to learn and to be wrong. A new drafter is one file:

    @drafter(paper="…", cost="…")
    class my_drafter(Drafter):
        def propose(self, run, node, budget): …      # a generator that returns a DraftTree
        def observe(self, seen): …                   # what was accepted, and what the target said
        def truncate(self, length): …                # the text went back to `length` tokens
"""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from treille.errors import ParameterError
from treille.parameters import checked_value, own_parameters
from treille.requests import Forward

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from treille.draft_tree import DraftTree
    from treille.requests import Readout, Request
    from treille.strategy import Codec, Run
    from treille.tree import Node


class Shape(Protocol):
    """What a drafter may ask about a model."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def layers(self) -> int:
        """Number of layers."""
        ...

    @property
    def context_length(self) -> int:
        """Longest text in tokens."""
        ...

    @property
    def layer_access(self) -> bool:
        """Whether forwards can leave out layers."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """Where a drafter runs.

    Attributes:
        target: sizes of the target.
        find_model: sizes of a draft model by name; loads it if need be, and raises ParameterError if there is none.
        memory: what drafters keep from run to run, by key; it lives as long as the language model.
        codec: token ids to text, None without a tokenizer.
        eos_token_ids: tokens that end the text.
        do_sample: whether the target's tokens are drawn (else they are its argmax).
    """

    target: Shape
    find_model: Callable[[str], Shape]
    memory: dict[str, Any] = field(default_factory=dict)
    codec: Codec | None = None
    eos_token_ids: frozenset[int] = frozenset()
    do_sample: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be drafted in this step: `rows` nodes in all, `depth` tokens one after the other."""

    rows: int
    depth: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What happened to the text since the drafter saw it last.

    Attributes:
        text: all committed tokens, the prompt's included, int32 `[n]`, a view.
        start: `text[start:]` is new.
        tree: the draft tree that was verified, None if the tokens came from elsewhere (the prompt).
        accepted: the nodes of it that were kept.
        readings: per node of the tree, the target's answers to the drafter's `wants`; None where it has none (a node
            at which no token is allowed).
    """

    text: NDArray[Any]
    start: int
    tree: DraftTree | None = None
    accepted: tuple[int, ...] = ()
    readings: Sequence[tuple[Any, ...] | None] = ()


class Drafter:
    """Proposes draft trees for one text, which grows and may be cut back.

    Subclasses take `host` and their own parameters, all with defaults, and check them in `__init__`.

    Attributes:
        wants: readouts that the drafter would like of the target at every verified node.
        arguments: the parameters it was opened with.
    """

    info: DrafterInfo
    wants: tuple[Readout, ...] = ()

    def __init__(self, host: Host) -> None:
        self.host = host
        self.arguments: Mapping[str, Any] = {}

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """A draft tree under `node`, within `budget`; an empty one where there is nothing to propose.

        A generator, because a draft model's forwards are requests like any other. `Lookup` is for drafters that need
        none. Randomness is keyed by `node.length` (every step starts at a greater one), so that it is fresh each step.
        """
        raise NotImplementedError

    def verify(self, run: Run, tree: DraftTree, wants: tuple[Readout, ...]) -> Generator[Request, Any, list[Any]]:  # noqa: ARG002
        """The target's answers to `wants` at every node of `tree`; an exception where no token is allowed.

        One forward. A drafter that works on while the target computes has its own.
        """
        results: list[Any] = yield Forward(tree.nodes, wants, may_fail=True)
        return results

    def observe(self, seen: Observation) -> None:
        """Learn what was committed, and what the target said of the draft."""

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on: the next text departs from the last one there."""

    def branch(self) -> Drafter:
        """A drafter for a branch of the run, of the same parameters; `share` says what they have in common."""
        other = type(self)(self.host, **self.arguments)
        other.arguments = self.arguments
        other.share(self)
        return other

    def share(self, origin: Drafter) -> None:
        """Take over what all branches of a run share, e.g. tables learned from the target."""


class Lookup(Drafter):
    """A drafter that needs no forward of its own."""

    def propose(self, run: Run, node: Node, budget: Budget) -> Generator[Request, Any, DraftTree]:
        """What `lookup` finds."""
        yield from ()
        return self.lookup(run, node, budget)

    def lookup(self, run: Run, node: Node, budget: Budget) -> DraftTree:
        """A draft tree under `node`, within `budget`."""
        raise NotImplementedError


# --- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DrafterInfo:
    """What is known of a drafter: shown by `treille drafters` and in the docs.

    Attributes:
        name: of the file, of `draft=`, of the docs page and of the test.
        kind: the class.
        paper: where it comes from.
        exactness: what the output is guaranteed to be.
        cost: rows, passes and memory that it adds.
    """

    name: str
    kind: type[Drafter]
    paper: str
    exactness: str
    cost: str

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Its parameters, without `self` and `host`."""
        return own_parameters(self.kind.__init__, "self", "host")

    @property
    def summary(self) -> str:
        """First line of its docstring."""
        return (inspect.getdoc(self.kind) or "").split("\n", 1)[0]


@dataclass(frozen=True, slots=True)
class ConfiguredDrafter:
    """A drafter with its parameters, not yet opened for a run."""

    info: DrafterInfo
    arguments: Mapping[str, Any]

    def open(self, host: Host) -> Drafter:
        """A drafter for one run.

        Raises:
            ParameterError: a value cannot be honoured on this host.
        """
        drafter = self.info.kind(host, **self.arguments)
        drafter.arguments = self.arguments
        return drafter

    def __repr__(self) -> str:
        given = ",".join(f"{key}={value}" for key, value in self.arguments.items())
        return f"{self.info.name}:{given}" if given else self.info.name


class Drafters:
    """Drafters by name; iterates over them in the order of registration."""

    def __init__(self) -> None:
        self._infos: dict[str, DrafterInfo] = {}

    def add(self, info: DrafterInfo) -> None:
        """Register a drafter; a later one of the same name replaces it."""
        self._infos[info.name] = info

    def __iter__(self) -> Iterator[DrafterInfo]:
        return iter(self._infos.values())

    def __getitem__(self, name: str) -> DrafterInfo:
        if name not in self._infos:
            near = difflib.get_close_matches(name, self._infos, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(self._infos))}"
            raise ParameterError(f"draft={name!r} is not known; {hint}")
        return self._infos[name]


registry = Drafters()
_Kind = TypeVar("_Kind", bound=type[Drafter])


def drafter(
    *, paper: str, cost: str, exactness: str = "lossless: the plain law, for any draft"
) -> Callable[[_Kind], _Kind]:
    """Register a drafter class under its own name."""

    def decorate(kind: _Kind) -> _Kind:
        kind.info = DrafterInfo(kind.__name__, kind, paper, exactness, cost)
        registry.add(kind.info)
        return kind

    return decorate


def configured(name: str, **arguments: Any) -> ConfiguredDrafter:
    """The drafter `name` with its parameters.

    Raises:
        ParameterError: an unknown drafter or parameter, or a value of another type.
    """
    info = registry[name]
    known = info.parameters
    for key, value in arguments.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            hint = f"did you mean {near[0]}?" if near else takes
            raise ParameterError(f"draft={name!r}: has no parameter {key}={value!r}; {hint}")
    values = {key: checked_value(name, known[key], value) for key, value in arguments.items()}
    return ConfiguredDrafter(info, values)


def parse(text: str) -> ConfiguredDrafter:
    """The drafter that `name` or `name:key=value,key=value` describes.

    Raises:
        ParameterError: see `configured`; or a part that is no `key=value`.
    """
    name, _, rest = text.partition(":")
    arguments: dict[str, Any] = {}
    for part in filter(None, split_commas(rest)):
        key, equals, value = part.partition("=")
        if not equals:
            raise ParameterError(f"draft={text!r}: {part!r} is no key=value; write {name}:key=value,key=value")
        arguments[key.strip()] = read_plain(value.strip())
    return configured(name.strip(), **arguments)


def split_commas(text: str) -> list[str]:
    """The parts between commas that stand outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def read_plain(value: str) -> Any:
    """A number, a flag, None or a list where the text is one, else the text."""
    known = {"true": True, "false": False, "none": None}
    if value.lower() in known:
        return known[value.lower()]
    if value.startswith("[") and value.endswith("]"):
        return [read_plain(part.strip()) for part in split_commas(value[1:-1]) if part.strip()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
