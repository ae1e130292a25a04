"""Laws of self-consistency on tables."""

import math
from collections import defaultdict
from fractions import Fraction

import pytest

from treille.sampling.random import Random
from treille.strategies import self_consistency
from treille.testing import TableModel, assert_lossless, enumerate_outputs, run_alone

LIMITS = {"prompt": (0,), "max_new_tokens": 4, "eos_token_ids": (3,)}
SMALL = {"prompt": (0,), "max_new_tokens": 2, "eos_token_ids": (2,)}


def last_letter(text):
    """The answer of a chain: its last letter; a chain without text abstains."""
    return text[-1:] or None


def answer_of(done):
    """The winning answer."""
    return done.output.details["answer"]


def marginal(model, prompt=(0,), end=3, max_new_tokens=4):
    """Probability of each answer, summed over all chains that lead to it, and the answer of the likeliest chain."""
    texts = model.texts(prompt=prompt, max_new_tokens=max_new_tokens, eos_token_ids=frozenset({end}))
    sums = defaultdict(Fraction)
    for text, p in texts.items():
        letters = [token for token in text if token != end]
        if letters:
            sums["abc"[letters[-1]]] += p
    mode = max(texts, key=texts.__getitem__)
    return dict(sums), "abc"[[t for t in mode if t != end][-1]] if mode != (end,) else None


def disagreeing(count):
    """Tables where the likeliest chain's answer is not the likeliest answer, with a clear margin."""
    found = []
    seed = 0
    while len(found) < count:
        model = TableModel.hashed(4, seed)
        sums, mode = marginal(model)
        first, second = sorted(sums.values(), reverse=True)[:2]
        if mode is not None and mode != max(sums, key=sums.__getitem__) and first - second > Fraction(1, 7):
            found.append(model)
        seed += 1
    return found


def test_the_vote_converges_to_the_marginal_winner_not_to_the_modes_answer():
    """With 300 chains the answer is the enumerated argmax of the marginal, where the mode's answer is another."""
    for model in disagreeing(4):
        sums, mode = marginal(model)
        done = run_alone(self_consistency(n=300, extract=last_letter), model, **LIMITS)
        assert answer_of(done) == max(sums, key=sums.__getitem__) != mode


@pytest.mark.parametrize("n", [1, 3, 5])
def test_with_two_answers_the_error_is_binomial(n):
    """Two answers, p > 1/2, odd n: P(wrong) = Σ_{k < n/2} C(n, k) p^k (1-p)^(n-k) <= exp(-2 n (p - 1/2)²)."""
    p = Fraction(7, 10)
    model = TableModel.markov([["7/10", "3/10"]] * 2)
    law = enumerate_outputs(
        self_consistency(n=n, extract=last_letter), model, key=answer_of, max_new_tokens=1, prompt=(0,)
    )
    wrong = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range((n + 1) // 2))
    assert law == {"a": 1 - wrong, "b": wrong}
    assert float(wrong) <= math.exp(-2 * n * float(p - Fraction(1, 2)) ** 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_stopping_early_returns_the_same_text(weighted):
    """In rounds of one, the returned text has the law of drawing all four, jointly with the answer."""
    model = TableModel.random(3, 5)
    strategy = {"n": 4, "extract": last_letter, "weighted": weighted}
    assert_lossless(
        self_consistency(round_size=1, **strategy),
        self_consistency(**strategy),
        model,
        key=lambda done: (done.text, answer_of(done)),
        **SMALL,
    )


def test_stopping_early_saves_rows_and_keeps_every_answer():
    """400 seeded runs: the same answer with fewer rows."""
    model = TableModel.hashed(4, 3)
    rows = [0, 0]
    for seed in range(400):
        whole, early = (
            run_alone(self_consistency(n=6, extract=last_letter, round_size=size), model, random=Random(seed), **LIMITS)
            for size in (None, 2)
        )
        assert answer_of(whole) == answer_of(early)
        assert whole.text == early.text
        rows[0] += whole.rows["target"]
        rows[1] += early.rows["target"]
    assert rows[1] < rows[0]


def test_a_careless_early_stop_is_told_apart(monkeypatch):
    """Negative control: stopping while the leader can still be caught changes the law of the answer."""
    import sys

    module = sys.modules["treille.strategies.self_consistency"]
    whole = self_consistency(n=4, extract=last_letter)
    law = enumerate_outputs(whole, TableModel.random(3, 5), key=answer_of, **SMALL)
    monkeypatch.setattr(module, "decided", lambda votes, left: left < 4 and bool(votes))
    early = self_consistency(n=4, extract=last_letter, round_size=1)
    with pytest.raises(AssertionError):
        assert_lossless(early, law, TableModel.random(3, 5), key=answer_of, **SMALL)
