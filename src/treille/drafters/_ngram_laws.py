"""Laws of the next token by n-gram, averaged over what the target said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from treille.drafters._templates import Template, template_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from treille.strategy import Run

Context: TypeAlias = tuple[int, ...]


@dataclass(slots=True)
class Entry:
    """The law after an n-gram, averaged over `count` sights of it: the likeliest tokens, best first."""

    weights: dict[int, Any]
    count: int = 1

    def add(self, law: dict[int, Any], k: int) -> None:
        """Average `law` in, `(count · weights + law) / (count + 1)`, and keep the k likeliest."""
        old, new = self.weights, self.count + 1
        mixed = {token: (self.count * old.get(token, 0) + law.get(token, 0)) / new for token in {**old, **law}}
        best = sorted(mixed.items(), key=lambda item: (-item[1], item[0]))[:k]
        self.weights, self.count = dict(best), new


class Laws:
    """Entries by n-gram, the oldest n-gram forgotten first, and the shape of the trees."""

    def __init__(self, sizes: Sequence[int], k: int, entries: int, template: Any) -> None:
        self.sizes = sizes
        self.k = k
        self.most = entries
        self.entries: dict[Context, Entry] = {}
        self.template = Template(template_paths(template, k))

    def learn(self, context: Context, law: dict[int, Any]) -> None:
        """Average `law` into the entry of every n-gram that ends `context`."""
        for n in self.sizes:
            if n <= len(context):
                key = context[-n:]
                if (entry := self.entries.get(key)) is not None:
                    entry.add(law, self.k)
                else:
                    self.entries[key] = Entry(law)
        while len(self.entries) > self.most:
            del self.entries[next(iter(self.entries))]

    def find(self, context: Context) -> Entry | None:
        """The entry of the longest n-gram that ends `context`."""
        for n in self.sizes:
            if n <= len(context) and (entry := self.entries.get(context[-n:])) is not None:
                return entry
        return None


def ordered(run: Run, entry: Entry, position: int, noise: NDArray[Any] | None) -> list[int]:
    """An entry's tokens, the one first that the target's own noise at `position` would draw from it.

    Matching asks for the target's draw, and two draws with one noise agree more often than the likeliest token does:
    with Gumbel noise (`noise`, `[V]`) the whole order is the noisy one, as in the paper; with one uniform number its
    draw comes first.
    """
    tokens = list(entry.weights)
    if not run.do_sample:
        return tokens
    if noise is not None:
        return sorted(tokens, key=lambda token: -(math.log(entry.weights[token]) + noise[token]))
    by_id = sorted(tokens)  # the order of the target's cumulative sum
    first = by_id[run.random.categorical([entry.weights[token] for token in by_id], position, "sample")]
    return [first, *(token for token in tokens if token != first)]


def likeliest(reading: Any, k: int) -> dict[int, Any]:
    """Probabilities of the k likeliest tokens, best first; exact where the reading is."""
    if not isinstance(reading, np.ndarray):
        return {token: math.exp(logprob) for token, logprob in zip(reading.tokens, reading.logprobs, strict=True)}
    best = np.argsort(-reading, kind="stable")[:k]
    return {int(token): reading[token] for token in best if reading[token] > 0}
