"""Laws of diverse beam search on tables."""

import math

import pytest
from beam_bookkeeping import group_beam

from treille.strategies import beam, diverse_beam
from treille.testing import TableModel, run_alone

LIMITS = {"prompt": (0,), "max_new_tokens": 4, "eos_token_ids": (3,)}


def groups_of(done):
    """Texts and scores per group, best first."""
    candidates = zip(done.output.details["groups"], done.texts, done.output.candidates, strict=True)
    found = {}
    for group, text, hypothesis in candidates:
        found.setdefault(group, []).append((text, hypothesis.score))
    return [found[group] for group in sorted(found)]


def run(seed, **parameters):
    """Diverse beam search on one table, all candidates returned."""
    return run_alone(
        diverse_beam(**parameters), TableModel.hashed(4, seed), num_return_sequences=parameters["width"], **LIMITS
    )


@pytest.mark.parametrize("diversity_penalty", [0.0, 0.2, 0.5, 1.0, 100.0])
def test_the_first_group_is_beam_search(diversity_penalty):
    """Group 1 returns what beam search of width / groups returns, whatever the penalty."""
    for seed in range(40):
        done = run(seed, width=4, groups=2, diversity_penalty=diversity_penalty)
        plain = run_alone(beam(width=2), TableModel.hashed(4, seed), num_return_sequences=2, **LIMITS)
        assert [text for text, _ in groups_of(done)[0]] == list(plain.texts)


def test_without_penalty_all_groups_are_equal():
    """λ = 0 gives G times the same texts and scores."""
    for seed in range(40):
        first, *others = groups_of(run(seed, width=6, groups=3, diversity_penalty=0.0))
        assert all(other == first for other in others)


def test_a_large_penalty_gives_different_first_tokens():
    """λ = 100 with one beam per group: three groups, three first tokens, as far as texts do not end at once."""
    strategy = diverse_beam(width=3, groups=3, diversity_penalty=100.0)
    for seed in range(40):
        model = TableModel.hashed(4, seed)
        endless = run_alone(strategy, model, max_new_tokens=4, num_return_sequences=3)
        assert len({text[0] for text in endless.texts}) == 3
        # The end token is no choice of a beam that runs on, so several groups may take it.
        longer = [
            text[0] for text in run_alone(strategy, model, num_return_sequences=3, **LIMITS).texts if text[0] != 3
        ]
        assert len(set(longer)) == len(longer)


@pytest.mark.parametrize("penalty_in_score", [False, True])
def test_equal_to_the_straight_line_bookkeeping(penalty_in_score):
    """Texts and scores of every group equal the simulator's, in both modes, on 250 tables each."""
    for seed in range(250):
        width, groups = ((2, 2), (4, 2), (3, 3), (6, 3), (6, 2))[seed % 5]
        penalty = (0.1, 0.5, 1.0, 3.0)[seed % 4]
        model = TableModel.hashed(4, seed)
        wanted = group_beam(
            lambda text, m=model: [math.log(p) for p in m.law((0, *text))],
            width=width, groups=groups, diversity_penalty=penalty, ends=(3,), max_new_tokens=4,
            penalty_in_score=penalty_in_score,
        )  # fmt: skip
        settings = {"width": width, "groups": groups, "diversity_penalty": penalty}
        found = groups_of(run(seed, penalty_in_score=penalty_in_score, **settings))
        for own, theirs in zip(found, wanted, strict=True):
            assert [text for text, _ in own] == [text for text, _ in theirs]
            assert [score for _, score in own] == pytest.approx([score for _, score in theirs])


def test_the_two_modes_differ():
    """Negative control: a penalty in the score changes scores of later groups; out of it they are log-probabilities."""
    inside = run(3, width=4, groups=2, diversity_penalty=1.0, penalty_in_score=True).output.candidates
    outside = run(3, width=4, groups=2, diversity_penalty=1.0).output.candidates
    assert [h.score for h in inside] != [h.score for h in outside]
    for hypothesis in outside:
        assert hypothesis.score == pytest.approx(hypothesis.raw_logprob / (hypothesis.length - 1))
