"""No drafter changes what is generated: by enumeration on tables, jointly over several steps."""

from __future__ import annotations

from fractions import Fraction

import pytest
from draft_cases import CASES

from treille.drafters import registry
from treille.errors import ParameterError
from treille.sampling.presets import build_chain
from treille.sampling.random import Random
from treille.strategies import best_of_n, first_finish, greedy, sample, self_consistency
from treille.testing import TableModel, Words, assert_lossless, enumerate_outputs, run_alone

# The model of the method cards: the law depends on the last token only.
TARGET = TableModel.markov([["1/2", "3/10", "1/5"], ["1/5", "1/2", "3/10"], ["1/10", "3/10", "3/5"]])
DRAFT = TableModel.markov([["1/5", "1/2", "3/10"], ["2/5", "3/10", "3/10"], ["3/10", "2/5", "3/10"]])
MODELS = {"target": TARGET, "draft": DRAFT}
PROMPT = (0, 1, 0, 2, 0)
LIMITS = {"prompt": PROMPT, "max_new_tokens": 3, "budget": 400_000}

# A chain for every way in which a processor can see the path or shape the law.
CHAINS = {
    "plain": {},
    "temperature": {"temperature": 0.5},
    "top_k": {"top_k": 2},
    "min_p": {"min_p": 0.5},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.4},
    "bias": {"logit_bias": {1: -1.0, 2: 0.5}},
    "no_repeat_ngram": {"no_repeat_ngram_size": 3},
    "bad_words": {"bad_words_ids": [[1, 2]]},
}

DRAFTS = [draft for drafts in CASES.values() for draft in drafts]


def chain(name):
    """The processors of a case."""
    return build_chain(CHAINS[name], eos_ids=[], max_length=16, max_new_tokens=3)


def test_every_drafter_has_a_case():
    """A drafter without a law test does not exist."""
    assert set(CASES) == {info.name for info in registry if info.kind.__module__.startswith("treille.drafters.")}


@pytest.mark.parametrize("verification", ["match", "rejection"])
@pytest.mark.parametrize("draft", DRAFTS)
def test_drafted_sampling_has_exactly_the_plain_law(draft, verification):
    """P(text) as fractions, jointly over all steps, an end token included."""
    limits = {**LIMITS, "max_new_tokens": 4, "eos_token_ids": (2,)}
    plain = enumerate_outputs(sample(), TARGET, **limits)
    assert sum(plain.values()) == Fraction(1)
    assert_lossless(sample(), plain, MODELS, draft=draft, verification=verification, **limits)


@pytest.mark.parametrize("verification", ["match", "rejection"])
@pytest.mark.parametrize("name", [name for name in CHAINS if name != "plain"])
@pytest.mark.parametrize("draft", [drafts[0] for drafts in CASES.values()])
def test_processors_see_the_path_of_every_drafted_row(draft, name, verification):
    """Penalties, truncations and biases at a drafted node are those of its own path."""
    processors = chain(name)
    plain = enumerate_outputs(sample(), TARGET, processors=processors, **LIMITS)
    drafted = enumerate_outputs(
        sample(), MODELS, processors=processors, draft=draft, verification=verification, **LIMITS
    )
    # Temperatures and penalties give irrational laws: equal up to the rounding of float arithmetic.
    assert drafted.keys() == plain.keys()
    assert max(abs(float(drafted[text] - plain[text])) for text in plain) < 1e-12


@pytest.mark.parametrize("draft", DRAFTS)
def test_greedy_text_is_the_plain_text(draft):
    """Rule V1, on 30 random tables."""
    for seed in range(30):
        models = {"target": TableModel.random(3, seed), "draft": TableModel.random(3, seed + 100)}
        limits = {"prompt": PROMPT, "max_new_tokens": 8}
        assert run_alone(greedy(), models, draft=draft, **limits).text == run_alone(greedy(), models, **limits).text


@pytest.mark.parametrize("gumbel", [False, True])
@pytest.mark.parametrize("draft", DRAFTS)
def test_matched_text_is_the_plain_text_of_the_same_seed(draft, gumbel):
    """Rules V2 and V6: token for token, whatever was drafted."""
    for seed in range(30):
        limits = {"prompt": PROMPT, "max_new_tokens": 8, "gumbel": gumbel, "random": Random(seed)}
        plain = run_alone(sample(), MODELS, **limits)
        assert run_alone(sample(), MODELS, draft=draft, **limits).text == plain.text


