"""Laws of best-of-N by exact enumeration."""

import math
from collections import defaultdict
from fractions import Fraction
from itertools import combinations

import pytest

from treille.strategies import best_of_n, sample
from treille.strategies.best_of_n import expected_best
from treille.testing import TableModel, assert_lossless, enumerate_outputs

LIMITS = {"prompt": (0,), "max_new_tokens": 2, "eos_token_ids": (2,)}
MODEL = TableModel.random(3, 11)


def reward(tokens):
    """A reward with ties: the number of tokens `1`, plus one for a text that ends itself."""
    return float(tokens.count(1) + (tokens[-1] == 2))


def scorer(texts):
    """Rewards of texts."""
    return [reward(text.tokens) for text in texts]


def reward_law(law):
    """The law of the reward."""
    found = defaultdict(Fraction)
    for text, p in law.items():
        found[reward(text)] += p
    return dict(found)


PLAIN = enumerate_outputs(sample(), MODEL, **LIMITS)


def below(score, *, inclusive):
    """F(score), or its left limit."""
    return sum((p for s, p in reward_law(PLAIN).items() if s < score or (inclusive and s == score)), Fraction(0))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_returned_reward_has_law_of_the_maximum(n):
    """P(reward = s) = F(s)^n - F(s-)^n, as fractions."""
    found = reward_law(enumerate_outputs(best_of_n(n=n, scorer=scorer), MODEL, **LIMITS))
    wanted = {s: below(s, inclusive=True) ** n - below(s, inclusive=False) ** n for s in reward_law(PLAIN)}
    assert found == {s: p for s, p in wanted.items() if p}
    assert found != {s: below(s, inclusive=True) ** (n + 1) - below(s, inclusive=False) ** (n + 1) for s in wanted}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distance_to_sampling_is_bounded(n):
    """KL(best-of-n || sampling) <= ln n - (n - 1) / n; n = 1 is sampling exactly."""
    law = enumerate_outputs(best_of_n(n=n, scorer=scorer), MODEL, **LIMITS)
    distance = sum(float(p) * math.log(p / PLAIN[text]) for text, p in law.items())
    assert distance <= math.log(n) - (n - 1) / n + 1e-12
    if n == 1:
        assert law == PLAIN


def test_the_bound_holds_up_to_sixteen():
    """The same bound for n = 1 … 16, by the law of the maximum; ties inside a reward keep sampling's shares."""
    for n in range(1, 17):
        distance = 0.0
        for s, p in reward_law(PLAIN).items():
            top = below(s, inclusive=True) ** n - below(s, inclusive=False) ** n
            distance += float(top) * math.log(top / p)
        assert distance <= math.log(n) - (n - 1) / n + 1e-12


def test_ties_keep_the_sampling_law():
    """Given the reward, the returned text has the law of sampling: the first drawn wins a tie."""
    law = enumerate_outputs(best_of_n(n=3, scorer=scorer), MODEL, **LIMITS)
    rewards, plain = reward_law(law), reward_law(PLAIN)
    for text, p in law.items():
        assert p / rewards[reward(text)] == PLAIN[text] / plain[reward(text)]


def test_a_constant_scorer_is_sampling():
    """With nothing to prefer, the law is sampling's."""
    assert_lossless(best_of_n(n=3, scorer=lambda texts: [0.0] * len(texts)), sample(), MODEL, **LIMITS)


def test_without_a_scorer_the_most_probable_per_token_wins():
    """The default rank is the mean log-probability per token: its law is that of the maximum over three draws."""

    def rank(text):
        return math.log(MODEL.probability(text, (0,))) / len(text)

    law = enumerate_outputs(best_of_n(n=3), MODEL, **LIMITS)
    for text in PLAIN:
        up_to = sum(p for t, p in PLAIN.items() if rank(t) <= rank(text) + 1e-12)
        under = sum((p for t, p in PLAIN.items() if rank(t) < rank(text) - 1e-12), Fraction(0))
        same = [t for t in PLAIN if abs(rank(t) - rank(text)) < 1e-12]
        share = PLAIN[text] / sum(PLAIN[t] for t in same)
        assert law[text] == (up_to**3 - under**3) * share


def test_expected_best_of_k_is_the_mean_over_all_subsets():
    """The closed formula equals brute force over all C(N, k) subsets."""
    scores = [0.3, -1.0, 2.5, 2.5, 0.0, 7.0]
    for k, value in enumerate(expected_best(scores), 1):
        subsets = list(combinations(scores, k))
        assert value == pytest.approx(sum(map(max, subsets)) / len(subsets))
