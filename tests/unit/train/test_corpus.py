"""Batches: keyed by (seed, step), packed without waste, no document predicted from another."""

import numpy as np
import pytest
import torch

from treille.train.corpus import Corpus, Generated, Mixture, make_pool
from treille.train.recipe import Data
from treille.train.tokenizer import ASSISTANT, END


@pytest.fixture(scope="module")
def mixture(trainer):
    """A source with a third of Python."""
    return Mixture(trainer.tokenizer, Data(python=0.34, texts=20, level_steps=100), seed=4)


def same(a, b):
    """Whether two batches are equal in all parts."""
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("ids", "targets", "segments", "counted"))


def test_a_batch_is_a_function_of_seed_and_step(trainer, mixture):
    """Equal seeds and steps give equal batches, in any order and from another object; others differ."""
    corpus = Corpus(mixture, 4, 0.2)
    later = corpus.batch(8, 3, 96)
    first = corpus.batch(7, 3, 96)
    again = Corpus(Mixture(trainer.tokenizer, mixture.data, seed=4), 4, 0.2)
    assert same(first, again.batch(7, 3, 96))
    assert same(later, again.batch(8, 3, 96))
    assert not torch.equal(first.ids, later.ids)
    assert not torch.equal(first.ids, Corpus(mixture, 5, 0.2).batch(7, 3, 96).ids)


def test_rows_are_full_and_targets_are_the_next_tokens(mixture):
    """No padding; the target of a position is the id of the next one."""
    batch = Corpus(mixture, 4, 0.2).batch(3, 4, 96)
    assert batch.ids.shape == (4, 96)
    assert (batch.ids != 0).all()
    assert torch.equal(batch.targets[:, :-1], batch.ids[:, 1:])


def test_a_document_is_not_predicted_from_the_one_before_it(mixture):
    """The last position of a document is not counted; all others are, if every token of a prompt is."""
    batch = Corpus(mixture, 4, 1.0).batch(3, 6, 96)
    starts = batch.segments[:, 1:] != batch.segments[:, :-1]
    assert not batch.counted[:, :-1][starts].any()
    assert batch.counted[:, :-1][~starts].all()


def test_prompt_share(mixture):
    """Without a share for prompts only answers are predicted; they begin after the assistant's token."""
    data = Data(python=0.0, texts=20)
    batch = Corpus(Mixture(mixture.tokenizer, data, 4), 4, 0.0).batch(2**20, 6, 96)
    assert (batch.ids == ASSISTANT).any()
    assert batch.counted[batch.ids == ASSISTANT].all()
    assert not batch.counted[batch.targets == ASSISTANT].any()


def test_levels_are_admitted_one_after_the_other(mixture):
    """At step 0 only the two lowest levels are drawn; after `level_steps` all are."""
    rng = np.random.default_rng(0)
    assert max(mixture.example(rng, 0).level for _ in range(60)) == 1
    assert max(mixture.example(rng, 100).level for _ in range(200)) > 2


def test_pool_windows_are_cut_where_documents_end(trainer):
    """The parts of a window joined are consecutive tokens, and each but the last ends with the end token."""
    pool = make_pool(trainer.tokenizer, ["a = 1\n", "b = 22\n", "c = 333\n"])
    rng = np.random.default_rng(1)
    for _ in range(20):
        parts = pool.window(rng, 9)
        joined = np.concatenate([part.ids for part in parts])
        assert joined.tobytes() in pool.ids.astype(np.int32).tobytes()
        assert all(part.ids[-1] == END for part in parts[:-1])


def test_generated_texts_are_packed(tmp_path):
    """A target's texts fill a row; only what it answered is marked as an answer."""
    path = tmp_path / "texts.jsonl"
    path.write_text("[[5, 6, 4], [7, 1]]\n[[5, 4], [8, 9, 1]]\n")
    documents = Generated(path).documents(np.random.default_rng(0), 0, 12)
    assert sum(len(document.ids) for document in documents) == 12
    assert {tuple(zip(d.ids.tolist(), d.answer.tolist(), strict=True)) for d in documents[:-1]} <= {
        ((5, False), (6, False), (4, False), (7, True), (1, True)),
        ((5, False), (4, False), (8, True), (9, True), (1, True)),
    }
