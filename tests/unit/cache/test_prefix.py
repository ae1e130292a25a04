"""The prefix cache against a list of known sequences."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_model import Shadow

from treille.cache.prefix import BLOCK, NaivePrefixCache, PrefixCache

SLOTS = 4000
PARTS = st.lists(st.integers(0, 2), min_size=1, max_size=5)


def sequence(parts, extra):
    """Tokens that share whole and partial blocks with those of other parts."""
    return [token for part in parts for token in [part] * BLOCK] + [7] * extra


def insert(cache, shadow, tokens, chunks=1):
    """Compute `tokens` in several handles, the last of which the cache is given; nothing else keeps them."""
    size = -(-len(tokens) // chunks)
    for begin in range(0, len(tokens), size):
        shadow.extend(len(shadow.live) - 1 if begin else None, min(size, len(tokens) - begin))
    rows, values = shadow.live[-1]
    cache.insert(np.array(tokens, np.int32), rows)
    shadow.live.clear()
    return values


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    known=st.lists(st.tuples(PARTS, st.integers(0, BLOCK - 1), st.integers(1, 3)), max_size=6),
    asked=st.lists(st.tuples(PARTS, st.integers(0, BLOCK - 1)), min_size=1, max_size=6),
)
def test_the_longest_known_prefix_is_found(known, asked):
    """`match` covers as much as comparing with every known sequence, and its rows hold what was computed."""
    shadow, cache, naive, values = Shadow(SLOTS), PrefixCache(), NaivePrefixCache(), {}
    for parts, extra, chunks in known:
        tokens = sequence(parts, extra)
        computed = insert(cache, shadow, tokens, chunks)
        naive.insert(tokens)
        for stop in range(BLOCK, len(tokens) + 1, BLOCK):
            values.setdefault(tuple(tokens[:stop]), computed[stop - BLOCK : stop])
    for parts, extra in asked:
        tokens = sequence(parts, extra)
        rows = cache.match(np.array(tokens, np.int32))
        length = naive.match(tokens)
        assert (0 if rows is None else rows.length) == length
        if rows is not None:
            # A block's rows are those of the sequence that brought its path first.
            read = shadow.read(rows)
            blocks = [read[stop - BLOCK : stop] for stop in range(BLOCK, length + 1, BLOCK)]
            assert blocks[-1] == values[tuple(tokens[:length])]
    rows = None
    cache.clear()
    assert shadow.store.accounts().free == SLOTS


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    known=st.lists(st.tuples(PARTS, st.booleans()), min_size=1, max_size=8),
)
def test_eviction_never_leaves_a_path_without_its_beginning(known):
    """After any number of evictions what is left is a set of whole paths; rows are freed; leaves go before roots."""
    shadow, cache = Shadow(SLOTS), PrefixCache()
    kept = set()
    for parts, again in known:
        insert(cache, shadow, sequence(parts, 0))
        kept |= {tuple(parts[:i]) for i in range(1, len(parts) + 1)}
        if again:
            cache.match(np.array(sequence(known[0][0], 0), np.int32))
    assert len(cache) == len(kept)
    while kept:
        assert cache.evict()
        found = {parts for parts in kept if covered(cache, parts) == len(parts) * BLOCK}
        assert len(kept - found) == 1
        kept = found
        assert all(parts[:i] in kept for parts in kept for i in range(1, len(parts)))
    assert not cache.evict()
    assert shadow.store.accounts().free == SLOTS


def covered(cache, parts):
    """Tokens of a path that are known, without making it the most recently used one."""
    order = list(cache._entries)
    rows = cache.match(np.array(sequence(parts, 0), np.int32))
    for key in order:
        cache._entries.move_to_end(key)
    return 0 if rows is None else rows.length


def test_the_least_recently_used_path_goes_first():
    """A match makes a path recent: the other one's blocks are evicted before any of its own."""
    shadow, cache = Shadow(SLOTS), PrefixCache()
    old, new = np.array(sequence([0, 1], 0), np.int32), np.array(sequence([2, 2, 2], 0), np.int32)
    insert(cache, shadow, old.tolist())
    insert(cache, shadow, new.tolist())
    cache.match(old)
    for _ in range(3):
        cache.evict()
    assert cache.match(new) is None
    assert cache.match(old).length == 2 * BLOCK
    assert cache.hits == 4 * BLOCK


def test_a_match_protects_its_rows_from_eviction():
    """A handle that a run was given survives the eviction of every entry."""
    shadow, cache = Shadow(SLOTS), PrefixCache()
    values = insert(cache, shadow, sequence([0, 1], 3))
    rows = cache.match(np.array(sequence([0, 1], 9), np.int32))
    cache.clear()
    assert shadow.read(rows) == values[: 2 * BLOCK]
    assert shadow.store.accounts().protected == 2 * BLOCK
