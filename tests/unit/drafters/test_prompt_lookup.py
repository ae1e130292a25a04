"""Prompt lookup, and the index of n-grams that it shares with CopySpec."""

from __future__ import annotations

import numpy as np
import pytest
from driving import host, run, text
from hypothesis import given
from hypothesis import strategies as st

from treille.drafters._ngrams import NgramIndex
from treille.drafters.base import Budget
from treille.drafters.prompt_lookup import prompt_lookup
from treille.errors import ParameterError

AMPLE = Budget(64, 64)
LETTERS = st.lists(st.integers(0, 2), min_size=1, max_size=40)


def scanned(tokens: list[int], sizes: list[int], most: int, *, latest: bool) -> list[int]:
    """What the index should find: the definition, by a scan of the whole text."""
    for n in sizes:
        places = [i for i in range(len(tokens) - n) if tokens[i : i + n] == tokens[len(tokens) - n :]]
        if n <= len(tokens) and places:
            begin = places[-1 if latest else 0] + n
            copied = list(tokens)
            for at in range(most):  # token by token, so that a copy can reach into itself
                copied.append(copied[begin + at])
            return copied[len(tokens) :]
    return []


def proposal(drafter: prompt_lookup, tokens: list[int], budget: Budget = AMPLE) -> list[int]:
    """The drafted chain."""
    asked = run(tokens)
    tree = drafter.lookup(asked, asked.tip, budget)
    assert tree.depth == tree.size
    return tree.path(tree.size)


@given(tokens=LETTERS, most=st.integers(1, 6), latest=st.booleans(), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_the_index_finds_what_a_scan_finds(tokens, most, latest, cuts):
    """For all texts, also after the text was cut back and grew again, token by token or at once."""
    sizes = [3, 2, 1]
    index = NgramIndex(sizes)
    index.extend(np.array(tokens), 0)
    for cut in cuts:
        length = min(cut, len(tokens))
        index.truncate(length)
        for stop in range(length + 1, len(tokens) + 1):
            index.extend(np.array(tokens[:stop]), stop - 1)
    assert index.continuation(most, latest=latest) == scanned(tokens, sizes, most, latest=latest)


def test_a_lookup_costs_the_same_at_every_length():
    """One key per size, whatever the text's length: no scan."""

    class Counting(NgramIndex):
        keys = 0

        def key(self, start, stop):
            self.keys += 1
            return super().key(start, stop)

    for length in (40, 4000):
        index = Counting([3, 2, 1])
        index.extend(np.arange(length), 0)
        index.keys = 0
        assert index.continuation(8, latest=True) == []
        assert index.keys == 3


def test_the_longest_gram_goes_first_and_the_pick_decides_among_its_places():
    """`1 2` stood twice; `2` alone stood later, but one token is less than two."""
    tokens = [1, 2, 5, 1, 2, 6, 2, 7, 1, 2]
    for pick, wanted in (("latest", [6, 2]), ("earliest", [5, 1])):
        drafter = prompt_lookup(host(9), n_max=2, k=2, pick=pick)
        drafter.observe(text(*tokens))
        assert proposal(drafter, tokens) == wanted


def test_a_match_near_the_end_is_no_dummy_and_no_loss():
    """Fewer than k tokens follow: the copy goes on in itself; without a match nothing is drafted."""
    drafter = prompt_lookup(host(9), k=5)
    drafter.observe(text(7, 1, 2, 1, 2))
    assert proposal(drafter, [7, 1, 2, 1, 2]) == [1, 2, 1, 2, 1]
    drafter = prompt_lookup(host(9))
    drafter.observe(text(1, 2, 3))
    assert proposal(drafter, [1, 2, 3]) == []


def test_nothing_is_drafted_after_the_end():
    """A copied end token is the last one."""
    drafter = prompt_lookup(host(9), k=4)
    drafter.observe(text(1, 2, 3, 4, 1))
    asked = run([1, 2, 3, 4, 1], ends=(3,))
    assert drafter.lookup(asked, asked.tip, AMPLE).size == 2


def test_the_budget_holds():
    """Neither more rows nor more depth than there are."""
    drafter = prompt_lookup(host(9), k=5)
    drafter.observe(text(1, 1, 1, 1))
    assert len(proposal(drafter, [1, 1, 1, 1], Budget(3, 9))) == 3
    assert len(proposal(drafter, [1, 1, 1, 1], Budget(9, 2))) == 2


@pytest.mark.parametrize("wrong", [{"k": 0}, {"n_min": 0}, {"n_max": 1, "n_min": 2}, {"pick": "best"}])
def test_refusals(wrong):
    """Values that cannot be honoured are named."""
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        prompt_lookup(host(), **wrong)
