"""Beam search; equality with `transformers` and by enumeration is in tests/laws."""

import math

import pytest

from treille.errors import NoTokenLeft, ParameterError
from treille.sampling.chain import Chain
from treille.sampling.lexical import BadWords, SuppressTokens
from treille.strategies import beam
from treille.testing import TableModel, run_alone

MODEL = TableModel.hashed(4, 0)
LIMITS = {"max_new_tokens": 6, "eos_token_ids": (3,)}


def test_candidates_are_ranked_by_normalised_score():
    """Best first; score = logprob / length^α with the end token counted."""
    done = run_alone(beam(width=4, length_penalty=0.5), MODEL, num_return_sequences=4, **LIMITS)
    scores = [h.score for h in done.output.candidates]
    assert scores == sorted(scores, reverse=True)
    for text, hypothesis in zip(done.texts, done.output.candidates, strict=True):
        assert hypothesis.logprob == pytest.approx(math.log(MODEL.probability(text, (0,))))
        assert hypothesis.raw_logprob == pytest.approx(hypothesis.logprob)
        assert hypothesis.score == pytest.approx(hypothesis.logprob / len(text) ** 0.5)
        assert hypothesis.finish_reason == ("eos" if text[-1] == 3 else "length")


def test_stop_strings_end_a_beam():
    """A text with a stop string is finished there, and no returned text goes past one."""
    found = set()
    for seed in range(30):
        done = run_alone(
            beam(width=3), TableModel.hashed(4, seed), num_return_sequences=3, stop_strings=("ab", "cc"), **LIMITS
        )
        for text, hypothesis in zip(done.texts, done.output.candidates, strict=True):
            letters = done.run.codec.decode(text)
            if hypothesis.finish_reason == "stop_string":
                assert letters.endswith(("ab", "cc"))
                letters = letters[:-1]
            assert "ab" not in letters
            assert "cc" not in letters
            found.add(hypothesis.finish_reason)
    assert {"stop_string", "eos"} <= found


def test_one_forward_per_step_and_width_rows():
    """All beams of a step share a forward."""
    done = run_alone(beam(width=3), TableModel.random(5, 1), max_new_tokens=6, prompt=(0,) * 9)
    assert done.forwards == {"target": 6}
    assert done.rows == {"target": 9 + 5 * 3}


def test_a_dead_beam_does_not_fail_the_others():
    """Where processors leave a beam no token it is dropped; with none left the error says so."""
    words = Chain((BadWords(tuple((0, token) for token in range(4))),))
    done = run_alone(beam(width=3), MODEL, prompt=(1,), num_return_sequences=2, processors=words, **LIMITS)
    assert all(0 not in text[:-1] for text in done.texts)
    with pytest.raises(NoTokenLeft, match="no beam"):
        run_alone(beam(), MODEL, processors=Chain((SuppressTokens((0, 1, 2, 3)),)))


def test_fewer_texts_than_the_width_are_all_returned():
    """A model with two texts gives both, once each."""
    model = TableModel.markov([["1/4", "3/4"], ["0", "1"]])
    done = run_alone(beam(width=5), model, prompt=(0,), max_new_tokens=1, num_return_sequences=5)
    assert done.texts == ((1,), (0,))


@pytest.mark.parametrize(
    ("strategy", "more", "message"),
    [
        (beam(width=0), {}, "width=0 is too small"),
        (beam(early_stopping="always"), {}, "choose False, True or 'never'"),
        (beam(early_stopping=1), {}, "early_stopping=1"),
        (beam(width=2), {"num_return_sequences": 3}, "raise width"),
        (beam(), {"do_sample": True}, "draws no tokens"),
    ],
)
def test_refusals(strategy, more, message):
    """Each refusal names the value and the way out."""
    with pytest.raises(ParameterError, match=message):
        run_alone(strategy, MODEL, **more)
