"""Ancestral sampling; its laws are in tests/laws."""

import pytest

from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.testing import TableModel, run_alone

MODEL = TableModel.random(5, 1)


def test_a_seed_is_a_text():
    """The same seed gives the same text, other seeds others; it is streamed token by token."""
    texts = [run_alone(sample(), MODEL, random=Random(seed)).text for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    assert run_alone(sample(), MODEL).settled == [2, 3, 4, 5]


def test_more_texts_do_not_change_the_first_ones():
    """Text i is the same for every number of texts above it, and log-probabilities are the table's."""
    few, many = (run_alone(sample(num_return_sequences=n), MODEL) for n in (2, 5))
    assert many.texts[:2] == few.texts
    assert len(set(many.texts)) > 1
    assert not many.settled


def test_several_texts_compute_the_prompt_once():
    """Rows: the prompt, and each text's tokens but the last."""
    done = run_alone(sample(num_return_sequences=4), MODEL, prompt=(0,) * 50)
    assert done.rows == {"target": 50 + 4 * 3}


def test_without_drawing_it_is_greedy_and_one_text():
    """`do_sample=False` (temperature 0) is greedy; several equal texts are refused."""
    assert run_alone(sample(), MODEL, do_sample=False).text == run_alone(greedy(), MODEL).text
    with pytest.raises(ParameterError, match="would be the same"):
        run_alone(sample(), MODEL, do_sample=False, num_return_sequences=2)
