"""Greedy and beam search on a random Llama, token by token and score by score those of `transformers`.

`transformers` decodes the prompts one by one, Treille all of them in one batch and with several operations builds, so
neither batching nor the kernels may change a text.
"""

import pytest
import torch

import random_llama
import treille
from treille.attention import merged
from treille.models.ops import TorchOps
from treille.strategies import beam, greedy

NEW_TOKENS = 14
PROMPTS = [[5], [1, 2, 3], [7, 8], [9, 4, 9, 4, 9], [30, 31, 32, 33], list(range(40)), [20] * 17, [11, 3]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Directory and `transformers` model of a checkpoint without tokenizer."""
    directory = tmp_path_factory.mktemp("llama")
    return directory, random_llama.save(directory, None, seed=4)


@pytest.fixture(scope="module", params=["kernels", "operations", "torch"])
def lm(request, saved):
    """The model under every build: one kernel call per forward, one per operation, and plain torch."""
    model = treille.load(saved[0], dtype="float32", prefix_cache=False)
    decoder = model.checkpoint.decoder
    if request.param != "kernels":
        decoder.stack = None
    if request.param == "torch":
        decoder.ops = TorchOps(merged.attend)
    return model


@pytest.fixture(scope="module")
def theirs(saved):
    """Texts and scores of `transformers` for a prompt; each is computed once for all builds."""
    model, known = saved[1], {}

    def generate(prompt, **options):
        key = (tuple(prompt), repr(options))
        if key not in known:
            ends = options.pop("eos_token_id", [model.config.eos_token_id])
            output = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
                max_new_tokens=NEW_TOKENS, pad_token_id=999, eos_token_id=ends, return_dict_in_generate=True,
                output_scores=True, **options,
            )  # fmt: skip
            texts = [tuple(t for t in row[len(prompt) :] if t != 999) for row in output.sequences.tolist()]
            scores = getattr(output, "sequences_scores", None)
            known[key] = texts, None if scores is None else scores.tolist()
        return known[key]

    return generate


PROCESSORS = [
    {},
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": [[22], [3, 9], [8, 8, 8]]},
    {"min_new_tokens": 6},
    {"repetition_penalty": 0.8, "no_repeat_ngram_size": 3, "min_new_tokens": 4, "suppress_tokens": [1, 2]},
    {"eos_token_id": [45, 7, 8]},
]


@pytest.mark.parametrize("processors", PROCESSORS, ids=str)
def test_greedy(lm, theirs, processors):
    """Every token of every prompt, with and without processors."""
    outs = lm.generate(PROMPTS, greedy(), max_new_tokens=NEW_TOKENS, **processors)
    assert [out.tokens for out in outs] == [theirs(p, num_beams=1, **processors)[0][0] for p in PROMPTS]


BEAMS = [
    (width, length_penalty, early_stopping)
    for width, length_penalty in ((2, 1.0), (3, 0.0), (4, 2.0), (5, 1.0), (3, 2.0), (2, 0.0))
    for early_stopping in (False, True, "never")
]


def compare(lm, theirs, prompts, width, length_penalty, early_stopping, processors):
    """Texts equal, in order, and scores within 1e-4."""
    strategy = beam(width=width, length_penalty=length_penalty, early_stopping=early_stopping)
    outs = lm.generate(prompts, strategy, num_return_sequences=width, max_new_tokens=NEW_TOKENS, **processors)
    for prompt, out in zip(prompts, outs, strict=True):
        texts, scores = theirs(
            prompt, num_beams=width, num_return_sequences=width, length_penalty=length_penalty,
            early_stopping=early_stopping, **processors,
        )  # fmt: skip
        assert [c.tokens for c in out.candidates] == texts
        assert [c.score for c in out.candidates] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize(("width", "length_penalty", "early_stopping"), BEAMS)
def test_beam(lm, theirs, width, length_penalty, early_stopping):
    """All returned texts in order, and their scores, for every kind of length penalty and early stopping."""
    compare(lm, theirs, PROMPTS[:4], width, length_penalty, early_stopping, {})


@pytest.mark.parametrize("processors", PROCESSORS[1:], ids=str)
def test_beam_with_processors(lm, theirs, processors):
    """Processors see each beam's own path, and act on its log-probabilities."""
    compare(lm, theirs, PROMPTS, 3, 1.0, False, processors)


def test_the_texts_end_differently(theirs):
    """The comparison is worth its name: some texts end by an end token, some at the limit."""
    lengths = {len(theirs(p, num_beams=1)[0][0]) for p in PROMPTS}
    assert NEW_TOKENS in lengths
    assert min(lengths) < NEW_TOKENS
