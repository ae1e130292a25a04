"""ADED: weights of tri-grams, the search over them, and the tree of its paths."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from driving import host, run, text
from hypothesis import given, settings
from hypothesis import strategies as st

from treille.drafters._mcts import search
from treille.drafters._trigrams import NOWHERE, Trigrams
from treille.drafters.aded import GAIN, aded
from treille.drafters.base import Budget, Observation
from treille.errors import ParameterError
from treille.strategies import greedy
from treille.testing import TableModel, run_alone
from treille.train.datastore import build_datastore

AMPLE = Budget(64, 16)
TEXTS = st.lists(st.integers(0, 2), min_size=3, max_size=60)


@given(TEXTS)
def test_weights_have_a_closed_form(tokens):
    """The weight of a tri-gram is the gain times its count in the text, up to the cap; others have none."""
    table = Trigrams(cap=2.0)
    table.read(np.array(tokens), 0.5)
    counts: dict[tuple[int, ...], int] = {}
    for trigram in zip(tokens, tokens[1:], tokens[2:], strict=False):
        counts[trigram] = counts.get(trigram, 0) + 1
    for a in range(3):
        for b in range(3):
            for c in range(3):
                assert table.weight(a, b, c) == min(2.0, 0.5 * counts.get((a, b, c), 0))


@given(TEXTS, st.integers(1, 59))
def test_a_tri_gram_is_counted_once_however_the_text_comes(tokens, cut):
    """Steps of one token or of many give the same weights: slow steps do not count more."""
    whole, parts = aded(host(), warm=False), aded(host(), warm=False)
    whole.observe(text(*tokens))
    array = np.array(tokens, np.int32)
    for start in range(0, len(tokens), cut):
        parts.observe(Observation(array[: start + cut], start))
    assert all(
        whole.table.weight(a, b, c) == parts.table.weight(a, b, c)
        for a in range(3) for b in range(3) for c in range(3)
    )  # fmt: skip


def test_the_lightest_successor_makes_room():
    """A full row gives up its lightest successor, and the new one begins from nothing."""
    table = Trigrams(most=2)
    for third, weight in [(5, 0.9), (6, 0.3), (7, 0.2)]:
        table.add(1, 2, third, weight)
    assert [table.weight(1, 2, third) for third in (5, 6, 7)] == pytest.approx([0.9, 0.0, 0.2])


@given(TEXTS)
def test_links_lead_to_the_next_pair(tokens):
    """The successor c of the row (a, b) leads to the row (b, c)."""
    table = Trigrams(most=2)
    table.read(np.array(tokens), 0.5)
    for a in range(3):
        for b in range(3):
            row = table.row(a, b)
            for c, link in zip(table.tokens[row], table.links[row], strict=True) if row != NOWHERE else ():
                assert link == (NOWHERE if c == NOWHERE else table.row(b, int(c)))


def test_pairs_are_bounded():
    """Memory does not grow beyond the pairs allowed."""
    table = Trigrams(pairs=50)
    table.read(np.arange(1000), 0.5)
    assert table.row(10, 11) != NOWHERE
    assert table.row(500, 501) == NOWHERE
    assert len(table.tokens) <= 64


@given(st.lists(st.lists(st.integers(0, 3), max_size=30), max_size=3))
def test_a_corpus_gives_relative_frequencies(chunks):
    """T[(a, b)][c] is the share of c among what follows a, b; ids beyond the vocabulary (3) separate documents."""
    table = Trigrams.counted([np.array(chunk, np.uint32) for chunk in chunks], 3, 12, 3.0)
    counts = Counter(
        trigram
        for tokens in chunks
        for trigram in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if max(trigram) < 3
    )
    for a, b, c in np.ndindex(3, 3, 3):
        total = sum(counts[a, b, other] for other in range(3))
        assert table.weight(a, b, c) == pytest.approx(counts[a, b, c] / total if total else 0)


def test_only_the_heaviest_successors_of_a_corpus_are_kept():
    """Of five successors the two most frequent."""
    text = [0, 1, 2, 0, 1, 3, 0, 1, 2, 0, 1, 4, 0, 1, 3, 0, 1, 5, 0, 1, 2]
    table = Trigrams.counted([np.array(text)], 10, 2, 3.0)
    assert [table.weight(0, 1, third) for third in (2, 3, 4, 5)] == pytest.approx([3 / 7, 2 / 7, 0, 0])


def test_a_datastore_is_where_it_starts(tmp_path):
    """Drafts before anything was seen; what a text adds stays out of the corpus."""
    build_datastore([[1, 2, 3, 4, 5]], tmp_path / "store", vocab_size=10)
    memory = {}
    drafter = aded(host(10, memory), datastore=str(tmp_path / "store"), warm=False)
    process = run([1, 2])
    tree = drafter.lookup(process, process.tip, AMPLE)
    assert tree.path(tree.size) == [3, 4, 5]
    drafter.observe(text(1, 2, 9))
    assert drafter.table.weight(1, 2, 9) > 0
    assert aded(host(10, memory), datastore=str(tmp_path / "store"), warm=False).table.weight(1, 2, 9) == 0


def heaviest_path(table, first, second, depth):
    """The tokens of the path with the largest sum of weights, by looking at all of them."""
    best = (0.0, [])
    row = table.row(first, second)
    if depth and row != NOWHERE:
        for token in table.tokens[row]:
            if token != NOWHERE:
                below = heaviest_path(table, second, int(token), depth - 1)
                best = max(best, (table.weight(first, second, int(token)) + below[0], [int(token), *below[1]]))
    return best


def most_visited(table, nodes, depth):
    """The tokens from the root down, the most visited child at every node."""
    path, node = [], 0
    for _ in range(depth):
        children = [at for at in range(1, len(nodes)) if nodes[at, 0] == node]
        if not children:
            break
        above, node = node, max(children, key=lambda at: nodes[at, 5])
        path.append(int(table.tokens[nodes[above, 2], nodes[node, 1]]))
    return path


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_the_heaviest_path(seed):
    """With many iterations and little exploration the most visited path is the heaviest (no cap)."""
    random = np.random.default_rng(seed)
    table = Trigrams(cap=1e9)
    for trigram in np.ndindex(3, 3, 3):
        table.add(*trigram, float(random.uniform(0.1, 3)))
    nodes = search(table.weights, table.links, table.row(0, 1), 20_000, 3, 0.3, 8.0, seed)
    assert most_visited(table, nodes, 3) == heaviest_path(table, 0, 1, 3)[1]


@settings(deadline=None)
@given(TEXTS, st.integers(1, 200), st.integers(1, 4))
def test_every_iteration_visits_one_path(tokens, iterations, depth):
    """The root is visited once an iteration, a node as often as its children and the visits that ended there."""
    table = Trigrams()
    table.read(np.array(tokens), 0.5)
    start = table.row(tokens[-2], tokens[-1])
    nodes = search(table.weights, table.links, start, iterations, depth, 32.0, 8.0, 1)
    assert nodes[0, 5] == iterations
    for at in range(1, len(nodes)):
        assert nodes[at, 0] < at
        assert nodes[at, 5] <= nodes[nodes[at, 0], 5]
    for at in range(len(nodes)):
        children = nodes[1:][nodes[1:, 0] == at]
        assert children[:, 5].sum() <= nodes[at, 5]


def test_drafts_follow_the_text():
    """After a repeated passage the tree holds its continuation, and the same text gives the same tree again."""
    tokens = [1, 2, 3, 4, 5, 6, 9, 1, 2, 7, 9, 1, 2]
    process = run(tokens)
    trees = []
    for _ in range(2):
        drafter = aded(host(10), warm=False)
        drafter.observe(text(*tokens))
        tree = drafter.lookup(process, process.tip, AMPLE)
        trees.append([tree.path(index) for index in range(1, tree.size + 1)])
    assert trees[0] == trees[1]
    assert [3, 4, 5, 6, 9] in trees[0]  # four by the search, and the heaviest successor
    assert [7, 9, 1, 2] in trees[0]


def test_budget_end_of_text_and_unseen_pairs():
    """Within rows and depth, nothing below an end token, nothing after a pair that was never seen."""
    tokens = [1, 2, 3, 4, 1, 2, 4, 4, 1, 2]
    drafter = aded(host(10), warm=False)
    drafter.observe(text(*tokens))
    for rows, depth in [(1, 9), (3, 1), (5, 2)]:
        process = run(tokens)
        tree = drafter.lookup(process, process.tip, Budget(rows, depth))
        assert 0 < tree.size <= rows
        assert tree.depth <= depth
    process = run(tokens, ends=(4,))
    tree = drafter.lookup(process, process.tip, AMPLE)
    assert all(tree.nodes[parent].token != 4 for parent in tree.parents[1:])
    for unseen in ([7, 8], [5]):
        process = run(unseen)
        assert drafter.lookup(process, process.tip, AMPLE).size == 0


def test_gain_is_that_of_all_windows():
    """A tri-gram stands in 14 windows of 16 tokens, for 0.04 each."""
    assert pytest.approx(0.04 * (16 - 3 + 1)) == GAIN


def test_a_cycle_is_drafted():
    """On a deterministic cycle of three tokens every draft is accepted, four or five tokens at a time."""
    cycle = TableModel.markov([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    drafts = run_alone(greedy(), cycle, prompt=(0, 1, 2, 0, 1, 2, 0), max_new_tokens=60, draft="aded").run.drafts
    assert drafts.kept == drafts.tried
    assert drafts.emitted / drafts.steps == 6


@pytest.mark.parametrize(
    "wrong", [{"iterations": 0}, {"depth": 0}, {"exploration": -1.0}, {"damping": 0.0}, {"gain": 0.0}]
)
def test_wrong_values_are_refused(wrong):
    """Values that mean nothing are refused before the first token."""
    with pytest.raises(ParameterError):
        aded(host(), **wrong)
