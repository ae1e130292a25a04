"""The dynamic tree of EAGLE-2; its law is in tests/laws."""

import random

import pytest
from draft_tables import MODELS, TARGET, proposed

from treille.drafters._best_nodes import Candidates
from treille.errors import ParameterError
from treille.testing import TableModel
from treille.tree import Node


def test_the_best_nodes_hold_their_parents():
    """Random scores with many exact ties, parents' among them: ancestor-closed, and no better set of that size."""
    rng = random.Random(0)
    for _ in range(300):
        found = Candidates(Node.root([0]))
        for _ in range(25):
            parent = rng.randrange(len(found.tokens))
            found.add(parent, rng.randrange(100), found.scores[parent] * rng.choice((1.0, 1.0, 0.5)))
        rows = rng.randrange(1, 20)
        best = found.best(rows)
        assert len(best) == rows
        assert all(found.parents[i] == 0 or found.parents[i] in best for i in best)
        assert sum(found.scores[i] for i in best) == sum(sorted(found.scores[1:], reverse=True)[:rows])


def test_a_wide_beam_finds_the_best_tree():
    """With a beam that loses nothing: the most probable paths of all, counted by hand."""
    tree, done = proposed("dynamic_tree:rows=9,k=3,depth=3")
    q, level, every = MODELS["draft"], {(): 1.0}, {}
    for _ in range(3):
        level = {(*path, t): p * float(q.law((0, *path))[t]) for path, p in level.items() for t in range(3)}
        every |= level
    found = sorted((every[tuple(tree.path(i))] for i in range(1, 10)), reverse=True)
    assert found == pytest.approx(sorted(every.values(), reverse=True)[:9])
    assert done.forwards["draft"] == 3


def test_a_certain_draft_gives_a_chain():
    """Probabilities of one tie with their parents: the chain has no hole."""
    sure = TableModel.markov([["0", "1", "0"], ["0", "0", "1"], ["1", "0", "0"]])
    tree, _ = proposed("dynamic_tree:rows=4,k=2,depth=6", {"target": TARGET, "draft": sure})
    assert tree.path(4) == [1, 2, 0, 1]


def test_nodes_that_cannot_be_chosen_are_not_computed():
    """A beam node below the M best ends there, which saves draft rows and changes no tree."""
    models = {"target": TARGET, "draft": TableModel.markov([["98/100", "1/100", "1/100"]] * 3)}
    _, done = proposed("dynamic_tree:rows=3,k=3,depth=3", models)
    assert done.rows["draft"] < 1 + 3 + 3
    assert done.forwards["draft"] == 3


def test_nodes_are_chosen_whatever_the_verification():
    """No law tags, so verification by rejection uses the one-hot rule."""
    tree, _ = proposed("dynamic_tree:rows=5", do_sample=True, verification="rejection")
    assert tree.size == 5
    assert not tree.sampled


def test_refusals():
    """Rows, width and depth are at least one."""
    for name in ("rows", "k", "depth"):
        with pytest.raises(ParameterError, match=f"{name}=0"):
            proposed(f"dynamic_tree:{name}=0")
