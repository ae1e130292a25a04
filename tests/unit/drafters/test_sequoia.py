"""Sequoia's trees; the law of its texts is in tests/laws."""

from functools import cache

import pytest
from draft_tables import WIDE, proposed

from treille.drafters._sequoia import Trees
from treille.drafters.sequoia import measure_acceptance
from treille.errors import ParameterError
from treille.strategies import sample
from treille.testing import run_alone

A = (0.6, 0.2, 0.1)


def size(shape):
    """Nodes of a shape, its root counted."""
    return 1 + sum(map(size, shape))


def levels(shape):
    """Levels below the root of a shape."""
    return 1 + max(map(levels, shape)) if shape else 0


def expected(shape):
    """Expected length of the accepted path, its root counted."""
    return 1 + sum(a * expected(child) for a, child in zip(A, shape, strict=False))


@cache
def every(nodes, depth, most=3):
    """All shapes of so many nodes within a depth, with at most three children each."""
    if nodes == 1:
        return [()]
    if depth == 0:
        return []

    def forests(left, children):
        if left == 0:
            return [()]
        if children == 0:
            return []
        return [
            (first, *rest)
            for own in range(1, left + 1)
            for first in every(own, depth - 1)
            for rest in forests(left - own, children - 1)
        ]

    return [forest for forest in forests(nodes - 1, most) if forest]


def test_golden_lengths():
    """The card's values for a = (.6, .2, .1)."""
    trees = Trees(A, 8, 8)
    golden = [1, 1.6, 1.96, 2.176, 2.376, 2.5056, 2.6256, 2.7456]
    assert [trees.length(n, 8) for n in range(1, 9)] == pytest.approx(golden)
    assert trees.length(4, 1) == pytest.approx(1.9)


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_the_programme_finds_the_best_of_all_trees(depth):
    """Brute force over every tree of up to seven nodes."""
    trees = Trees(A, 7, depth)
    for nodes in range(1, 8):
        candidates = every(nodes, depth)
        if not candidates:
            assert trees.length(nodes, depth) == -float("inf")
            continue
        best = max(map(expected, candidates))
        assert trees.length(nodes, depth) == pytest.approx(best)
        shape = trees.shape(nodes, depth)
        assert expected(shape) == pytest.approx(best)
        assert size(shape) == nodes
        assert levels(shape) <= depth


def test_more_nodes_than_fit_give_the_largest_tree_that_fits():
    """One level of three positions has three nodes at the most."""
    assert Trees(A, 20, 1).shape(20, 1) == ((), (), ())
    assert Trees(A, 20, 4).shape(20, 0) == ()


def test_the_machine_chooses_the_size():
    """Free rows: the largest tree; rows that cost a whole pass each: no draft; a dear draft model: shallow."""
    trees = Trees(A, 8, 4)
    assert trees.fastest([1.0] * 8, 0.0)[0] == 8
    assert trees.fastest([float(n) for n in range(1, 9)], 0.0) == (1, 0)
    assert trees.fastest([1.0] * 8, 0.8)[1] == 1


def test_the_draft_has_the_best_shape():
    """The proposed tree is the programme's, within the rows and levels allowed."""
    tree, done = proposed("sequoia:rows=6,depth=3,acceptance=[0.6,0.2,0.1]", WIDE)
    wanted = Trees(A, 7, 3).shape(7, 3)
    assert len(tree.trials[0]) == len(wanted)
    assert [len(tree.trials[i]) for i in tree.children(0)] == [len(child) for child in wanted]
    assert done.forwards["draft"] == levels(wanted)
    small, _ = proposed("sequoia:rows=6,depth=3,acceptance=[0.6,0.2,0.1]", WIDE, rows=3, depth=1)
    assert small.size == 3
    assert small.depth == 1


def test_acceptance_is_measured_by_position():
    """On the golden laws: .6 for the first child, .764286 - .6 for the second; 4 sigma."""

    def generate(prompt, strategy, *, draft, draft_rows, governor, verification):
        assert (strategy, draft_rows, governor) == ("sample", 2, False)
        run_alone(sample(), WIDE, draft=draft, prompt=prompt, verification=verification, max_new_tokens=500)

    found = measure_acceptance(generate, [(0,), (1,), (2,)], width=2, verification="rejection")
    assert found == pytest.approx((0.6, 0.164286), abs=4 * (0.25 / 900) ** 0.5)


@pytest.mark.parametrize("value", ["[]", "[0.9,0.2]", "[-0.1]", "[0.0]", "all"])
def test_refusals(value):
    """The acceptance of distinct siblings is a part of one."""
    with pytest.raises(ParameterError, match=r"measure_acceptance|not a value of type Sequence\[float\]"):
        proposed(f"sequoia:acceptance={value}", WIDE)
