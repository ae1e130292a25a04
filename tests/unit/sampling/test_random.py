"""Keyed randomness and inverse-CDF sampling."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch

from treille.errors import InternalError
from treille.sampling.random import Random, philox, philox_blocks, round_keys, sample_rows

CHI2_1E6 = {15: 57.7, 63: 132.0, 7: 39.2, 3: 30.7}
"""Upper points of the chi-square law at 1e-6, by degrees of freedom (false alarms below 1e-5 over this file)."""


def chi_square(counts, expected):
    """Pearson's statistic."""
    return sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True))


def test_known_answers():
    """The three vectors of the authors' reference for Philox4x32-10."""
    ones = 0xFFFFFFFF
    vectors = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, (ones,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, answer in vectors:
        assert philox(counter, round_keys(key)) == answer


def test_vectorised_equals_scalar():
    """Block i of the numpy version is the scalar function at counter (i, …)."""
    keys = round_keys((0xDEADBEEF, 0x12345678))
    blocks = philox_blocks(50, (7, 0xFFFFFFFF, 3), keys)
    assert blocks.tolist() == [list(philox((i, 7, 0xFFFFFFFF, 3), keys)) for i in range(50)]


def test_draws_are_pinned():
    """The stream of a seed is part of the interface: these values may not change between versions."""
    r = Random(7)
    draws = [r.uniform(0, "sample"), r.uniform(1, "sample"), r.branch(2).uniform(0, "sample")]
    assert draws == [0.7154380842662669, 0.8505663326884213, 0.7617537590248531]
    assert 0 <= Random(-(10**30)).uniform(2**31, "é") < 1


def test_key_parts_all_matter():
    """Changing any one of seed, stream, position, purpose, draw changes the value; asking again does not."""
    base = Random(1).branch(0)
    values = [
        base.uniform(5, "sample"),
        Random(2).branch(0).uniform(5, "sample"),
        Random(1).branch(1).uniform(5, "sample"),
        Random(1).uniform(5, "sample"),
        base.branch(0).uniform(5, "sample"),
        base.uniform(6, "sample"),
        base.uniform(5, "accept"),
        base.uniform(5, "sample", 1),
    ]
    assert len(set(values)) == len(values)
    assert base.uniform(5, "sample") == values[0] == Random(1, (0,)).uniform(5, "sample")


def test_order_does_not_matter():
    """Draws asked for in two orders are the same draws."""
    keys = [(p, purpose, d) for p in range(20) for purpose in ("a", "b") for d in range(3)]
    forward = {k: Random(3).uniform(*k) for k in keys}
    r = Random(3)
    assert {k: r.uniform(*k) for k in reversed(keys)} == forward


@pytest.mark.parametrize("axis", ["position", "draw", "stream", "seed"])
def test_uniformity_along_each_part_of_the_key(axis):
    """8,192 uniforms along one part of the key: cells, successive pairs and low bits stay below the 1e-6 point."""
    n, r = 8192, Random(11)
    draws = {
        "position": lambda i: r.uniform(i, "x"),
        "draw": lambda i: r.uniform(0, "x", i),
        "stream": lambda i: r.branch(i).uniform(0, "x"),
        "seed": lambda i: Random(i).uniform(0, "x"),
    }[axis]
    u = np.array([draws(i) for i in range(n)])
    assert u.min() >= 0
    assert u.max() < 1
    assert chi_square(np.bincount((u * 16).astype(int), minlength=16), [n / 16] * 16) < CHI2_1E6[15]
    pairs = (u[0::2] * 8).astype(int) * 8 + (u[1::2] * 8).astype(int)
    assert chi_square(np.bincount(pairs, minlength=64), [n / 128] * 64) < CHI2_1E6[63]
    low_bits = (u * 2**53).astype(np.int64) & 7
    assert chi_square(np.bincount(low_bits, minlength=8), [n / 8] * 8) < CHI2_1E6[7]


def test_bernoulli():
    """Impossible and certain events are so; fractions compare exactly; the share is p."""
    r = Random(5)
    assert not any(r.bernoulli(0, i, "b") for i in range(100))
    assert all(r.bernoulli(Fraction(1), i, "b") for i in range(100))
    assert all(
        r.bernoulli(Fraction(1, 3), i, "b") == (Fraction(r.uniform(i, "b")) < Fraction(1, 3)) for i in range(300)
    )
    share = sum(r.bernoulli(0.3, i, "b") for i in range(10_000)) / 10_000
    assert abs(share - 0.3) < 0.025  # 5.4 standard deviations


@pytest.mark.parametrize("weights", [[1, 0, 2, 5], [Fraction(1, 8), Fraction(0), Fraction(1, 4), Fraction(5, 8)]])
def test_categorical_law(weights):
    """10,000 draws follow the weights, whatever their sum; weight zero never comes."""
    counts = Counter(Random(9).categorical(weights, i, "c") for i in range(10_000))
    assert counts[1] == 0
    assert chi_square([counts[i] for i in (0, 2, 3)], [1250, 2500, 6250]) < CHI2_1E6[3]


class Fixed(Random):
    """A stream whose uniforms are all the same."""

    __slots__ = ("value",)

    def uniform(self, position, purpose, draw=0):
        """The fixed value."""
        return self.value


def test_categorical_at_the_ends():
    """Uniform 0 gives the first positive weight, the largest uniform the last, also where float sums round."""
    r = Fixed(0)
    for value, wanted in ((0.0, 1), (1 - 2**-53, 11)):
        r.value = value
        assert r.categorical([0.0] + [0.1] * 11 + [0.0], 0, "c") == wanted
        assert r.categorical([Fraction(0)] + [Fraction(1, 11)] * 11 + [Fraction(0)], 0, "c") == wanted
    for weights in ([0.0, 0.0], [1.0, -1.0, 3.0], [math.nan, 1.0]):
        with pytest.raises(InternalError, match="weights"):
            r.categorical(weights, 0, "c")


def test_gumbel_noise():
    """Keyed by token id whatever the size; mean and variance of the Gumbel law; argmax(log p + g) is a draw from p."""
    r = Random(4)
    noise = r.gumbel(0, "v6", 20_001)
    assert noise.dtype == np.float64
    assert np.array_equal(noise[:7], r.gumbel(0, "v6", 7))
    assert np.isfinite(noise).all()
    assert abs(noise.mean() - 0.5772) < 0.05
    assert abs(noise.var() - math.pi**2 / 6) < 0.15
    p = np.array([0.5, 0.25, 0.125, 0.125])
    counts = np.bincount([int((np.log(p) + r.gumbel(i, "v6", 4)).argmax()) for i in range(4000)], minlength=4)
    assert chi_square(counts, 4000 * p) < CHI2_1E6[3]


def test_sample_rows_law():
    """A grid of 100,000 uniforms hits every token in proportion to its probability, to one grid step."""
    p = torch.tensor([0.1, 0.0, 0.35, 0.5, 0.0, 0.05])
    n = 100_000
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens = sample_rows(p.log().expand(n, -1), uniforms)
    assert tokens.dtype == torch.int64
    counts = torch.bincount(tokens, minlength=6)
    assert (counts - n * p).abs().max() <= 1
    assert counts[1] == counts[4] == 0


def test_sample_rows_never_returns_the_impossible():
    """At both ends of the uniform, with first and last tokens masked, the token has mass; shifts change nothing."""
    inf = math.inf
    logits = torch.tensor(
        [[-inf, -inf, 1.0, 0.0, -inf], [-inf, -80.0, 20.0, -inf, -120.0], [0.0, -inf, -inf, -inf, -inf]]
    )
    for u, wanted in ((0.0, [2, 1, 0]), (1 - 2**-53, [3, 2, 0])):
        uniforms = torch.full((3,), u, dtype=torch.float64)
        assert sample_rows(logits, uniforms).tolist() == wanted
        assert sample_rows(logits + 300, uniforms).tolist() == wanted


def test_sample_rows_are_independent():
    """A row alone gives the token it gives in a batch (vocabulary 5,000)."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 5000, generator=g) * 3
    uniforms = torch.rand(30, dtype=torch.float64, generator=g)
    together = sample_rows(logits, uniforms)
    assert together.tolist() == [sample_rows(l[None], u[None]).item() for l, u in zip(logits, uniforms, strict=True)]


def test_a_long_row_is_drawn_like_a_list():
    """An array of floats gives the index that the list of its numbers gives, never one of weight zero."""
    generator = np.random.default_rng(0)
    for position in range(300):
        p = generator.dirichlet(np.full(20, 0.2)) * (generator.random(20) < 0.7)
        index = Random(1).categorical(p, position, "draft")
        assert p[index] > 0
        assert index == Random(1).categorical(p.tolist(), position, "draft")
    for wrong in (np.zeros(3), np.array([0.5, -0.1, 0.6]), np.array([np.nan, 1.0, 1.0])):
        with pytest.raises(InternalError, match="positive sum"):
            Random(1).categorical(wrong, 0, "draft")
