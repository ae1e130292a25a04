"""Laws of First Finish Search by exact enumeration."""

from collections import defaultdict
from fractions import Fraction

import pytest

from treille.requests import Gather
from treille.strategies import first_finish, sample
from treille.strategy import Output, complete
from treille.testing import TableModel, assert_lossless, enumerate_outputs

LIMITS = {"prompt": (0,), "max_new_tokens": 3, "eos_token_ids": (2,)}
MODEL = TableModel.random(3, 3)


def wanted_law(n):
    """P(text) = [(1 - F(l - 1))^n - (1 - F(l))^n] · P(text) / P(length = l)."""
    plain = enumerate_outputs(sample(), MODEL, **LIMITS)
    lengths = defaultdict(Fraction)
    for text, p in plain.items():
        lengths[len(text)] += p

    def longer(l):
        return sum((p for length, p in lengths.items() if length > l), Fraction(0))

    return {t: (longer(len(t) - 1) ** n - longer(len(t)) ** n) * p / lengths[len(t)] for t, p in plain.items()}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_length_and_content_law(n):
    """The length is the shortest of n; given the length, the text is a sample. n = 1 is sampling."""
    law = assert_lossless(first_finish(n=n), wanted_law(n), MODEL, **LIMITS)
    if n == 1:
        assert law == enumerate_outputs(sample(), MODEL, **LIMITS)


def test_another_n_is_told_apart():
    """Negative control: the law for n = 2 is not that for n = 3."""
    with pytest.raises(AssertionError, match="total variation"):
        assert_lossless(first_finish(n=2), wanted_law(3), MODEL, **LIMITS)


def test_closing_losers_changes_nothing():
    """The race has the law of running every branch to its end and taking the shortest, the first on ties."""

    def patient(run):
        found = yield Gather(*[complete(run.branch(i), run.start) for i in range(3)])
        return Output((min(found, key=lambda hypothesis: hypothesis.length),))

    assert_lossless(first_finish(n=3), patient, MODEL, do_sample=True, **LIMITS)


def test_the_last_of_equals_is_told_apart():
    """Negative control: breaking ties by content (the higher last token) is another law."""

    def picky(run):
        found = yield Gather(*[complete(run.branch(i), run.start) for i in range(3)])
        return Output((min(found, key=lambda hypothesis: (hypothesis.length, -hypothesis.node.token)),))

    with pytest.raises(AssertionError):
        assert_lossless(picky, wanted_law(3), MODEL, do_sample=True, **LIMITS)
