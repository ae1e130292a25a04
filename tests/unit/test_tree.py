"""Nodes and paths."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treille.tree import Node, common_length

STEPS = st.lists(
    st.tuples(
        st.integers(0, 30), st.sampled_from(["child", "extend", "cut"]), st.lists(st.integers(0, 99), min_size=1)
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=5), STEPS)
def test_paths_equal_their_tokens_after_any_forks_and_cuts(prompt, steps):
    """Whatever was grown, forked or dropped in between, every node's path is the tokens it was grown from."""
    known = [(Node.root(prompt), list(prompt))]
    for pick, kind, tokens in steps:
        node, path = known[pick % len(known)]
        if kind == "child":
            known.append((node.child(tokens[0]), [*path, tokens[0]]))
        elif kind == "extend":
            known.append((node.extend(tokens), path + tokens))
        elif len(known) > 1:
            del known[pick % len(known)]
    for node, path in known:
        assert node.path.tolist() == path
        assert node.length == len(path)
        assert node.token == path[-1]
        assert node.tokens.tolist() == path[node.start :]


def test_the_newest_node_grows_in_place():
    """A line of descent shares one buffer: growing a text of n tokens copies O(n) tokens in all, not O(n²)."""
    node, buffers = Node.root([1]), set()
    for token in range(10_000):
        node = node.child(token % 7)
        buffers.add(node._line.tokens.__array_interface__["data"][0])
    assert len(buffers) < 12


def test_a_long_chain_is_freed_without_recursion():
    """A chain of 200,000 nodes is dropped at once, and its tokens with it."""
    node = Node.root([0])
    for _ in range(200_000):
        node = node.child(1)
    last = weakref.ref(node)
    root = node
    while root.parent is not None:
        root = root.parent
    first = weakref.ref(root)
    del node, root
    gc.collect()
    assert last() is None
    assert first() is None


def test_a_branch_lives_as_long_as_its_tip():
    """Dropping one fork frees its own nodes and leaves the shared ones."""
    root = Node.root([1, 2])
    left, right = root.child(3), root.child(4)
    shared, gone = weakref.ref(root), weakref.ref(left)
    del root, left
    gc.collect()
    assert gone() is None
    assert shared() is right.parent


@pytest.mark.parametrize("make", [lambda: Node.root([]), lambda: Node.root([1]).extend([])])
def test_a_node_without_tokens_is_refused(make):
    """Roots and extensions hold at least one token."""
    with pytest.raises(ValueError, match="at least one token"):
        make()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=4))
def test_common_length_is_that_of_the_longest_common_prefix(tails):
    """Equal to comparing token by token, also when it starts from a shorter length that is known."""
    nodes = [Node.root([5, 5, *tail]) for tail in tails]
    wanted = 2
    while all(len(t) > wanted - 2 for t in tails) and len({t[wanted - 2] for t in tails}) == 1:
        wanted += 1
    assert common_length(nodes) == wanted
    assert common_length(nodes, known=2) == wanted


def test_tokens_are_int32_views():
    """Paths are views of int32 buffers, whatever sequence the tokens came in."""
    node = Node.root(np.array([1, 2, 3])).extend((4, 5))
    assert node.path.dtype == np.int32
    assert node.path.base is not None
    assert "length=5" in repr(node)
