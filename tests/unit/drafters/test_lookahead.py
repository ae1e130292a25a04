"""Lookahead decoding: the window against a simulation with explicit contexts, and the pool it fills."""

from __future__ import annotations

import pytest
from driving import TARGET, as_draft, host, run, text

from treille.drafters._windows import filler
from treille.drafters.base import Budget, Observation
from treille.drafters.lookahead import Column, Pool, lookahead
from treille.errors import ParameterError
from treille.requests import Choice
from treille.strategies import greedy, sample
from treille.testing import TableModel, assert_lossless, enumerate_outputs, run_alone

AMPLE = Budget(64, 32)


def likeliest(model, path):
    """The lowest id among the most probable tokens."""
    law = model.law(path)
    return law.index(max(law))


class Window:
    """The window from its definition: rows of iterations, and for every token the context that it sees."""

    def __init__(self, model, text, width, n):
        self.model, self.n, self.ages = model, n, [0] * width
        self.rows = [[filler(text, len(text) + i + j) for i in range(width)] for j in range(n - 1)]
        self.grams = []

    def step(self, text):
        """One iteration: the last row's tokens see the text, row 0 up to their column, and their column."""
        newest = []
        for i in range(len(self.ages)):
            context = [*text, *self.rows[0][: i + 1], *(row[i] for row in self.rows[1:])]
            newest.append(likeliest(self.model, context))
            if self.ages[i] >= self.n - 2:
                self.grams.append((*(row[i] for row in self.rows), newest[-1]))
            self.ages[i] += 1
        self.rows = [*self.rows[1:], newest]


@pytest.mark.parametrize(("width", "n"), [(1, 2), (3, 2), (2, 3), (3, 4)])
def test_window_is_that_of_the_definition(width, n):
    """Rows after several iterations, and the n-grams of the pool, on tables whose law depends on the whole path."""
    for seed in range(10):
        model = TableModel.random(3, seed)
        process = run([0, 1, 2, 1], do_sample=False)
        drafter = lookahead(host(), window=width, n=n, guesses=100, from_prompt=False)
        naive = Window(model, [0, 1, 2, 1], width, n)
        node = process.tip
        for _ in range(6):
            tree = drafter.lookup(process, node, Budget(1000, 32))
            picks = [likeliest(model, at.path.tolist()) for at in tree.nodes]
            readings = [(Choice(pick, 0.0, 0.0),) for pick in picks]
            naive.step(node.path.tolist())
            node = node.child(picks[0])  # a step of one token, whatever the drafts
            drafter.observe(Observation(node.path, node.length - 1, tree, (), readings))
            assert [
                list(row) for row in zip(*(column.tokens for column in drafter._columns), strict=True)
            ] == naive.rows
        assert {(token, *after) for token in range(3) for after in drafter.pool.after(token)} == set(naive.grams)


def test_positions_of_the_window():
    """Token i of row j stands i + j + 1 below the pending token: at the position it was guessed for."""
    drafter = lookahead(host(100), window=3, n=4, from_prompt=False)
    process = run([0, 1])
    drafter._columns = [Column((10 + i, 20 + i, 30 + i)) for i in range(3)]
    tree = drafter.lookup(process, process.tip, AMPLE)
    assert tree.size == 9
    for index in range(1, 10):
        row, column = divmod(tree.nodes[index].token, 10)
        assert tree.depths[index] == row - 1 + column + 1
        assert tree.path(index) == [10 + i for i in range(column + 1)] + [10 * j + column for j in range(2, row + 1)]


def test_pool_keeps_the_latest():
    """G continuations of a token, each once; seen again it is the latest, and the oldest goes."""
    pool = Pool(2)
    for continuation in [(1, 2), (3, 4), (1, 2), (5, 6)]:
        pool.add(0, continuation)
    assert pool.after(0) == [(5, 6), (1, 2)]
    assert pool.after(1) == []


def test_guesses_share_their_beginning():
    """Guesses are tried from the pending token on; a shared prefix is one node, so none is tested twice."""
    drafter = lookahead(host(10), window=1, n=3, guesses=3)
    for continuation in [(1, 2), (1, 3), (4, 5)]:
        drafter.pool.add(0, continuation)
    process = run([9, 0])
    tree = drafter.lookup(process, process.tip, AMPLE)
    tried = [trial.token for trial in tree.trials[0]]
    assert tried[:2] == [4, 1]
    assert [trial.token for trial in tree.trials[tree.child(0, 1)]][:2] == [3, 2]


