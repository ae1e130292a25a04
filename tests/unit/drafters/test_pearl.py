"""PEARL's two modes; its law is in tests/laws."""

import pytest
from draft_tables import DRAFT, MODELS, TARGET, greedy_text, proposed

from treille.errors import ParameterError
from treille.strategies import greedy, sample
from treille.testing import TableModel, run_alone

PERFECT = {"target": TARGET, "draft": TARGET}


def forwards(draft, models, tokens, **options):
    """Passes of target and draft for a text of so many tokens."""
    done = run_alone(sample(), models, draft=draft, max_new_tokens=tokens, **options)
    return done.run.drafts, done.forwards


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_perfect_draft_never_waits(k):
    """Pre-verify emits one token, every step after it k: no bonus token, its place is taken by the draft's."""
    for verification in ("match", "rejection"):
        drafts, passes = forwards(f"pearl:k={k}", PERFECT, 1 + 8 * k, verification=verification)
        assert drafts.steps == 9
        assert drafts.drafted == drafts.accepted == 8 * (k - 1)
        assert passes["target"] <= 9


def test_a_rejection_drops_what_was_drafted_ahead():
    """A draft that is always wrong never leaves pre-verify: every step is a plain step."""
    wrong = TableModel.markov([["0", "1", "0"]] * 3)
    right = TableModel.markov([["1", "0", "0"]] * 3)
    done = greedy_text("pearl:k=3", {"target": right, "draft": wrong})
    assert done.text == (0,) * 12
    assert (done.run.drafts.steps, done.run.drafts.drafted) == (12, 0)


@pytest.mark.parametrize("tokens", range(1, 10))
def test_the_end_holds_verified_tokens_only(tokens):
    """Greedy texts of every length are the plain ones: perfect draft or poor one, with an end token or without."""
    for seed in range(6):
        target = TableModel.random(3, seed)
        for draft in (target, TableModel.random(3, seed + 50)):
            for ends in ((), (2,)):
                limits = {"max_new_tokens": tokens, "eos_token_ids": ends}
                plain = run_alone(greedy(), target, **limits)
                drafted = run_alone(greedy(), {"target": target, "draft": draft}, draft="pearl:k=4", **limits)
                assert drafted.text == plain.text


def test_both_models_work_at_the_same_time():
    """The target's forward and the draft's first pass are one round: rounds, not their sum, are what a step takes."""
    drafts, passes = forwards("pearl:k=3", PERFECT, 31)
    chain, chain_passes = forwards("draft_model:k=3", PERFECT, 31)
    # In units of a draft pass, with a target pass as long as three: side by side, and one after the other.
    side_by_side = max(3 * passes["target"], passes["draft"])
    one_by_one = 3 * chain_passes["target"] + chain_passes["draft"]
    assert side_by_side < one_by_one
    assert drafts.emitted == chain.emitted


def test_nothing_is_drafted_beyond_the_end():
    """The last token needs no draft ahead."""
    _, passes = forwards("pearl:k=4", MODELS, 1)
    assert passes == {"target": 1}


def test_refusals():
    """At least one token ahead."""
    with pytest.raises(ParameterError, match="k=0"):
        proposed("pearl:k=0")
    assert DRAFT.vocabulary_size == TARGET.vocabulary_size
