"""Patterns as automata that are built while they run.

A pattern becomes a nondeterministic automaton (Thompson's construction); deterministic states are subsets, made when
they are first reached and kept up to a bound. A step is therefore at worst linear in the size of the pattern, whatever
it is: there is no backtracking. A state knows whether any continuation can still match, and how many characters that
takes.

An assertion (`^`, `$`, word boundaries) looks at both neighbours, so a subset is kept *before* its empty moves are
taken: they are taken once the next character, or the end, is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from treille.constraints.json import unicode
from treille.constraints.json.patterns import (
    Assertion,
    Char,
    Choice,
    Look,
    PatternError,
    Repeat,
    Sequence,
    Tree,
    parse,
)

MAX_STATES = 5000
MAX_SUBSETS = 4000
UNREACHABLE = 1 << 60


class Side(IntEnum):
    """What stands on one side of a place: the edge of the text, a word character, or another character."""

    EDGE = 0
    WORD = 1
    OTHER = 2


class _Move(NamedTuple):
    """One state of the nondeterministic automaton: a character (`classes`) or an empty move to each of `out`."""

    classes: frozenset[int] | None
    assertion: Assertion | None
    out: tuple[int, ...]


def _holds(assertion: Assertion | None, before: Side, after: Side) -> bool:
    """Whether an assertion holds between two neighbours."""
    match assertion:
        case Assertion.START:
            return before == Side.EDGE
        case Assertion.END:
            return after == Side.EDGE
        case Assertion.BOUNDARY:
            return (before == Side.WORD) != (after == Side.WORD)
        case Assertion.INSIDE:
            return (before == Side.WORD) == (after == Side.WORD)
    return True


class _Builder:
    """Thompson's construction, from the end: every part is built in front of the state that follows it."""

    def __init__(self, tree: Tree) -> None:
        bounds = {point for ranges in _all_ranges(tree) for low, high in ranges for point in (low, high + 1)}
        bounds |= {point for low, high in unicode.WORD for point in (low, high + 1)}
        self.bounds = sorted(bounds)
        self.moves = [_Move(None, None, ())]  # state 0 accepts

    def add(self, move: _Move) -> int:
        """The number of a new state."""
        if len(self.moves) >= MAX_STATES:
            msg = f"the pattern needs more than {MAX_STATES} automaton states: lower its repetition bounds"
            raise PatternError(msg)
        self.moves.append(move)
        return len(self.moves) - 1

    def classes(self, ranges: unicode.Ranges) -> frozenset[int]:
        """The numbers of the character classes that make up `ranges`."""
        found: set[int] = set()
        for low, high in ranges:
            found.update(range(bisect_right(self.bounds, low), bisect_right(self.bounds, high) + 1))
        return frozenset(found)

    def build(self, tree: Tree, then: int) -> int:
        """The state that reads `tree` and goes on at `then`."""
        match tree:
            case Char():
                return self.add(_Move(self.classes(tree.ranges), None, (then,)))
            case Assertion():
                return self.add(_Move(None, tree, (then,)))
            case Sequence():
                for part in reversed(tree.parts):
                    then = self.build(part, then)
                return then
            case Choice():
                return self.add(_Move(None, None, tuple(self.build(option, then) for option in tree.options)))
            case Repeat():
                return self.repeat(tree, then)
            case Look():
                msg = "look-around is supported only as look-ahead at the start of a pattern, after ^"
                raise PatternError(msg)

    def repeat(self, tree: Repeat, then: int) -> int:
        """The state that reads `tree.body` as often as the bounds say."""
        if tree.most is None:
            loop = self.add(_Move(None, None, ()))
            self.moves[loop] = _Move(None, None, (self.build(tree.body, loop), then))
            then = loop
        else:
            end = then
            for _ in range(tree.most - tree.least):
                then = self.add(_Move(None, None, (self.build(tree.body, then), end)))
        for _ in range(tree.least):
            size = len(self.moves)
            then = self.build(tree.body, then)
            if len(self.moves) == size:  # an empty body: once is as good as any number of times
                break
        return then


