"""Prompts, strategies and small helpers that the tests of the public face share."""

import pytest

from treille.strategies import beam, best_of_n, diverse_beam, first_finish, greedy, sample, self_consistency
from treille.strategy import Configured, StrategyInfo

PROMPTS = ["hello", "a b", "x", "the end.", "12"]
STRATEGIES = [
    greedy(), sample(), beam(width=3), diverse_beam(width=4, groups=2), best_of_n(n=3), first_finish(n=3),
    self_consistency(n=3, extract=len), beam(width=2, early_stopping="never", length_penalty=0.0),
]  # fmt: skip


def adhoc(function):
    """A generator function as an unregistered strategy."""
    return Configured(StrategyInfo(function.__name__, function, "", "", "", do_sample=False), {}, {})


def same(one, other):
    """Whether two generations have the same candidates; log-probabilities up to the rounding of batched sums."""
    assert [c.tokens for c in one.candidates] == [c.tokens for c in other.candidates]
    assert [c.text for c in one.candidates] == [c.text for c in other.candidates]
    assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    return True
