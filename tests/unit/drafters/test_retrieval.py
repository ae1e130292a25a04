"""Retrieval from a datastore (REST): search, trie, laws."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from driving import TARGET, host, run
from hypothesis import given, settings
from hypothesis import strategies as st

from treille.drafters import configured
from treille.drafters._datastore import NAME, ORDER, SEPARATOR, Chunk, Datastore, most_frequent, sorted_places
from treille.drafters.base import Budget, Host
from treille.drafters.retrieval import retrieval
from treille.errors import ParameterError
from treille.strategy import Hypothesis
from treille.testing import Letters, assert_lossless, describe_difference, enumerate_outputs
from treille.train.datastore import build_datastore

AMPLE = Budget(64, 64)
DOCUMENTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=6)


def stored(documents, chunk_tokens: int = 10**6) -> list[Chunk]:
    """Chunks of documents, in memory."""
    chunks, held = [], []
    for document in documents:
        held += [*document, SEPARATOR]
        if len(held) >= chunk_tokens:
            chunks, held = [*chunks, held], []
    arrays = [np.array(tokens, ">u4") for tokens in [*chunks, held] if tokens]
    return [Chunk(tokens, sorted_places(tokens)) for tokens in arrays]


def scanned(documents, context: list[int], longest: int, shortest: int, length: int) -> list[tuple[int, ...]]:
    """What followed the longest end of the context, by a scan of all documents."""
    for size in range(min(longest, len(context)), shortest - 1, -1):
        end = context[len(context) - size :]
        found = [
            tuple(document[at + size : at + size + length])
            for document in documents
            for at in range(len(document) - size + 1)
            if document[at : at + size] == end
        ]
        if found:
            return found
    return []


def frequent(found, most: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """`(-count, length, tokens)` of the most frequent beginnings."""
    counts = Counter(tokens[:length] for tokens in found for length in range(1, len(tokens) + 1))
    return sorted((-count, len(tokens), tokens) for tokens, count in counts.items())[:most]


@settings(max_examples=80)
@given(
    documents=DOCUMENTS,
    context=st.lists(st.integers(0, 2), min_size=1, max_size=10),
    longest=st.integers(1, 6),
    most=st.integers(1, 12),
    chunk_tokens=st.sampled_from([1, 20, 1000]),
)
def test_search_and_trie_are_those_of_a_scan(documents, context, longest, most, chunk_tokens):
    """Longest end first, all places of all chunks, nothing across documents; most frequent beginnings first."""
    store = Datastore.__new__(Datastore)
    store.chunks = tuple(stored(documents, chunk_tokens))
    rows = store.continuations(np.array(context, np.int32), longest=longest, shortest=1, length=4, most=10**6)
    found = scanned(documents, context, longest, 1, 4)
    assert len(rows) == len(found)
    guess = most_frequent(rows, 3, most)
    paths: list[tuple[int, ...]] = []
    for parent, token in zip(guess.parents, guess.tokens, strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    counts = [round(share * len(rows)) for share in guess.probabilities]
    assert [(-count, len(path), path) for count, path in zip(counts, paths, strict=True)] == frequent(found, most)


@settings(max_examples=60)
@given(tokens=st.lists(st.sampled_from([0, 1, SEPARATOR]), max_size=60))
def test_places_are_sorted_by_what_starts_there(tokens):
    """By the first ORDER tokens; separators are no places."""
    array = np.array([*tokens, SEPARATOR], ">u4")
    places = sorted_places(array).tolist()
    assert sorted(places) == [at for at, token in enumerate(tokens) if token != SEPARATOR]
    keys = [array[at : at + ORDER].tobytes() for at in places]
    assert keys == sorted(keys)


def test_many_hits_are_sampled_evenly():
    """Places are sorted by what follows: the first ones alone would only show small tokens."""
    (chunk,) = stored([[7, token] for token in range(1000)])
    low, high = chunk.find(np.array([7], ">u4").tobytes())
    assert high - low == 1001  # the document 7, 7 has two
    rows = chunk.rows(low, high, 1, 1, 100)
    assert rows.shape == (100, 1)
    assert rows[:, 0].min() < 20
    assert rows[:, 0][rows[:, 0] < SEPARATOR].max() > 980


def test_large_ids_are_kept_whole(tmp_path):
    """Ids beyond 16 bits, which the first REST writer folded onto small ones."""
    build_datastore([[70_000, 70_001, 70_002], [4464, 4465, 1]], tmp_path / "store", vocab_size=100_000)
    drafter = retrieval(host(100_000), datastore=str(tmp_path / "store"))
    asked = run([70_000, 70_001])
    tree = drafter.lookup(asked, asked.tip, AMPLE)
    assert tree.path(tree.size) == [70_002]


@pytest.fixture
def store(tmp_path) -> str:
    """Three documents over three tokens."""
    build_datastore([[0, 1, 0, 2, 1, 0], [1, 1, 0, 0, 2, 1], [2, 0, 0]], tmp_path / "store", vocab_size=3)
    return str(tmp_path / "store")


def test_nothing_matches_nothing_is_drafted(store):
    """No dummy token; a match at the end of a document neither."""
    drafter = retrieval(host(9), datastore=store)
    for tokens in ([5, 6], [2], [1, 0, 2, 1, 0, 8]):
        asked = run(tokens)
        assert drafter.lookup(asked, asked.tip, AMPLE).size == 0


def test_budget_and_ends(store):
    """Rows and depth hold, and nothing comes after a token that ends the text."""
    drafter = retrieval(host(3), datastore=store, shortest=1)
    asked = run([0])
    assert drafter.lookup(asked, asked.tip, Budget(2, 9)).size == 2
    assert drafter.lookup(asked, asked.tip, Budget(9, 1)).depth == 1
    ended = drafter.lookup(*[(asked := run([0], ends=(2,))), asked.tip], AMPLE)
    assert ended.size
    assert not [node for node in range(1, ended.size + 1) if ended.nodes[ended.parents[node]].token == 2]


def test_a_datastore_is_opened_once(store):
    """All runs of a language model share the mapped files."""
    memory = {}
    first, second = (configured("retrieval", datastore=store).open(host(3, memory)) for _ in range(2))
    assert first._store is second._store
    assert first.branch()._store is first._store


def sample_rows(children):
    """REST's published sampling: one draw per root-to-leaf row, the first row that agrees, else a fresh draw."""

    def strategy(run):
        yield from ()
        p = tuple(TARGET.law((0,)))
        draws = [run.random.categorical(p, 1, "row", row) for row in range(len(children))]
        right = [child for child, drawn in zip(children, draws, strict=True) if child == drawn]
        token = right[0] if right else run.random.categorical(p, 1, "fresh")
        return Hypothesis(run.tip.child(token))

    return strategy


