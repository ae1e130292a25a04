"""A datastore on disk: documents as token ids, with a suffix array that finds every place where some tokens stand.

A directory with `datastore.json` and, per chunk, two arrays: `tokens-0000.npy`, its documents one after the other with
a separator after each, and `places-0000.npy`, the indices of all tokens sorted by the `ORDER` tokens that start there.
Tokens are big-endian uint32, whose bytes sort as the numbers do. The arrays are mapped, not read.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treille.drafters._guess import Guess
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from treille.drafters.base import Host

SEPARATOR = 2**32 - 1
"""Stands after every document; no token has this id."""

ORDER = 32
"""Tokens by which places are sorted."""

TOKEN = np.dtype(">u4")
NAME = "datastore.json"
FORMAT = 1
WAY_OUT = "build one with: treille train datastore FILES… --out DIR"


@dataclass(frozen=True, slots=True)
class Header:
    """What `datastore.json` says.

    Attributes:
        format: of the files.
        vocab_size: of the model or tokenizer it was built for; every id is smaller.
        documents: how many there are.
        tokens: how many there are in all, separators not counted.
        chunks: how many there are.
        probe: the first tokens of the first document.
        text: their text, by which another tokenizer is noticed; None: not known.
    """

    format: int
    vocab_size: int
    documents: int
    tokens: int
    chunks: int
    probe: tuple[int, ...]
    text: str | None

    def write(self, directory: Path) -> None:
        """Write `datastore.json`; comes last, so that half a datastore is none."""
        (directory / NAME).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def read(directory: Path) -> Header:
        """What the file says.

        Raises:
            ParameterError: there is none, or it is of another format.
        """
        file = directory / NAME
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            header = Header(**{**found, "probe": tuple(found["probe"])})
        except OSError as error:
            where = f"datastore={str(directory)!r}"
            raise ParameterError(f"draft: {where}: is none ({error.strerror}); {WAY_OUT}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise ParameterError(f"draft: {file}: is no description of a datastore; {WAY_OUT}") from error
        if header.format != FORMAT:
            raise ParameterError(f"draft: {file}: format={header.format!r} is not {FORMAT}; {WAY_OUT}")
        return header

    def check(self, directory: str, host: Host) -> None:
        """Nothing, if the datastore was built for the host's target.

        Raises:
            ParameterError: it was built with another tokenizer.
        """
        if self.vocab_size > host.target.vocab_size:
            raise ParameterError(
                f"draft: datastore={directory!r}: was built for {self.vocab_size} token ids, the target has "
                f"{host.target.vocab_size}; build one with this model's tokenizer"
            )
        if self.text is not None and host.codec is not None and host.codec.decode(self.probe) != self.text:
            raise ParameterError(
                f"draft: datastore={directory!r}: was built with another tokenizer; build one with this model's"
            )


def places_file(chunk: int) -> str:
    """Name of a chunk's sorted places."""
    return f"places-{chunk:04}.npy"


def tokens_file(chunk: int) -> str:
    """Name of a chunk's tokens."""
    return f"tokens-{chunk:04}.npy"


def sorted_places(tokens: NDArray[Any]) -> NDArray[np.uint32]:
    """All indices of `tokens` but those of separators, sorted by the `ORDER` tokens that start there.

    Prefix doubling (Manber and Myers 1990), stopped at `ORDER`; works with about 50 bytes per token.
    """
    size, known = len(tokens), 1
    order, rank = _ranked(tokens.astype(np.int64))
    while known < ORDER and rank.max() < size - 1:
        after = np.zeros(size, np.int64)
        after[: max(0, size - known)] = rank[known:] + 1
        order, rank = _ranked(rank * (size + 1) + after)
        known *= 2
    places: NDArray[np.uint32] = order[tokens[order] != SEPARATOR].astype(np.uint32)
    return places


