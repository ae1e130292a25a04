"""Every drafter with everything else, through the engine: the texts are those of plain decoding.

One column of the table in docs/drafters/index.md per test; `python scripts/pairs.py` writes it from these tests.
"""

from __future__ import annotations

import pytest

import random_llama
import treille
from treille.drafters import registry
from treille.strategies import best_of_n, first_finish, greedy, sample, self_consistency
from treille.train.datastore import build_datastore

PROMPT = "abc abc. the cat, the hat; abc"
DRAFTERS = sorted(info.name for info in registry if info.kind.__module__.startswith("treille.drafters."))

# What a drafter cannot do without.
NEEDS = {
    "retrieval": "datastore={store}",
    "rasd": "datastore={store}",
    "combined": "drafters=[prompt_lookup,suffix]",
    "vocab_trim": "keep=24",
}

PROCESSORS = {
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "no_repeat_ngram_size": 4},
    "min-p": {"min_p": 0.1, "temperature": 1.3},
    "top-k, top-p": {"top_k": 12, "top_p": 0.9},
    "logit bias": {"logit_bias": {3: 2.0, 5: -1.5}},
    "bad words": {"bad_words_ids": [[4], [7, 8]]},
    "your own": {"logits_processor": lambda path, logits: logits - 0.01 * len(path) * logits.sign()},
}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A random model that drafts for itself, in debug mode."""
    directory = tmp_path_factory.mktemp("model")
    random_llama.save(directory, sharpness=4.0, layers=4)
    return treille.load(directory, draft_model={"draft": directory, "nested": directory}, debug=True)


@pytest.fixture(scope="module")
def drafted(lm, tmp_path_factory):
    """The drafter of a name as `draft=` has it."""
    store = tmp_path_factory.mktemp("data") / "store"
    texts = [lm.encode(text) for text in ("the cat sat. the hat", "abc abc abd", PROMPT)]
    build_datastore(texts, store, vocab_size=lm.checkpoint.decoder.shape.vocab_size)
    return lambda name: f"{name}:{NEEDS[name].format(store=store)}" if name in NEEDS else name


def same(lm, draft, strategy, **options):
    """Plain and drafted decoding give the same candidates; the drafted result."""
    options = {"max_new_tokens": 24, "seed": 5, **options}
    plain = lm.generate(PROMPT, strategy, **options)
    found = lm.generate(PROMPT, strategy, draft=draft, governor=False, draft_rows=12, **options)
    assert [c.tokens for c in found.candidates] == [c.tokens for c in plain.candidates]
    assert [c.finish_reason for c in found.candidates] == [c.finish_reason for c in plain.candidates]
    for mine, theirs in zip(found.candidates, plain.candidates, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert mine.raw_logprob == pytest.approx(theirs.raw_logprob, abs=1e-3)
    return found


@pytest.mark.parametrize("name", DRAFTERS)
def test_greedy(lm, drafted, name):
    """The greedy text."""
    same(lm, drafted(name), greedy())


@pytest.mark.parametrize("name", DRAFTERS)
def test_sample(lm, drafted, name):
    """Two samples of one prompt."""
    same(lm, drafted(name), sample(num_return_sequences=2))


@pytest.mark.parametrize("name", DRAFTERS)
def test_rejection(lm, drafted, name):
    """Verification by rejection runs through; its law is proved by enumeration."""
    out = lm.generate(
        PROMPT, sample(), draft=drafted(name), verification="rejection", draft_rows=12, seed=5, max_new_tokens=16
    )
    assert 1 <= len(out.tokens) <= 16
    assert out.stats.drafts.emitted == len(out.tokens)


@pytest.mark.parametrize("name", DRAFTERS)
def test_gumbel_noise(lm, drafted, name):
    """Draws with keyed Gumbel noise."""
    same(lm, drafted(name), sample(), noise="gumbel")


@pytest.mark.parametrize("name", DRAFTERS)
def test_best_of_n(lm, drafted, name):
    """Several branches, each drafted for."""
    same(lm, drafted(name), best_of_n(n=3))


@pytest.mark.parametrize("name", DRAFTERS)
def test_self_consistency(lm, drafted, name):
    """A vote over drafted branches."""
    same(lm, drafted(name), self_consistency(n=3, extract=lambda text: len(text) % 2))


@pytest.mark.parametrize("name", DRAFTERS)
def test_first_finish(lm, drafted, name):
    """A race is decided by tokens, so drafting does not decide it."""
    same(lm, drafted(name), first_finish(n=3))


@pytest.mark.parametrize("name", DRAFTERS)
def test_processors(lm, drafted, name):
    """Every kind of processor sees the path of every drafted row."""
    for options in PROCESSORS.values():
        same(lm, drafted(name), sample(), max_new_tokens=12, **options)


@pytest.mark.parametrize("name", DRAFTERS)
def test_stop_strings(lm, drafted, name):
    """A stop string inside accepted tokens ends the text there."""
    same(lm, drafted(name), sample(), stop_strings=["a", "3", "th"])


@pytest.mark.parametrize("name", DRAFTERS)
def test_streaming(lm, drafted, name):
    """The pieces of a stream are the text."""
    with lm.stream(PROMPT, sample(), draft=drafted(name), seed=5, max_new_tokens=16) as stream:
        assert "".join(stream) == lm.generate(PROMPT, sample(), seed=5, max_new_tokens=16).text


@pytest.mark.parametrize("name", DRAFTERS)
def test_constraint(lm, drafted, name):
    """Illegal drafts are cut, every row has the mask of its own path."""
    same(lm, drafted(name), sample(), constraint=treille.regex("(ab|c)+[0-9]{2}"))


@pytest.mark.parametrize("name", DRAFTERS)
def test_mixed_batch(lm, drafted, name):
    """One batch with plain requests and other drafters: each has the text that it has alone."""
    strategies = [
        sample(draft=drafted(name), governor=False), sample(), greedy(draft="prompt_lookup"),
        best_of_n(n=2, draft=drafted(name)), sample(draft="suffix", temperature=0.7),
    ]  # fmt: skip
    prompts = [PROMPT, "the hat", PROMPT, "abc", "the the the"]
    together = lm.generate(prompts, strategies, seed=3, max_new_tokens=12)
    for out, prompt, strategy in zip(together, prompts, strategies, strict=True):
        assert out.tokens == lm.generate(prompt, strategy, seed=3, max_new_tokens=12).tokens