def test_pool_is_seeded_from_the_prompt():
    """Every n-gram of the prompt, or none."""
    drafter = lookahead(host(10), n=3)
    drafter.observe(text(1, 2, 3, 1, 4, 5))
    assert drafter.pool.after(1) == [(4, 5), (2, 3)]
    assert drafter.pool.after(4) == []
    other = lookahead(host(10), n=3, from_prompt=False)
    other.observe(text(1, 2, 3, 1, 4, 5))
    assert other.pool.after(1) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 9, 20, 64])
@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_tree_is_within_the_budget(rows, depth):
    """Guesses take half of the rows at the most, whole columns the rest; nothing is deeper than allowed."""
    drafter = lookahead(host(10), window=7, n=4, guesses=7)
    drafter.observe(text(1, 2, 3, 4, 1, 2, 4, 3, 1, 3, 4, 5, 1))
    process = run([1, 2, 3, 4, 1, 2, 4, 3, 1, 3, 4, 5, 1])
    tree = drafter.lookup(process, process.tip, Budget(rows, depth))
    assert tree.size <= rows
    assert tree.depth <= depth


def test_an_unverified_window_waits():
    """A step in which nothing was drafted neither moves nor empties the window."""
    drafter = lookahead(host(10), window=2, n=3)
    process = run([1, 2, 3])
    tree = drafter.lookup(process, process.tip, AMPLE)
    readings = [(Choice(7, 0.0, 0.0),)] * len(tree.nodes)
    node = process.tip.child(7)
    drafter.observe(Observation(node.path, 3, tree, (), readings))
    before = list(drafter._columns)
    empty = type(tree)(node)
    drafter.observe(Observation(node.child(8).path, 4, empty, (), [(Choice(8, 0.0, 0.0),)]))
    assert drafter._columns == before
    assert all(column.tokens[-1] == 7 for column in before)


def test_the_end_of_a_text_does_not_fill_the_window():
    """An end token in a column is replaced, and guesses end with it."""
    drafter = lookahead(host(10), window=2, n=3)
    drafter.host = type(drafter.host)(drafter.host.target, drafter.host.find_model, eos_token_ids=frozenset((7,)))
    process = run([1, 2, 3], ends=(7,))
    tree = drafter.lookup(process, process.tip, AMPLE)
    readings = [(Choice(7, 0.0, 0.0),)] * len(tree.nodes)
    drafter.observe(Observation(process.tip.child(4).path, 3, tree, (), readings))
    assert all(7 not in column.tokens for column in drafter._columns)
    drafter.pool.add(4, (7, 1))
    tree = drafter.lookup(process, process.tip.child(4), AMPLE)
    assert tree.children(tree.child(0, 7)) == []


class two_guesses(lookahead):
    """A pool with two guesses of one prefix after every token."""

    def __init__(self, host, **given):
        super().__init__(host, **given)
        for token in range(3):
            self.pool.add(token, (1, 0))
            self.pool.add(token, (1, 2))


@pytest.mark.parametrize("verification", ["match", "rejection"])
def test_law_with_two_guesses_of_one_prefix(verification):
    """Rules V2 and V5: the joint law of four tokens, window and guesses in one tree."""
    plain = enumerate_outputs(sample(), TARGET, max_new_tokens=4)
    draft = as_draft(two_guesses, window=2, n=3, guesses=2)
    assert_lossless(sample(), plain, TARGET, draft=draft, verification=verification, max_new_tokens=4, draft_rows=12)


def test_a_cycle_is_drafted_from_the_window_alone():
    """On a deterministic cycle the pool fills without a prompt, and whole n-grams are accepted."""
    cycle = TableModel.markov([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    done = run_alone(greedy(), cycle, max_new_tokens=80, draft="lookahead:window=2,n=4,from_prompt=false")
    drafts = done.run.drafts
    assert drafts.emitted == 80
    assert drafts.emitted / drafts.steps > 2.5


@pytest.mark.parametrize("wrong", [{"window": 0}, {"n": 1}, {"guesses": 0}])
def test_wrong_values_are_refused(wrong):
    """Values that mean nothing are refused before the first token."""
    with pytest.raises(ParameterError):
        lookahead(host(), **wrong)
