"""Suffix trees with counts: how often did a sequence of tokens occur, and what came next.

A tree holds the first `depth` tokens of every suffix of every text. A vertex stands where texts branch or end and
nowhere else, so the tree is a function of the texts alone, however they were added, cut back and forgotten.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from treille.drafters._guess import Guess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Vertex:
    """A vertex and the label of the edge that leads to it.

    Attributes:
        tokens: a text with this label at `start … stop`, and the path from the root just before it.
        start: where the label begins.
        stop: where the label ends.
        count: suffixes that come through or end here: the children's counts plus the endings.
        parent: the vertex above; the root is its own.
        children: the vertices below, by the first token of their labels.
    """

    __slots__ = ("children", "count", "parent", "start", "stop", "tokens")

    def __init__(self, tokens: list[int], start: int, stop: int, count: int, parent: Vertex | None) -> None:
        self.tokens = tokens
        self.start = start
        self.stop = stop
        self.count = count
        self.parent = self if parent is None else parent
        self.children: dict[int, Vertex] = {}

    @property
    def label(self) -> list[int]:
        """The tokens of the edge."""
        return self.tokens[self.start : self.stop]

    @property
    def known(self) -> int:
        """Where the tokens end that are known to follow: below the deepest vertices, the label's text goes on."""
        return self.stop if self.children else len(self.tokens)

    def hang(self, child: Vertex) -> None:
        """Put `child` below, in the place of the one with the same first token."""
        child.parent = self
        self.children[child.tokens[child.start]] = child

    def dissolve(self) -> None:
        """Leave the tree where nothing branches or ends any more: the only child takes over the label."""
        (child,) = self.children.values()
        child.start -= self.stop - self.start
        self.parent.hang(child)


class Place(NamedTuple):
    """A point of a tree: `used` tokens into the label of `vertex`."""

    vertex: Vertex
    used: int


class SuffixTree:
    """Suffixes of many texts.

    Args:
        depth: tokens kept of each suffix.
        most: suffixes kept at the most, the oldest are forgotten first; None: all.
    """

    def __init__(self, depth: int, most: int | None = None) -> None:
        self.depth = depth
        self.most = most
        self.held = 0
        self.root = Vertex([], 0, 0, 0, None)
        self._texts: deque[Text] = deque()

    def begin(self) -> Text:
        """A new, empty text."""
        return Text(self)

    def grown(self, text: Text) -> None:
        """Account for one more suffix of `text`; forget the oldest one of all if they are too many."""
        if not text.listed:
            text.listed = True
            self._texts.append(text)
        self.held += 1
        if self.most is not None and self.held > self.most:
            while self._texts[0].empty:
                self._texts.popleft().listed = False
            self._texts[0].forget_oldest()

    def insert(self, tokens: list[int], start: int, stop: int) -> Vertex:
        """The vertex at which the suffix `tokens[start:stop]` ends, now that it is in the tree."""
        above = self.root
        above.count += 1
        while start < stop:
            child = above.children.get(tokens[start])
            if child is None:
                child = Vertex(tokens, start, stop, 0, above)
                above.hang(child)
            shared = _common(child.label, tokens, start, stop)
            if shared < child.stop - child.start:
                middle = Vertex(child.tokens, child.start, child.start + shared, child.count, above)
                above.hang(middle)
                child.start += shared
                middle.hang(child)
                child = middle
            child.count += 1
            start += shared
            above = child
        return above

    def remove(self, tokens: Sequence[int], start: int, stop: int) -> None:
        """Take the suffix `tokens[start:stop]` out of the tree."""
        below = self.root
        below.count -= 1
        while start < stop:
            below = below.children[tokens[start]]
            below.count -= 1
            start += below.stop - below.start
            if not below.count:  # nor has anything under it
                above = below.parent
                del above.children[below.tokens[below.start]]
                below = above
                break
        if below is not self.root and len(below.children) == 1:
            (child,) = below.children.values()
            if child.count == below.count:
                below.dissolve()

    def find(self, tokens: Sequence[int]) -> Place | None:
        """Where `tokens` lead from the root, None if they do not occur."""
        at, start, stop = self.root, 0, len(tokens)
        while start < stop:
            child = at.children.get(tokens[start])
            if child is None:
                return None
            length = child.stop - child.start
            if length > 1:
                shared = _common(child.label, tokens, start, stop)
                if shared < min(length, stop - start):
                    return None
                length = shared
            at, start = child, start + length
            if start == stop:
                return Place(at, length)
        return Place(at, 0)

    def matches(self, context: Sequence[int]) -> Iterator[tuple[int, Place]]:
        """`(length, place)` of the last tokens of `context` where they occur, the longest first.

        Lengths with the same occurrences as a longer one are left out: they say nothing new.
        """
        most, occurrences = min(len(context), self.depth - 1), 0
        while True:
            found, least = None, 0
            while least < most:  # the fewer tokens, the more occurrences
                length = (least + most + 1) // 2
                place = self.find(context[-length:])
                if place is not None and place.vertex.count > occurrences:
                    found, least = place, length
                else:
                    most = length - 1
            if found is None:
                return
            yield least, found
            most, occurrences = least - 1, found.vertex.count