STRATEGIES = {
    "sample": sample(num_return_sequences=2),
    "best_of_n": best_of_n(n=2),
    "self_consistency": self_consistency(n=2, extract=str),
    "first_finish": first_finish(n=2),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("draft", [drafts[0] for drafts in CASES.values()])
def test_branches_are_the_plain_branches(draft, strategy):
    """Strategies of several texts return the plain texts: every branch drafts for itself, with noise of its own."""
    for seed in range(10):
        limits = {"prompt": PROMPT, "max_new_tokens": 6, "eos_token_ids": (2,), "random": Random(seed)}
        plain = run_alone(STRATEGIES[strategy], MODELS, **limits)
        assert run_alone(STRATEGIES[strategy], MODELS, draft=draft, **limits).texts == plain.texts


@pytest.mark.parametrize(
    "draft", ["draft_model:k=5", "prompt_lookup:k=5", "pearl:k=3", "swift:k=3,width=1,proposals=0,threshold=0"]
)
def test_a_race_is_not_decided_by_drafts(draft):
    """What a branch drafts ahead is no text: a branch that can still win is not closed for it."""
    short = TableModel.markov([["8/10", "17/100", "3/100"], ["8/10", "17/100", "3/100"], ["1/10", "3/10", "3/5"]])
    guess = TableModel.markov([["7/10", "3/10", "0"], ["6/10", "4/10", "0"], ["3/10", "2/5", "3/10"]])
    for seed in range(60):
        limits = {"prompt": (0,), "max_new_tokens": 16, "eos_token_ids": (2,), "random": Random(seed)}
        plain = run_alone(first_finish(n=4), short, **limits)
        assert run_alone(first_finish(n=4), {"target": short, "draft": guess}, draft=draft, **limits).text == plain.text


@pytest.mark.parametrize("draft", DRAFTS)
def test_stop_strings_cut_inside_a_draft(draft):
    """A stop string in the middle of accepted tokens ends the text there."""
    for seed in range(10):
        limits = {"prompt": PROMPT, "max_new_tokens": 8, "stop_strings": ("ab", "cc"), "random": Random(seed)}
        plain = run_alone(sample(), MODELS, **limits)
        drafted = run_alone(sample(), MODELS, draft=draft, **limits)
        assert drafted.text == plain.text
        assert drafted.output.candidates[0].finish_reason == plain.output.candidates[0].finish_reason


def test_a_beam_refuses_a_drafter():
    """Strategies that look at several tokens of every step say so before the first token."""
    from treille.options import split
    from treille.strategy import registry as strategies

    with pytest.raises(ParameterError, match="leave draft out"):
        split({"draft": "prompt_lookup"}, strategies["beam"])


# --- under a constraint -----------------------------------------------------------------------------------------------

# Words of unequal lengths, one the beginning of another, forced ends, and one that no end token follows at once.
WORDS = Words([(0,), (0, 1), (0, 1, 1, 0), (1, 0, 1), (1, 0, 0)], 3, eos=2)
CONSTRAINED = {"prompt": PROMPT, "max_new_tokens": 6, "eos_token_ids": (2,), "constraint": WORDS.bind}


def test_the_law_under_a_constraint_is_the_masked_law():
    """Every word has the product of its tokens' probabilities, each renormalised over what is allowed there."""
    law = enumerate_outputs(sample(), TARGET, **CONSTRAINED)
    root = Fraction(1, 2) / (Fraction(1, 2) + Fraction(3, 10))  # after the prompt's 0: 0 or 1
    assert law[(0, 2)] == root * Fraction(2, 5)  # then the end, or 1
    assert set(law) == {(0, 2), (0, 1, 2), (0, 1, 1, 0), (1, 0, 1), (1, 0, 0)}
    assert sum(law.values()) == 1


@pytest.mark.parametrize("verification", ["match", "rejection"])
@pytest.mark.parametrize("draft", DRAFTS)
def test_a_draft_under_a_constraint_leaves_the_masked_law(draft, verification):
    """Drafted rows have the mask of their own path; illegal drafts are cut; forced tokens cost no draw."""
    plain = enumerate_outputs(sample(), TARGET, **CONSTRAINED)
    assert_lossless(sample(), plain, MODELS, draft=draft, verification=verification, **CONSTRAINED)


@pytest.mark.parametrize("draft", [drafts[0] for drafts in CASES.values()])
def test_constraint_processors_and_draft_together(draft):
    """All three at once."""
    processors = chain("penalties")
    plain = enumerate_outputs(sample(), TARGET, processors=processors, **CONSTRAINED)
    drafted = enumerate_outputs(sample(), MODELS, processors=processors, draft=draft, **CONSTRAINED)
    assert drafted.keys() == plain.keys()
    assert max(abs(float(drafted[text] - plain[text])) for text in plain) < 1e-12


def test_a_wide_beam_returns_the_language_in_the_order_of_p():
    """Beam search of width |L| under a constraint: every word, most probable first."""
    from treille.strategies import beam

    done = run_alone(beam(width=5, length_penalty=0.0, num_return_sequences=5), TARGET, **CONSTRAINED)
    by_p = sorted(done.texts, key=lambda text: -TARGET.probability(text, PROMPT))
    assert set(done.texts) == {(0, 2), (0, 1, 2), (0, 1, 1, 0), (1, 0, 1), (1, 0, 0)}
    assert list(done.texts) == by_p
