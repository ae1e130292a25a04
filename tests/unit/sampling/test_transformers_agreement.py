"""Each processor, and the whole chain, against `transformers`."""

import math
import types

import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation import logits_process as hf
from transformers.generation.utils import GenerationMixin

from treille.sampling import lexical, penalties, processors, truncation
from treille.sampling.path import Path
from treille.sampling.presets import build_chain

ROWS, VOCABULARY = 256, 120


def batch(seed, length=30, prompt_length=12, rows=ROWS, vocabulary=VOCABULARY, alphabet=None):
    """Random tokens, their paths, and random logits."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, alphabet or vocabulary, (rows, length)).astype(np.int32)
    logits = torch.from_numpy(rng.normal(0, 3, (rows, vocabulary)).astype(np.float32))
    return tokens, [Path(row, prompt_length) for row in tokens], logits


def masked(logits, seed, share=0.3):
    """``logits`` with a share of the tokens at -inf, never all of a row."""
    mask = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < share
    mask[:, 0] = False
    return logits.masked_fill(mask, -math.inf)


def assert_same(ours, theirs):
    """Same kept set, same values."""
    assert torch.equal(ours == -math.inf, theirs == -math.inf)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


TRUNCATIONS = [
    (processors.Temperature, hf.TemperatureLogitsWarper, [0.3, 0.7, 1.5]),
    (truncation.TopK, hf.TopKLogitsWarper, [1, 5, 500]),
    (lambda x: truncation.TopK(2, min_tokens_to_keep=x), lambda x: hf.TopKLogitsWarper(2, min_tokens_to_keep=x), [3]),
    (truncation.TopP, hf.TopPLogitsWarper, [0.0, 0.1, 0.5, 0.9, 0.99]),
    (lambda x: truncation.TopP(0.3, x), lambda x: hf.TopPLogitsWarper(0.3, min_tokens_to_keep=x), [3]),
    (truncation.MinP, hf.MinPLogitsWarper, [0.01, 0.1, 0.5, 1.0]),
    (lambda x: truncation.MinP(0.5, x), lambda x: hf.MinPLogitsWarper(0.5, min_tokens_to_keep=x), [4]),
    (truncation.TypicalP, hf.TypicalLogitsWarper, [0.05, 0.2, 0.5, 0.9]),
    (lambda x: truncation.TypicalP(0.1, True, x), lambda x: hf.TypicalLogitsWarper(0.1, min_tokens_to_keep=x), [4]),
    (truncation.EpsilonCutoff, hf.EpsilonLogitsWarper, [1e-3, 0.02, 0.5]),
    (lambda x: truncation.EpsilonCutoff(0.3, x), lambda x: hf.EpsilonLogitsWarper(0.3, min_tokens_to_keep=x), [3]),
    (truncation.EtaCutoff, hf.EtaLogitsWarper, [1e-3, 0.02, 0.5]),
    (lambda x: truncation.EtaCutoff(0.3, x), lambda x: hf.EtaLogitsWarper(0.3, min_tokens_to_keep=x), [3]),
    (truncation.TopH, hf.TopHLogitsWarper, [0.1, 0.4, 0.9]),
]


@pytest.mark.parametrize(("ours", "theirs", "values"), TRUNCATIONS)
@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_truncation_keeps_what_transformers_keeps(ours, theirs, values, hidden):
    """Same kept set and values on 256 random rows per setting, with and without tokens that are masked already."""
    _, paths, logits = batch(1)
    logits = masked(logits, 2, hidden) if hidden else logits
    for value in values:
        assert_same(ours(value)(paths, logits), theirs(value)(None, logits))


def test_truncation_of_a_large_vocabulary():
    """The short sorted prefix of top-p and typical gives the kept set of the full sort (vocabulary 20,000)."""
    for scale in (0.01, 4.0):
        logits = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(3)) * scale
        for p in (0.2, 0.9):
            assert_same(truncation.TopP(p)([], logits), hf.TopPLogitsWarper(p)(None, logits))
            assert_same(truncation.TypicalP(p)([], logits), hf.TypicalLogitsWarper(p)(None, logits))


HISTORY = [
    (penalties.RepetitionPenalty(1.3), hf.RepetitionPenaltyLogitsProcessor(1.3)),
    (penalties.RepetitionPenalty(0.8), hf.RepetitionPenaltyLogitsProcessor(0.8)),
    (penalties.RepetitionPenalty(1.3, "output"), hf.RepetitionPenaltyLogitsProcessor(1.3, prompt_ignore_length=12)),
    *[(lexical.NoRepeatNgram(n), hf.NoRepeatNGramLogitsProcessor(n)) for n in (1, 2, 3, 4, 40)],
    (
        lexical.SequenceBias((((1, 2), 1.5), ((3,), -0.5), ((0, 1, 2), -math.inf), ((2, 2), 0.25), ((1, 2, 2), 4.0))),
        hf.SequenceBiasLogitsProcessor({(1, 2): 1.5, (3,): -0.5, (0, 1, 2): -math.inf, (2, 2): 0.25, (1, 2, 2): 4.0}),
    ),
    (lexical.BadWords(((1, 2), (3,), (0, 0, 1))), hf.NoBadWordsLogitsProcessor([[1, 2], [3], [0, 0, 1]])),
    (lexical.SuppressTokens((3, 7)), hf.SuppressTokensLogitsProcessor([3, 7])),
    (lexical.BeginSuppressTokens((3, 7)), hf.SuppressTokensAtBeginLogitsProcessor([3, 7], 12)),
    (lexical.MinLength(20, (0, 5)), hf.MinLengthLogitsProcessor(20, [0, 5])),
    (lexical.MinNewTokens(8, (0, 5)), hf.MinNewTokensLengthLogitsProcessor(12, 8, [0, 5])),
    (lexical.ForcedEos((5, 6), max_length=21), hf.ForcedEOSTokenLogitsProcessor(21, [5, 6])),
    (lexical.ForcedEos((5, 6), max_new_tokens=9), hf.ForcedEOSTokenLogitsProcessor(21, [5, 6])),
    (lexical.ExponentialDecayLength(4, 1.1, (0, 5)), hf.ExponentialDecayLengthPenalty((4, 1.1), [0, 5], 12)),
    (processors.RemoveInvalidValues(), hf.InfNanRemoveLogitsProcessor()),
    (processors.Renormalize(), hf.LogitNormalization()),
]


@pytest.mark.parametrize(("ours", "theirs"), HISTORY)
def test_history_rules_agree(ours, theirs):
    """Same result on 256 random rows at each of several lengths, over a small alphabet so that everything recurs."""
    for length in (12, 13, 19, 20, 21, 30):
        tokens, paths, logits = batch(length, length, alphabet=4)
        ids = torch.from_numpy(tokens).long()
        assert_same(ours(paths, logits), theirs(ids, logits.clone()))


def test_remove_invalid_values_agrees():
    """NaN, inf and -inf become the same numbers."""
    logits = torch.tensor([[math.nan, math.inf, -math.inf, 1.0]])
    ours = processors.RemoveInvalidValues()([Path(np.array([0], np.int32), 1)], logits)
    assert torch.equal(ours, hf.InfNanRemoveLogitsProcessor()(None, logits))


def random_parameters(rng):
    """A random set of `transformers` parameters; each is set with probability 0.4."""
    choices = {
        "sequence_bias": lambda: [[[1, 2], 1.5], [[3], -0.5]],
        "repetition_penalty": lambda: float(rng.uniform(0.7, 1.6)),
        "no_repeat_ngram_size": lambda: int(rng.integers(2, 4)),
        "bad_words_ids": lambda: [[1, 2], [9], [0]],
        "min_length": lambda: int(rng.integers(10, 22)),
        "min_new_tokens": lambda: int(rng.integers(1, 10)),
        "forced_eos_token_id": lambda: 0,
        "remove_invalid_values": lambda: True,
        "exponential_decay_length_penalty": lambda: (int(rng.integers(0, 5)), float(rng.uniform(1.0, 1.3))),
        "suppress_tokens": lambda: [4, 8],
        "begin_suppress_tokens": lambda: [6, 11],
        "temperature": lambda: float(rng.uniform(0.3, 2.0)),
        "top_h": lambda: float(rng.uniform(0.2, 0.95)),
        "top_k": lambda: int(rng.integers(1, 30)),
        "top_p": lambda: float(rng.uniform(0.1, 0.99)),
        "min_p": lambda: float(rng.uniform(0.0, 0.3)),
        "typical_p": lambda: float(rng.uniform(0.1, 0.99)),
        "epsilon_cutoff": lambda: float(rng.uniform(1e-4, 0.1)),
        "eta_cutoff": lambda: float(rng.uniform(1e-4, 0.1)),
        "renormalize_logits": lambda: True,
    }
    params = {name: draw() for name, draw in choices.items() if rng.random() < 0.4}
    if params.keys() & {"exponential_decay_length_penalty", "forced_eos_token_id"}:
        # On masked tokens: with the decay `transformers` overflows to NaN, and a forced end leaves a row of equal
        # logits, of which it keeps arbitrary ones.
        params.pop("remove_invalid_values", None)
    return params


def their_chain(params, *, prompt_length, eos_ids, do_sample, num_beams):
    """What `generate` would build."""
    config = GenerationConfig()
    options = {"top_k": 0, **params, "do_sample": do_sample, "num_beams": num_beams, "max_length": 20}
    for name, value in (options | {"_eos_token_tensor": torch.tensor(eos_ids)}).items():
        setattr(config, name, value)
    model = types.SimpleNamespace(
        config=types.SimpleNamespace(is_encoder_decoder=False),
        _merge_criteria_processor_list=lambda default, custom: default,
    )
    return GenerationMixin._get_logits_processor(model, config, input_ids_seq_length=prompt_length, device="cpu")


@pytest.mark.parametrize("do_sample", [True, False])
def test_whole_chain_is_that_of_transformers(do_sample):
    """300 random parameter sets: the chain does what the processors do that `generate` itself would build."""
    rng = np.random.default_rng(7 + do_sample)
    lengths = set()
    for case in range(300):
        params, beams = random_parameters(rng), int(rng.integers(1, 3))
        length = int(rng.integers(12, 22))
        tokens, paths, logits = batch(case, length, rows=8, vocabulary=40, alphabet=5)
        theirs = their_chain(params, prompt_length=12, eos_ids=[0, 13], do_sample=do_sample, num_beams=beams)
        chain = build_chain(params, eos_ids=[0, 13], max_length=20, min_tokens_to_keep=3 if beams > 1 else 1)
        chain = chain if do_sample else chain.deterministic
        lengths.add(len(chain.processors))
        assert_same(chain(paths, logits), theirs(torch.from_numpy(tokens).long(), logits.clone()))
    assert len(lengths) > 5
