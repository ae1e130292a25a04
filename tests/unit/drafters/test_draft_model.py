"""Draft model, chain; its law is in tests/laws. Also what all drafters with a draft model have in common."""

import sys
from fractions import Fraction
from pathlib import Path

import pytest
from draft_tables import DRAFT, MODELS, TARGET, acceptance, greedy_text, long_text, proposed

sys.path.append(str(Path(__file__).parents[2]))

import random_llama
import treille
from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.testing import TableModel, run_alone

EVERY = [
    "draft_model", "vocab_trim:keep=20", "specinfer", "rsd_c", "rsd_s", "dyspec", "dyspec:form=heap,rows=5",
    "dynamic_tree", "sequoia", "specdec_pp", "pearl",
]  # fmt: skip


def test_the_draft_is_the_draft_models_own_text():
    """Greedy: its greedy text. Sampling with match: the text it would sample with the target's noise."""
    tree, _ = proposed("draft_model:k=5")
    assert tuple(tree.path(5)) == run_alone(greedy(), DRAFT, max_new_tokens=5).text
    for seed in range(20):
        tree, _ = proposed("draft_model:k=5", do_sample=True, random=Random(seed))
        assert tuple(tree.path(5)) == run_alone(sample(), DRAFT, max_new_tokens=5, random=Random(seed)).text
        assert not tree.sampled


def test_a_drawn_token_carries_its_law():
    """With rejection every token has the draft's law at its own place."""
    tree, _ = proposed("draft_model:k=3", do_sample=True, verification="rejection")
    for index in range(3):
        (trial,) = tree.trials[index]
        assert tuple(trial.law.q) == DRAFT.law(tree.nodes[index].path.tolist())


def test_acceptance_is_one_minus_the_total_variation():
    """Exactly for one step; over a long text within 4 sigma: the sharpest sign of a wrong q."""
    assert acceptance("draft_model:k=1") == Fraction(3, 5)
    drafts = long_text("draft_model:k=1", verification="rejection", tokens=1500)
    overlaps = [float(sum(map(min, TARGET.law([s]), DRAFT.law([s])))) for s in range(3)]
    rate = drafts.kept[0] / drafts.tried[0]
    spread = 4 * (0.25 / drafts.tried[0]) ** 0.5
    assert min(overlaps) - spread < rate < max(overlaps) + spread


def test_a_perfect_draft_is_always_accepted():
    """With the target as its own draft every step emits k + 1 tokens."""
    models = {"target": TARGET, "draft": TARGET}
    for options in ({}, {"strategy": sample()}, {"strategy": sample(), "verification": "rejection"}):
        drafts = long_text("draft_model:k=3", models, tokens=40, **{"strategy": greedy(), **options})
        assert (drafts.steps, drafts.emitted, drafts.accepted) == (10, 40, 30)


def test_accepted_tokens_are_not_computed_again():
    """The draft model computes each token once: the prompt, what it drafted, and what the target added."""
    models = {"target": TARGET, "draft": TARGET}
    done = greedy_text("draft_model:k=3", models, tokens=40, prompt=(0, 1, 2))
    assert done.rows["draft"] == 3 + 40 - 1 - 1  # neither the last bonus token nor the last draft is read
    assert done.forwards["draft"] == 30


def test_nothing_is_drafted_after_the_end():
    """A token that ends the text is the last of the chain."""
    ending = TableModel.markov([["1/10", "8/10", "1/10"], ["1/10", "1/10", "8/10"], ["1/3", "1/3", "1/3"]])
    tree, _ = proposed("draft_model:k=5", {"target": ending, "draft": ending}, eos_token_ids=(2,))
    assert tree.path(2) == [1, 2]
    assert tree.size == 2


@pytest.mark.parametrize("name", EVERY)
def test_budgets_are_kept(name):
    """Never more nodes or levels than allowed, whatever the parameters say."""
    for rows, depth in ((1, 1), (2, 5), (7, 2), (40, 3)):
        for options in ({}, {"do_sample": True}, {"do_sample": True, "verification": "rejection"}):
            tree, _ = proposed(name.replace("keep=20", "keep=2"), rows=rows, depth=depth, **options)
            assert tree.size <= rows
            assert tree.depth <= depth


@pytest.mark.parametrize(
    ("draft", "models", "message"),
    [
        ("draft_model:k=0", MODELS, "k=0: must be at least 1"),
        ("draft_model:model=other", MODELS, "model='other'"),
        ("draft_model", {"target": TARGET, "draft": TableModel.random(4, 0)}, "4 token ids, the target 3"),
        ("draft_model", {"target": TARGET}, "model='draft'"),
    ],
)
def test_refusals(draft, models, message):
    """Each refusal names the value and the reason before the first token."""
    with pytest.raises(ParameterError, match=message):
        greedy_text(draft, models)


# --- all drafters with a draft model, on checkpoints ---


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A random Llama with itself and another one as drafts."""
    places = [tmp_path_factory.mktemp(name) for name in ("target", "other")]
    for seed, place in enumerate(places):
        random_llama.save(place, seed=seed)
    drafts = {"draft": places[0], "other": places[1]}
    return treille.load(places[0], draft_model=drafts, kv_slots=2000, debug=True)


PROMPTS = ("the cat", "a dog, and", "0123", "hello ")


def texts(lm, **options):
    """The tokens of all prompts."""
    found = lm.generate(list(PROMPTS), max_new_tokens=24, **options)
    return [out.tokens for out in found], [out.stats.drafts for out in found]


@pytest.mark.parametrize("draft", EVERY)
def test_texts_on_a_checkpoint(lm, draft):
    """Greedy and Gumbel-sampled texts are the plain ones, with a perfect draft and with a useless one."""
    separator = "," if ":" in draft else ":"
    for options in ({}, {"strategy": "sample", "seed": 5, "noise": "gumbel"}):
        plain, _ = texts(lm, **options)
        for model in ("draft", "other"):
            drafted, counts = texts(lm, draft=f"{draft}{separator}model={model}", governor=False, **options)
            assert drafted == plain
            assert model == "other" or all(count.drafted for count in counts)


@pytest.mark.parametrize("draft", ["draft_model", "rsd_c:widths=[1,1,1]", "pearl"])
def test_a_perfect_draft_on_a_checkpoint(lm, draft):
    """With the target as its own draft nothing that it drew is rejected."""
    _, counts = texts(lm, draft=draft, governor=False, strategy="sample", seed=1, verification="rejection")
    for count in counts:
        assert count.accepted == count.drafted