class Text:
    """A text in a tree, which grows and can be cut back.

    Attributes:
        tokens: all of it.
        oldest: its suffixes from this one on are in the tree.
        listed: whether the tree counts it among its texts.
    """

    __slots__ = ("_ends", "_tree", "listed", "oldest", "tokens")

    def __init__(self, tree: SuffixTree) -> None:
        self._tree = tree
        self._ends: deque[Vertex] = deque()  # of the suffixes shorter than `depth`, the longest first
        self.tokens: list[int] = []
        self.oldest = 0
        self.listed = False

    @property
    def empty(self) -> bool:
        """Whether none of its suffixes is in the tree."""
        return self.oldest == len(self.tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Add tokens; costs at most `depth` small steps each."""
        root = self._tree.root
        for token in tokens:
            self.tokens.append(token)
            root.count += 1
            self._ends.append(root)
            self._ends = deque([self._moved(end, token) for end in self._ends])
            if len(self._ends) == self._tree.depth:
                self._ends.popleft()
            self._tree.grown(self)

    def _moved(self, end: Vertex, token: int) -> Vertex:
        """Where the suffix that ended at `end` ends with `token`, just added. Vertices exist where one must."""
        own, stop = self.tokens, len(self.tokens)
        child = end.children.get(token)
        if child is None:
            if end.count > 1 or end.parent is end:
                child = Vertex(own, stop - 1, stop, 1, end)
                end.children[token] = child
                return child
            end.start, end.stop, end.tokens = stop - 1 - (end.stop - end.start), stop, own
            return end
        alone = end.count == child.count + 1 and end.parent is not end  # nothing branches or ends at `end` any more
        if child.stop - child.start == 1:
            child.count += 1
            if alone:
                end.dissolve()
            return child
        child.start += 1
        if alone:
            end.start, end.stop, end.tokens = stop - 1 - (end.stop - end.start), stop, own
            del end.children[token]
            end.hang(child)
            return end
        middle = Vertex(own, stop - 1, stop, child.count + 1, end)
        end.children[token] = middle
        middle.hang(child)
        return middle

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        before, depth = len(self.tokens), self._tree.depth
        if length >= before:
            return
        first = max(self.oldest, length - depth + 1)  # the suffixes from here on reach beyond `length`
        for start in range(first, before):
            self._tree.remove(self.tokens, start, min(start + depth, before))
        self.tokens = self.tokens[:length]  # a copy: labels may point to what is cut off here
        ends = (self._tree.insert(self.tokens, start, length) for start in range(first, length))
        self._ends = deque(ends)
        kept = min(self.oldest, length)
        self._tree.held -= (before - self.oldest) - (length - kept)
        self.oldest = kept

    def forget_oldest(self) -> None:
        """Take its oldest suffix out of the tree."""
        stop = min(self.oldest + self._tree.depth, len(self.tokens))
        self._tree.remove(self.tokens, self.oldest, stop)
        if len(self._ends) == len(self.tokens) - self.oldest:
            self._ends.popleft()
        self.oldest += 1
        self._tree.held -= 1

    def matches(self) -> Iterator[tuple[int, Place]]:
        """`(length, place)` of its last tokens where they stood before, as of `SuffixTree.matches`."""
        length, occurrences = len(self._ends), 0
        for end in self._ends:
            if end.count > occurrences and end.children:  # something followed
                yield length, Place(end, end.stop - end.start)
                occurrences = end.count
            length -= 1


def _common(label: Sequence[int], tokens: Sequence[int], start: int, stop: int) -> int:
    """Number of leading tokens that `label` shares with `tokens[start:stop]`."""
    if label == tokens[start : start + len(label)] and start + len(label) <= stop:
        return len(label)
    shared = 0
    for token in label:
        if start + shared == stop or tokens[start + shared] != token:
            break
        shared += 1
    return shared


# --- what comes next --------------------------------------------------------------------------------------------------


def likeliest_path(place: Place, most: int, least: float) -> Guess:
    """Up to `most` tokens, each the most frequent one, while the path's probability is at least `least`."""
    vertex, used, probability = place.vertex, place.used, 1.0
    found = Guess()
    while len(found.tokens) < most:
        begin = vertex.start + used
        for token in vertex.tokens[begin : min(vertex.known, begin + most - len(found.tokens))]:
            found.add(len(found.tokens) - 1, token, probability)
        if not vertex.children:
            break
        best = max(vertex.children.values(), key=_count)
        probability *= best.count / vertex.count
        if probability < least:
            break
        vertex, used = best, 0
    return found


def likeliest_tree(place: Place, most: int, least: float) -> Guess:
    """The `most` tokens of the highest probability, of at least `least`, that hang together."""
    found = Guess()
    heap: list[tuple[float, int, int, Vertex, int]] = []
    pushed = 0

    def push(parent: int, vertex: Vertex, used: int, probability: float) -> None:
        """The tokens that come after `used` tokens of the vertex's label."""
        nonlocal pushed
        inside = vertex.start + used < vertex.known
        following = [(vertex, used, vertex.count)] if inside else [(c, 0, c.count) for c in vertex.children.values()]
        for below, begin, count in following:
            chance = probability * count / vertex.count
            if chance >= least:
                heapq.heappush(heap, (-chance, pushed, parent, below, begin))
                pushed += 1

    push(-1, place.vertex, place.used, 1.0)
    while heap and len(found.tokens) < most:
        negative, _, parent, vertex, used = heapq.heappop(heap)
        added = found.add(parent, vertex.tokens[vertex.start + used], -negative)
        push(added, vertex, used + 1, -negative)
    return found


def best_guess(
    matches: Iterable[tuple[int, Place]],
    budget: Callable[[int], int],
    grow: Callable[[Place, int, float], Guess],
    least: float,
) -> Guess:
    """The guess of the highest score over all matches, of the longest match on ties.

    Args:
        matches: `(length, place)`, the longest first.
        budget: tokens that a match of a length is trusted for; must not fall with the length.
        grow: `likeliest_path` or `likeliest_tree`.
        least: see there.
    """
    best = Guess()
    for length, place in matches:
        most = budget(length)
        if most <= best.score:  # no token counts for more than one, so no shorter match can do better
            break
        guess = grow(place, most, least)
        if guess.score > best.score:
            best = guess
    return best


def _count(vertex: Vertex) -> int:
    return vertex.count
