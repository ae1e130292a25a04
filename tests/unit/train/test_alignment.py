"""Alignment: a target's texts, and how acceptance is measured."""

import json
from dataclasses import replace

import pytest
import torch

import treille
from treille.errors import CheckpointError
from treille.train.accuracy import Accuracy, accuracy, held_out
from treille.train.alignment import acceptance, answers, check_same_tokenizer, prompts, write_generated
from treille.train.corpus import Mixture
from treille.train.export import export
from treille.train.network import Llama
from treille.train.recipe import Alignment
from treille.train.run import train_model
from treille.train.tokenizer import ASSISTANT, END


@pytest.fixture(scope="module")
def lm(finished):
    """The tiny model in float32."""
    return treille.load(finished / "model", dtype="float32")


@pytest.fixture(scope="module")
def source(trainer):
    """Prompts of the tasks and of Python."""
    return Mixture(trainer.tokenizer, trainer.recipe.data, 0)


def test_prompts_end_where_an_answer_begins(source):
    """Questions end with the assistant's token, functions hold no end token; equal seeds give equal prompts."""
    asked = prompts(source, 12, 0.0, seed=1)
    assert all(one[-1] == ASSISTANT for one in asked)
    assert all(END not in one and ASSISTANT not in one for one in prompts(source, 12, 1.0, seed=1))
    assert asked == prompts(source, 12, 0.0, seed=1)


def test_texts_are_the_targets_own(lm, finished, source, tmp_path):
    """A quarter of the texts is greedy; every line holds a prompt and what the target answers to it."""
    path = tmp_path / "texts.jsonl"
    write_generated(path, finished / "model", source, Alignment("tiny", 8, (0.0, 1.0), max_new_tokens=6), seed=3)
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    assert 0 < len(pairs) <= 8
    prompt, answer = pairs[0]
    assert answer == list(lm.generate(prompt, max_new_tokens=6).tokens)


def test_a_model_accepts_itself(lm, source):
    """Every token of a draft that equals the target is accepted, at any temperature."""
    asked = [one for one in prompts(source, 12, 0.5, seed=1) if len(one) < 100][:4]
    for temperature in (0.0, 0.7):
        texts = list(answers(lm, asked, temperature, max_new_tokens=8, seed=0))
        measured = acceptance(lm, lm, texts, temperature)
        assert measured.rate == pytest.approx(1.0, abs=1e-5)
        assert measured.tokens == sum(len(answer) for _, answer in texts)


def test_acceptance_is_the_overlap_of_the_two_laws(lm, trainer, tmp_path):
    """It is the mean of sum min(p, q) over the answer's positions; greedily the share of equal choices."""
    export(tmp_path / "other", Llama(trainer.recipe.shape, seed=8), trainer.tokenizer)
    other = treille.load(tmp_path / "other", dtype="float32")
    prompt, answer = [10, 11, 12], [13, 14]
    p, q = (torch.softmax(model.logits([*prompt, *answer])[2:4] / 0.5, -1) for model in (lm, other))
    measured = acceptance(lm, other, [(prompt, answer)], 0.5)
    assert measured.rate == pytest.approx(torch.minimum(p, q).sum().item() / 2)
    assert measured.rate < 0.99
    greedy = acceptance(lm, other, [(prompt, answer)], 0.0)
    assert greedy.rate == (p.argmax(-1) == q.argmax(-1)).float().mean().item()


def test_an_aligned_run_tells_its_acceptance(recipe, finished):
    """A run with an alignment trains on the target's texts, and its card compares the drafts on the same texts."""
    plan = Alignment(finished.name, 8, (0.0, 1.0), max_new_tokens=8, control=finished.name)
    aligned = replace(recipe, start=finished.name, alignment=plan)
    model = train_model(aligned, "tiny", finished.parent / "aligned", questions=3)
    rows = json.loads((model.parent / "results.json").read_text())["acceptances"]
    names = ["random weights", "trained on the mixture", "as many steps more on the mixture", "aligned"]
    assert [name for name, _ in rows] == names
    assert [one["rate"] for one in rows[1][1]] == pytest.approx([1.0] * 3, abs=0.02)  # it is the target itself
    assert rows[1][1] == rows[2][1]
    assert "| random weights |" in (model / "README.md").read_text()


def test_another_tokenizer_is_refused(finished, tmp_path):
    """A draft with another tokenizer than its target's is refused."""
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer"):
        check_same_tokenizer(finished / "model", tmp_path / "tokenizer.json")


def test_accuracy_counts_what_the_checker_accepts(lm):
    """A model that knows nothing answers nothing right; the interval is Wilson's."""
    measured = accuracy(lm, held_out("lists", 0, 5), max_new_tokens=4)
    assert (measured.task, measured.level, measured.count) == ("lists", 0, 5)
    assert Accuracy("lists", 0, 50, 100).interval() == pytest.approx((0.4038, 0.5962), abs=1e-4)