def _all_ranges(tree: Tree) -> list[unicode.Ranges]:
    """The ranges of all characters of a tree."""
    match tree:
        case Char():
            return [tree.ranges]
        case Sequence():
            return [ranges for part in tree.parts for ranges in _all_ranges(part)]
        case Choice():
            return [ranges for option in tree.options for ranges in _all_ranges(option)]
        case Repeat() | Look():
            return _all_ranges(tree.body)
    return []


class Subset:
    """One deterministic state: where the nondeterministic automaton can be, and what stood before.

    Attributes:
        raw: states before empty moves.
        before: the side on the left.
        matched: the pattern has been found; nothing that follows changes that.
        distance: the least number of further characters with which a match may end; `UNREACHABLE` if there is none.
            Assertions are taken to hold, so that it is a lower bound.
        following: the subset after a character class, as far as it is known.
    """

    __slots__ = ("before", "distance", "following", "matched", "raw")

    def __init__(self, raw: frozenset[int], before: Side, distance: int, *, matched: bool) -> None:
        self.raw = raw
        self.before = before
        self.matched = matched
        self.distance = distance
        self.following: dict[int, Subset] = {}


class Automaton:
    """A search for one tree anywhere in a text, as `pattern` asks for; safe to share between threads."""

    def __init__(self, tree: Tree) -> None:
        builder = _Builder(tree)
        start = builder.build(tree, 0)
        loop = builder.add(_Move(None, None, ()))
        skip = builder.add(_Move(builder.classes(unicode.ANY), None, (loop,)))
        builder.moves[loop] = _Move(None, None, (start, skip))
        self._moves = builder.moves
        self._bounds = builder.bounds
        self._words = builder.classes(unicode.WORD)
        self._ascii = [bisect_right(self._bounds, point) for point in range(128)]
        self._distances = self._measure()
        self._found = Subset(frozenset((0,)), Side.OTHER, 0, matched=True)
        self._subsets: dict[tuple[frozenset[int], Side], Subset] = {}
        self.start = self._subset(frozenset((loop,)), Side.EDGE)

    def _measure(self) -> list[int]:
        """Per state the least number of characters to acceptance, once some text has been read (`^` fails there)."""
        sources: list[list[int]] = [[] for _ in self._moves]
        for state, move in enumerate(self._moves):
            if move.assertion is not Assertion.START and move.classes != frozenset():
                for out in move.out:
                    sources[out].append(state)
        distances = [UNREACHABLE] * len(self._moves)
        distances[0] = 0
        waiting = deque([0])
        while waiting:
            state = waiting.popleft()
            for source in sources[state]:
                cost = 0 if self._moves[source].classes is None else 1
                if distances[state] + cost < distances[source]:
                    distances[source] = distances[state] + cost
                    waiting.append(source) if cost else waiting.appendleft(source)
        return distances

    def _closure(self, raw: frozenset[int], before: Side, after: Side | None) -> set[int]:
        """The states reached by empty moves; with `after` None, assertions about what follows hold."""
        seen: set[int] = set(raw)
        waiting = list(raw)
        while waiting:
            move = self._moves[waiting.pop()]
            if move.classes is not None:
                continue
            if after is None:
                if move.assertion is Assertion.START and before != Side.EDGE:
                    continue
            elif not _holds(move.assertion, before, after):
                continue
            for out in move.out:
                if out not in seen:
                    seen.add(out)
                    waiting.append(out)
        return seen

    def _subset(self, raw: frozenset[int], before: Side) -> Subset:
        """The deterministic state of a set, from the table or new."""
        known = self._subsets.get((raw, before))
        if known is not None:
            return known
        distance = UNREACHABLE
        for state in self._closure(raw, before, None):
            move = self._moves[state]
            if state == 0:
                distance = 0
            elif move.classes:
                distance = min(distance, 1 + self._distances[move.out[0]])
        made = Subset(raw, before, distance, matched=False)
        if len(self._subsets) < MAX_SUBSETS:
            self._subsets[raw, before] = made
        return made

    def _follow(self, subset: Subset, kind: int) -> Subset:
        """The state after a character of class `kind`; kept while the table has room."""
        if subset.matched:
            return subset
        after = Side.WORD if kind in self._words else Side.OTHER
        closed = self._closure(subset.raw, subset.before, after)
        if 0 in closed:
            made = self._found
        else:
            moves = (self._moves[state] for state in closed)
            raw = frozenset(move.out[0] for move in moves if move.classes is not None and kind in move.classes)
            made = self._subset(raw, after)
        if len(self._subsets) < MAX_SUBSETS:
            subset.following[kind] = made
        return made

    def step(self, subset: Subset, text: str) -> Subset:
        """The state after `text`."""
        table = self._ascii
        for char in text:
            if subset.matched:
                return subset
            point = ord(char)
            kind = table[point] if point < 128 else bisect_right(self._bounds, point)
            subset = subset.following.get(kind) or self._follow(subset, kind)
            if subset.distance == UNREACHABLE:
                return subset
        return subset

    def samples(self, low: int, high: int) -> list[int]:
        """One character of each class that `low` to `high` meets, none of which is a surrogate."""
        first, last = bisect_right(self._bounds, low), bisect_right(self._bounds, high)
        return [low, *self._bounds[first:last]]

    def accepts(self, subset: Subset) -> bool:
        """Whether a text that ends here contains a match."""
        return subset.matched or (subset.distance == 0 and 0 in self._closure(subset.raw, subset.before, Side.EDGE))