def _ranked(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices in the order of `keys`, and the rank of every key, equal for equal ones."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    rank = np.zeros(len(keys), np.int64)
    rank[order[1:]] = np.cumsum(in_order[1:] != in_order[:-1])
    return order, rank


class Chunk:
    """One chunk.

    Args:
        tokens: big-endian uint32, a separator at the end.
        places: as of `sorted_places`.
    """

    def __init__(self, tokens: NDArray[Any], places: NDArray[np.uint32]) -> None:
        self.tokens = tokens
        self.places = places
        self._bytes = tokens.view(np.uint8).data
        self._index = places.data

    @staticmethod
    def read(directory: Path, number: int) -> Chunk:
        """The chunk, mapped.

        Raises:
            ParameterError: a file is missing or is not what it should be.
        """
        arrays = []
        for name, kind in ((tokens_file(number), TOKEN), (places_file(number), np.dtype("<u4"))):
            try:
                array = np.load(directory / name, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise ParameterError(f"draft: {directory / name}: cannot be read ({error}); {WAY_OUT}") from error
            if array.dtype != kind or array.ndim != 1 or not len(array):
                raise ParameterError(f"draft: {directory / name}: holds {array.dtype} {array.shape}; {WAY_OUT}")
            arrays.append(np.asarray(array))
        return Chunk(*arrays)

    def find(self, wanted: bytes) -> tuple[int, int]:
        """The range of `places` at which tokens of these bytes stand. Takes log2(size) steps."""
        size = len(wanted)

        def at(place: int) -> bytes:
            return bytes(self._bytes[4 * place : 4 * place + size])

        low = bisect_left(self._index, wanted, key=at)
        if low == len(self._index) or at(self._index[low]) != wanted:
            return low, low
        return low, bisect_right(self._index, wanted, low, key=at)

    def rows(self, low: int, high: int, after: int, length: int, most: int) -> NDArray[np.uint32]:
        """What follows `after` tokens after places `low … high`, `[H, length]`; at most `most` of them, evenly taken.

        Places are sorted by what follows, so the first ones alone would be no fair sample.
        """
        picked = np.linspace(low, high - 1, min(most, high - low)).astype(np.int64)
        at = self.places[picked].astype(np.int64)[:, None] + np.arange(after, after + length)
        rows: NDArray[np.uint32] = self.tokens[np.minimum(at, len(self.tokens) - 1)].astype(np.uint32)
        return rows


class Datastore:
    """A datastore that is open for search.

    Args:
        header: what it says of itself.
        chunks: its documents.
    """

    def __init__(self, header: Header, chunks: Sequence[Chunk]) -> None:
        self.header = header
        self.chunks = tuple(chunks)

    @staticmethod
    def open(directory: str, host: Host) -> Datastore:
        """The datastore of a directory, for the host's target; opened once for all runs of a language model.

        Raises:
            ParameterError: there is none, or it was built with another tokenizer.
        """
        if not directory:
            raise ParameterError(f"draft: datastore='': a directory is needed; {WAY_OUT}")
        path = Path(directory)
        try:
            modified = (path / NAME).stat().st_mtime_ns
        except OSError:
            modified = 0  # reading it says what is wrong
        key = f"datastore:{directory}:{modified}"
        if key not in host.memory:
            found = _opened(path.absolute(), modified)
            found.header.check(directory, host)
            host.memory[key] = found
        known: Datastore = host.memory[key]
        return known

    def continuations(
        self, context: NDArray[Any], *, longest: int, shortest: int, length: int, most: int
    ) -> NDArray[np.uint32]:
        """What followed the longest end of `context` that occurs, `[H, length]`; ids beyond the vocabulary end a row.

        Args:
            context: token ids.
            longest: tokens to match at the most.
            shortest: tokens to match at the least; H is 0 where fewer occur.
            length: tokens of each continuation.
            most: continuations at the most, from each chunk an equal share.
        """
        found: list[tuple[int, int]] = []
        size, least, limit = 0, shortest, min(longest, len(context))
        wanted = context[len(context) - limit :].astype(TOKEN).tobytes()
        while least <= limit:  # where a longer end occurs, a shorter one does
            middle = (least + limit + 1) // 2
            ranges = [chunk.find(wanted[len(wanted) - 4 * middle :]) for chunk in self.chunks]
            if any(high > low for low, high in ranges):
                found, size, least = ranges, middle, middle + 1
            else:
                limit = middle - 1
        hit = [(chunk, low, high) for chunk, (low, high) in zip(self.chunks, found, strict=False) if high > low]
        share = max(1, most // max(1, len(hit)))
        rows = [chunk.rows(low, high, size, length, share) for chunk, low, high in hit]
        return np.concatenate(rows) if rows else np.empty((0, length), np.uint32)


@lru_cache(4)
def _opened(directory: Path, modified: int) -> Datastore:  # noqa: ARG001 - a datastore that was built anew is another
    """The datastore of a directory, mapped; known for as long as it is not modified."""
    header = Header.read(directory)
    return Datastore(header, [Chunk.read(directory, number) for number in range(header.chunks)])


# --- what came next most often ----------------------------------------------------------------------------------------


def most_frequent(rows: NDArray[np.uint32], vocab_size: int, most: int) -> Guess:
    """The `most` most frequent beginnings of `rows`, which form a tree, with their shares of all rows.

    Among equals the shorter one goes first, hence the parent before the child, then the smaller tokens.

    Args:
        rows: `[H, length]`; a row ends before the first id that is no token.
        vocab_size: number of token ids.
        most: tokens at the most.
    """
    guess = Guess()
    if not rows.size:
        return guess
    height = len(rows)
    rows = rows[np.lexsort(rows.T[::-1])]  # equal beginnings stand together
    alive = np.logical_and.accumulate(rows < vocab_size, axis=1)
    starts = np.ones(rows.shape, bool)  # where a beginning stands for the first time
    starts[1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
    flat = np.flatnonzero(starts.T)  # column by column; every column has a start in its first row
    counts = np.diff(flat, append=rows.size)
    depth, row = np.divmod(flat, height)
    known = np.flatnonzero(alive[row, depth])
    index: dict[tuple[int, ...], int] = {(): -1}
    for at in known[np.lexsort((row[known], depth[known], -counts[known]))[:most]]:
        tokens = tuple(rows[row[at], : depth[at] + 1].tolist())
        index[tokens] = guess.add(index[tokens[:-1]], tokens[-1], int(counts[at]) / height)
    return guess
