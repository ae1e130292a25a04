"""Exact output laws by replay."""

from fractions import Fraction

import pytest

from treille.errors import ParameterError
from treille.requests import Distribution, Forward
from treille.sampling.chain import Chain
from treille.sampling.truncation import Xtc
from treille.strategies import greedy, sample
from treille.strategy import Hypothesis
from treille.testing import TableModel, assert_lossless, describe_difference, enumerate_outputs

MODEL = TableModel.markov([["1/2", "1/3", "1/6"]] * 3)


def drawing(draw):
    """The law of a function of the run's randomness."""

    def strategy(run):
        yield from ()
        return draw(run.random)

    return enumerate_outputs(strategy, MODEL, key=lambda done: done.output)


def test_deterministic_strategies_have_one_output():
    """Greedy has its text with probability one."""
    assert enumerate_outputs(greedy(), MODEL) == {(0, 0, 0, 0): Fraction(1)}


def test_bernoulli_and_categorical_branch_exactly():
    """Probabilities are the given fractions; impossible outcomes are not replayed; purposes are independent."""
    law = drawing(
        lambda r: (r.bernoulli(Fraction(1, 3), 0, "x"), r.categorical([0, 1, 3], 0, "y"), r.bernoulli(1, 0, "z"))
    )
    assert law == {
        (True, 1, True): Fraction(1, 12),
        (True, 2, True): Fraction(1, 4),
        (False, 1, True): Fraction(1, 6),
        (False, 2, True): Fraction(1, 2),
    }


def test_floats_are_read_as_the_fractions_they_stand_for():
    """0.3 is 3/10; a float that stands for nothing simple keeps its binary value."""
    assert drawing(lambda r: r.bernoulli(0.3, 0, "x"))[True] == Fraction(3, 10)
    assert drawing(lambda r: r.categorical([0.1, 0.2, 0.7], 0, "x"))[2] == Fraction(7, 10)
    odd = 0.123456789123456
    assert drawing(lambda r: r.bernoulli(odd, 0, "x"))[True] == Fraction(odd)


def test_the_distribution_readout_gives_its_fractions_back():
    """Weights computed from log p by floats are the table's fractions again."""

    def strategy(run):
        (law,) = yield Forward((run.tip,), Distribution())
        token = run.random.categorical(law.exp().tolist(), run.tip.length, "own")
        return Hypothesis(run.tip.child(token))

    assert enumerate_outputs(strategy, MODEL) == {(0,): Fraction(1, 2), (1,): Fraction(1, 3), (2,): Fraction(1, 6)}


def test_the_same_key_gets_the_same_choice():
    """Asked twice for one law, a key answers the same; other positions, purposes, draws and streams are fresh."""
    law = drawing(lambda r: (r.bernoulli(0.5, 0, "x"), r.bernoulli(0.5, 0, "x")))
    assert law == {(True, True): Fraction(1, 2), (False, False): Fraction(1, 2)}
    others = [
        lambda r: r.bernoulli(0.5, 1, "x"),
        lambda r: r.bernoulli(0.5, 0, "y"),
        lambda r: r.bernoulli(0.5, 0, "x", 1),
        lambda r: r.branch(0).bernoulli(0.5, 0, "x"),
    ]
    for other in others:
        assert len(drawing(lambda r, other=other: (r.bernoulli(0.5, 0, "x"), other(r)))) == 4


def test_draws_that_share_a_number_are_coupled():
    """Two laws under one key divide one uniform number, as the engine's draws with that key do."""
    assert drawing(lambda r: (r.bernoulli(0.5, 0, "x"), r.bernoulli(0.4, 0, "x"))) == {
        (True, True): Fraction(2, 5), (True, False): Fraction(1, 10), (False, False): Fraction(1, 2)
    }  # fmt: skip
    thirds = [Fraction(1, 3)] * 3
    law = drawing(lambda r: (r.categorical([1, 1], 0, "x"), r.categorical(thirds, 0, "x"), r.bernoulli(0.4, 0, "x")))
    assert law == {
        (0, 0, True): Fraction(1, 3), (0, 1, True): Fraction(1, 15), (0, 1, False): Fraction(1, 10),
        (1, 1, False): Fraction(1, 6), (1, 2, False): Fraction(1, 3),
    }  # fmt: skip


def test_what_cannot_be_enumerated_is_refused():
    """Uniforms, noise, impossible weights, and processors that draw."""
    for draw, message in [
        (lambda r: r.uniform(0, "x"), "cannot be enumerated"),
        (lambda r: r.gumbel(0, "x", 3), "cannot be enumerated"),
        (lambda r: r.categorical([0.0, 0.0], 0, "x"), "positive sum"),
    ]:
        with pytest.raises(ParameterError, match=message):
            drawing(draw)
    with pytest.raises(ParameterError, match="xtc"):
        enumerate_outputs(sample(), MODEL, processors=Chain((Xtc(0.5, 0.1),)))


def test_the_budget_is_a_clear_error():
    """The message names the budget, how far it came, and the way out."""
    with pytest.raises(ParameterError, match=r"budget=10 replays .* covered; take fewer tokens"):
        enumerate_outputs(sample(), MODEL, budget=10)


def test_laws_sum_to_one_and_are_sorted():
    """Most probable outputs first."""
    law = enumerate_outputs(sample(), MODEL, max_new_tokens=3)
    assert sum(law.values()) == 1
    assert list(law.values()) == sorted(law.values(), reverse=True)


def test_a_difference_is_shown_largest_first():
    """Total variation, then the outputs that differ most, with both probabilities."""
    a = {"x": Fraction(1, 2), "y": Fraction(1, 4), "z": Fraction(1, 4)}
    b = {"x": Fraction(1, 2), "y": Fraction(1, 8), "w": Fraction(3, 8)}
    assert describe_difference(a, a) == ""
    lines = describe_difference(a, b).splitlines()
    assert "3 of 4 outputs, total variation 0.375" in lines[0]
    assert lines[1].split() == ["w:", "0", "(0),", "should", "be", "3/8", "(0.375)"]
    assert describe_difference({i: Fraction(1, 30) for i in range(30)}, {}).endswith("20 more")


def test_assert_lossless_takes_a_law_or_a_strategy():
    """It returns the law, or fails with the difference."""
    law = assert_lossless(sample(), sample(), MODEL, max_new_tokens=2)
    assert assert_lossless(sample(), law, MODEL, max_new_tokens=2) == law
    with pytest.raises(AssertionError, match="total variation"):
        assert_lossless(greedy(), sample(), MODEL, max_new_tokens=2)