class Pattern:
    """A pattern: an automaton that must match, with those of the look-aheads at its start.

    `^(?=A)(?!B)C` holds where `^A` and `^C` match and `^B` does not; states are tuples, one entry per automaton.

    Args:
        text: an ECMA-262 pattern.

    Raises:
        PatternError: the pattern is malformed, not regular, or too large.
    """

    def __init__(self, text: str) -> None:
        looks, rest = _split(parse(text))
        wanted = [Sequence((Assertion.START, look.body)) for look in looks if not look.negated]
        unwanted = [Sequence((Assertion.START, look.body)) for look in looks if look.negated]
        self.text = text
        self._wanted = len(wanted) + 1
        self._automata = tuple(Automaton(tree) for tree in (rest, *wanted, *unwanted))
        self.start = tuple(automaton.start for automaton in self._automata)

    def step(self, states: tuple[Subset, ...], text: str) -> tuple[Subset, ...] | None:
        """The states after `text`; None if no continuation matches."""
        after = tuple(automaton.step(state, text) for automaton, state in zip(self._automata, states, strict=True))
        for place, state in enumerate(after):
            if state.matched if place >= self._wanted else state.distance == UNREACHABLE:
                return None
        return after

    def samples(self, low: int, high: int) -> list[int]:
        """Characters from `low` to `high`, one of each set that every automaton treats alike."""
        return sorted({point for automaton in self._automata for point in automaton.samples(low, high)})

    def distance(self, states: tuple[Subset, ...]) -> int:
        """A lower bound on the number of characters that are missing."""
        return max(state.distance for state in states[: self._wanted])

    def accepts(self, states: tuple[Subset, ...]) -> bool:
        """Whether a text that ends here matches."""
        return all(
            automaton.accepts(state) == (place < self._wanted)
            for place, (automaton, state) in enumerate(zip(self._automata, states, strict=True))
        )

    def matches(self, text: str) -> bool:
        """Whether the pattern matches somewhere in `text`."""
        states = self.step(self.start, text)
        return states is not None and self.accepts(states)


def _split(tree: Tree) -> tuple[list[Look], Tree]:
    """The look-aheads that stand between a leading `^` and the rest, and the pattern without them."""
    if not isinstance(tree, Sequence) or not tree.parts or tree.parts[0] is not Assertion.START:
        return [], tree
    looks: list[Look] = []
    for part in tree.parts[1:]:
        if not isinstance(part, Look) or not part.ahead:
            break
        looks.append(part)
    return looks, Sequence((Assertion.START, *tree.parts[1 + len(looks) :]))


@lru_cache(maxsize=256)
def pattern(text: str) -> Pattern:
    """The pattern of a text, made once while it is in use; see `Pattern` for what is refused."""
    return Pattern(text)