def test_draws_per_row_are_not_lossless():
    """The mutant of the card: (.675, .255, .07) instead of (.5, .3, .2); the library's rule has the plain law."""
    law = enumerate_outputs(sample_rows([0, 1]), TARGET, prompt=(0,))
    assert law == {(0,): Fraction("0.675"), (1,): Fraction("0.255"), (2,): Fraction("0.07")}
    plain = enumerate_outputs(sample_rows([]), TARGET, prompt=(0,))
    assert plain == {(0,): Fraction("0.5"), (1,): Fraction("0.3"), (2,): Fraction("0.2")}
    assert describe_difference(law, plain)
    with pytest.raises(AssertionError, match="the laws differ"):
        assert_lossless(sample_rows([0, 1]), plain, TARGET, prompt=(0,))


def test_refusals(tmp_path, store):
    """A missing, broken or foreign datastore is named, with the way to a right one."""
    for wrong in ({"datastore": ""}, {"datastore": str(tmp_path / "none")}):
        with pytest.raises(ParameterError, match="treille train datastore"):
            retrieval(host(), **wrong)
    for wrong in ({"nodes": 0}, {"k": 0}, {"hits": 0}, {"shortest": 0}, {"longest": 1}, {"longest": ORDER + 1}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            retrieval(host(), datastore=store, **wrong)
    with pytest.raises(ParameterError, match="3 token ids, the target has 2"):
        retrieval(host(2), datastore=store)


def test_another_tokenizer_is_noticed(tmp_path):
    """By the text of some of its tokens."""
    build_datastore([[0, 1, 2]], tmp_path / "store", vocab_size=3, codec=Letters())
    sizes = host(3)
    assert retrieval(sizes, datastore=str(tmp_path / "store"))
    other = Host(sizes.target, sizes.find_model, codec=Letters(special=frozenset({1})))
    with pytest.raises(ParameterError, match="another tokenizer"):
        retrieval(other, datastore=str(tmp_path / "store"))


@pytest.mark.parametrize("broken", ["header", "format", "array", "kind"])
def test_broken_files_are_refused(tmp_path, store, broken):
    """Each names the file."""
    directory = tmp_path / "store"
    if broken == "header":
        (directory / NAME).write_text("{}")
    elif broken == "format":
        (directory / NAME).write_text(json.dumps({**json.loads((directory / NAME).read_text()), "format": 2}))
    elif broken == "array":
        (directory / "tokens-0000.npy").write_bytes(b"no array")
    else:
        np.save(directory / "places-0000.npy", np.zeros(3))
    wanted = NAME if broken in ("header", "format") else "npy"
    with pytest.raises(ParameterError, match=wanted):
        retrieval(host(), datastore=store)
