"""Segments and their handles against lists of values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_model import Shadow

from treille.cache.segments import FOLD, Accounts, Rows
from treille.errors import InternalError

OPERATIONS = ["extend", "extend", "extend", "tip", "tip", "root", "shorten", "drop", "drop", "release", "trim"]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    slots=st.sampled_from([40, 200, 2000]),
    steps=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 10**6), st.integers(1, 12)), max_size=50),
)
def test_every_handle_reads_its_own_rows(slots, steps):
    """Whatever is extended, forked, shortened, dropped, folded or released: every live handle's rows stay right."""
    shadow = Shadow(slots)
    for kind, pick, count in steps:
        if kind == "root" or not shadow.live:
            shadow.extend(None, count)
        elif kind == "tip":
            shadow.extend(len(shadow.live) - 1, count)
        elif kind == "extend":
            shadow.extend(pick % len(shadow.live), count)
        elif kind == "shorten":
            shadow.shorten(pick % len(shadow.live), count)
        elif kind == "trim":
            shadow.store.trim()
        else:
            getattr(shadow, kind)(pick % len(shadow.live))
        shadow.check()
    shadow.live.clear()
    assert shadow.store.accounts().free == slots
    assert not shadow.store.live
    assert shadow.memory.data.isnan().all()  # debug mode has poisoned all that was freed


def test_a_decode_continues_in_place():
    """A path without forks stays one segment, however long it grows."""
    shadow = Shadow(1000)
    shadow.extend(None, 5)
    for _ in range(300):
        shadow.extend(0, 1)
        shadow.drop(0)
    shadow.check()
    assert len(shadow.store.live) == 1


def test_an_orphaned_fork_is_folded_back():
    """Once its siblings are gone, a short fork moves into its parent's run; a long one stays where it is."""
    for length in (FOLD, FOLD + 1):
        shadow = Shadow(1000)
        shadow.extend(None, 10)
        shadow.extend(0, 1)
        shadow.extend(0, length)  # a fork beside the line above
        shadow.drop(1)
        assert len(shadow.store.live) == 2
        shadow.extend(1, 1)
        shadow.check()
        assert len(shadow.store.live) == (1 if length <= FOLD else 2)


def test_folding_moves_each_handle_once():
    """A handle taken again where an earlier one was dropped is one handle, also after its segment was folded."""
    shadow = Shadow(1000)
    shadow.extend(None, 10)
    shadow.extend(0, 1)
    shadow.extend(0, 1)  # forks
    shadow.extend(2, 1)
    shadow.extend(3, 1)
    shadow.drop(3)
    shadow.shorten(3, 1)  # a handle at the same row again
    shadow.drop(1)
    shadow.extend(2, 1)  # folds
    shadow.check()
    assert len(shadow.store.live) == 1
    shadow.live.clear()
    assert shadow.store.accounts().free == 1000


def test_a_chain_of_forks_longer_than_the_stack_is_freed():
    """Dropping the tip of thousands of nested forks frees all of them."""
    shadow = Shadow(60_000)
    shadow.extend(None, 1)
    root = tip = shadow.live[0][0]
    kept = [root]
    for _ in range(1500):
        branches = []
        for _ in range(2):
            segment, at, _ = shadow.store.reserve(tip, 1)
            branches.append(Rows(segment, at + 1, "node"))
        kept += branches
        tip = branches[1]
    assert len(tip.segment.lineage) == 1500
    shadow.live.clear()
    del kept, branches, root, segment
    tip.release()
    assert shadow.store.accounts().free == 60_000


def test_reserves_are_taken_back():
    """Out of slots changes nothing; trimming leaves each segment its rows only, so that memory can be filled."""
    shadow = Shadow(20)
    assert shadow.extend(None, 7)
    assert not shadow.extend(None, 7)  # the first one holds the rest in reserve
    assert shadow.store.trim()
    assert shadow.store.accounts().free == 13
    assert shadow.extend(None, 7)
    shadow.store.trim()
    assert shadow.extend(0, 30)
    shadow.check()
    assert [len(values) for _, values in shadow.live] == [7, 7, 13]
    assert not shadow.extend(0, 1)
    assert not shadow.store.trim()
    shadow.drop(1)
    assert shadow.extend(1, 1)
    shadow.check()


def test_rows_that_only_the_cache_holds_are_evictable():
    """Accounts tell what nodes need from what the prefix cache could give up."""
    shadow = Shadow(500)
    shadow.extend(None, 40)
    shadow.shorten(0, 8)
    shadow.extend(0, 6)
    assert (shadow.store.accounts().protected, shadow.store.accounts().evictable) == (46, 0)
    shadow.drop(2)
    shadow.drop(0)
    assert (shadow.store.accounts().protected, shadow.store.accounts().evictable) == (0, 32)


def test_misuse_shows():
    """Rows used after their release, accounts that do not add up and slots of others are internal errors."""
    shadow = Shadow(50)
    shadow.extend(None, 3)
    rows = shadow.live[0][0]
    segment = rows.segment
    rows.release()
    with pytest.raises(InternalError, match="after their release"):
        rows.length  # noqa: B018
    with pytest.raises(InternalError, match="still reads"):
        shadow.store.check_owner(segment, 3)
    with pytest.raises(InternalError, match="add up"):
        Accounts(1, 2, 3, 4, 11).check()
    shadow.live.clear()
    assert shadow.memory.data.dtype == torch.float64
