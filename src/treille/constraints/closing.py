"""Short completions: a bounded search for few bytes that end a text inside its language.

A beam search by length, on a recognizer that says which bytes may follow. At every length the few texts are kept whose
bytes are the likeliest to close something (quotes and brackets first, white space last), one for each set of bytes that
may follow. Bytes that probably lead to the same place, such as the letters in a string, are represented by one of them.
What is found is a completion; that none is shorter is not promised.

A recognizer that says what is likely next is followed depth first (`dive`), which takes a tenth of the time.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Protocol, Self

from treille.constraints.base import Constraint, S

_CLASSES = (
    *(bytes([byte]) for byte in b'"}])0,:;>'), b"123456789", b"abcdefghijklmnopqrstuvwxyz",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"!#$%&'(*+-./<=?@[\\^_`{|~", b" \n\t\r",
)  # fmt: skip
_FEW = 8
"""A class with so few possible bytes is not represented by one of them: each may be a decision."""
_TRIED = 16
"""Texts of one length that are looked at."""
_WIDTH = 5
"""Texts of one length that are continued."""
_REMOVED = 8
"""Bytes of a completion that are left out at once where it ends without them too."""
_CIRCLE = 10
"""Penalty of coming back to the same set of following bytes."""
_BACK = 2
"""Places by which a choice moves back each time that it is taken."""
_SHRUNK = 16
"""Bytes of a completion of which it is tried to leave some out."""
Step = bytes | int
"""Bytes, or the id of a special token."""


class Probe(Protocol):
    """A text in a recognizer."""

    def final(self) -> bool:
        """Whether the text may end here."""

    def forced(self) -> bytes:
        """Bytes that must follow; as many as are known."""

    def possible(self) -> bytes:
        """All bytes of which each may follow, ascending."""

    def then(self, step: "Step") -> "Self | None":
        """The text with `step` appended, None where it may not follow."""


class Guided(Probe, Protocol):
    """A text that knows more than which bytes may follow."""

    def likely(self) -> Sequence[bytes]:
        """What may follow on a short way to the end, the best first."""


@dataclass(slots=True)
class _Text:
    """A text on the way to the end.

    Attributes:
        steps: what was appended.
        probe: the text before the last step, then with it.
        penalty: how unlikely it is that the steps lead to the end.
        visits: how often each set of following bytes was met on the way: going in circles closes nothing.
    """

    steps: tuple[Step, ...]
    probe: Probe
    penalty: int = 0
    visits: Mapping[bytes, int] = field(default_factory=dict)

    def arrive(self) -> bytes | None:
        """Append the last step: the bytes that may follow then, as a key; None where the step may not follow."""
        probe = self.probe.then(self.steps[-1]) if self.steps else self.probe
        if probe is None:
            return None
        self.probe = probe
        key = probe.forced() or b"\0" + probe.possible()
        self.penalty += _CIRCLE * self.visits.get(key, 0)
        self.visits = {**self.visits, key: self.visits.get(key, 0) + 1}
        return key

    def longer(self, hints: Sequence[Step]) -> "Iterator[tuple[int, _Text]]":
        """What may come next, with its size in bytes."""
        for rank, step in (*_continuations(self.probe), *((0, hint) for hint in hints)):
            size = len(step) if isinstance(step, bytes) else 1
            yield size, _Text((*self.steps, step), self.probe, self.penalty + rank, self.visits)


def shortest_closing(start: Probe, hints: Sequence[Step] = (), longest: int = 1024) -> tuple[Step, ...] | None:
    """Few bytes after which `start` may end; None where none were found.

    Args:
        start: The text to be completed.
        hints: What may have to follow and the search would hardly find, such as the trigger of a tool call.
        longest: Completions beyond this many bytes are not looked for.
    """
    waiting: dict[int, list[_Text]] = defaultdict(list)
    waiting[0] = [_Text((), start)]
    for length in range(longest + 1):
        best: dict[bytes, _Text] = {}
        for text in heapq.nsmallest(_TRIED, waiting.pop(length, []), key=lambda text: text.penalty):
            key = text.arrive()
            if key is None:
                continue
            if text.probe.final():
                return _shrink(start, text.steps)
            if key not in best or text.penalty < best[key].penalty:
                best[key] = text
        for text in heapq.nsmallest(_WIDTH, best.values(), key=lambda text: text.penalty):
            for size, longer in text.longer(hints):
                waiting[length + size].append(longer)
    return None


def dive(start: Guided, tries: int = 400) -> tuple[Step, ...] | None:
    """Few bytes after which `start` may end, by what it says is likely next; None where none were found.

    Depth first; where the same choice comes again, what was taken before moves back by `_BACK` places.

    Args:
        start: The text to be completed.
        tries: Steps that are tried at the most.
    """
    taken: Counter[tuple[bytes, bytes]] = Counter()

    def choices(probe: Guided) -> Iterator[tuple[bytes, bytes]]:
        key = probe.forced() or b"\0" + probe.possible()
        others = (step for _, step in sorted(_continuations(probe)) if not step.isspace())
        steps = dict.fromkeys((*probe.likely(), *others))
        ranked = sorted((place + _BACK * taken[key, step], place, step) for place, step in enumerate(steps))
        return iter([(key, step) for _, _, step in ranked])

    path: list[tuple[bytes, Guided, Iterator[tuple[bytes, bytes]]]] = [(b"", start, choices(start))]
    while path and tries:
        _, probe, open_choices = path[-1]
        if probe.final():
            steps = tuple(step for step, _, _ in path[1:])
            return _shrink(start, steps) if sum(map(len, steps)) <= _SHRUNK else steps
        choice = next(open_choices, None)
        if choice is None:
            path.pop()
            continue
        tries -= 1
        taken[choice] += 1
        if (after := probe.then(choice[1])) is not None:
            path.append((choice[1], after, choices(after)))
    return None


def _shrink(start: Probe, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """`steps` without pieces that the end does not need."""
    units = [unit for step in steps for unit in (map(int.to_bytes, step) if isinstance(step, bytes) else (step,))]
    for size in range(min(_REMOVED, len(units)), 0, -1):
        at, before = 0, start  # `before` has the units in front of `at`
        while at + size <= len(units):
            if _ends(before, units[at + size :]):
                del units[at : at + size]
                continue
            following = before.then(units[at])
            assert following is not None, "a step that led to the end is refused"
            at, before = at + 1, following
    return tuple(units)


def _ends(probe: Probe, units: Sequence[Step]) -> bool:
    """Whether the text may end after `units`."""
    if units and probe.then(units[0]) is None:  # as most are: only then is it worth joining them
        return False
    for special, group in groupby(units, key=lambda unit: isinstance(unit, int)):
        for step in group if special else (b"".join(unit for unit in group if isinstance(unit, bytes)),):
            after = probe.then(step)
            if after is None:
                return False
            probe = after
    return probe.final()


def _continuations(probe: Probe) -> Iterator[tuple[int, bytes]]:
    """The forced bytes, or representatives of the possible ones, each with the penalty of its class."""
    if forced := probe.forced():
        yield 0, forced
        return
    possible = set(probe.possible())
    for rank, members in enumerate(_CLASSES):
        found = [byte for byte in members if byte in possible]
        yield from ((rank, bytes([byte])) for byte in (found if len(found) <= _FEW else found[:1]))
        possible.difference_update(found)
    yield from ((len(_CLASSES), bytes([byte])) for byte in sorted(possible)[:_FEW])


def spell_steps(constraint: Constraint[S], state: S, steps: Sequence[Step]) -> tuple[int, ...] | None:
    """Tokens that the constraint allows after `state` and that spell `steps`; None where it allows no spelling."""
    tokens: list[int] = []
    text = b""
    for step in (*steps, None):
        if isinstance(step, bytes):
            text += step
            continue
        while text:
            found = _first_allowed(constraint, state, text)
            if found is None:
                return None
            token, state = found
            tokens.append(token)
            text = text[len(constraint.vocabulary.tokens[token]) :]
        if step is not None:
            following = constraint.advance(state, step)
            if following is None:
                return None
            tokens.append(step)
            state = following
    return tuple(tokens)


def _first_allowed(constraint: Constraint[S], state: S, text: bytes) -> tuple[int, S] | None:
    """A token that begins `text` and is allowed, and the state after it: the tokenizer's own, else the longest."""
    vocabulary = constraint.vocabulary
    sizes = range(min(vocabulary.longest, len(text)), 0, -1)
    others = (token for size in sizes for token in vocabulary.ids.get(text[:size], ()))
    for token in chain(vocabulary.spell(text)[:1], others):
        if (after := constraint.advance(state, token)) is not None:
            return token, after
    return None
