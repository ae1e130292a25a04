"""Greedy decoding."""

import pytest

from treille.errors import ParameterError
from treille.strategies import greedy
from treille.testing import TableModel, run_alone


def test_the_best_token_at_every_step():
    """Each token is the argmax of its row, the lowest id on ties; everything is streamed as it comes."""
    model = TableModel.markov([["1/4", "3/8", "3/8"], ["1/2", "1/4", "1/4"], ["1/3", "1/3", "1/3"]])
    done = run_alone(greedy(), model, max_new_tokens=4)
    assert done.text == (1, 0, 1, 0)
    assert done.settled == [2, 3, 4, 5]
    assert done.forwards == {"target": 4}
    assert done.output.candidates[0].finish_reason == "length"


def test_it_ends_at_the_end_token():
    """The end token is part of the tokens."""
    model = TableModel.markov([["0", "1", "0"], ["0", "0", "1"], ["1", "0", "0"]])
    done = run_alone(greedy(), model, eos_token_ids=(2,))
    assert done.text == (1, 2)
    assert done.output.candidates[0].finish_reason == "eos"


@pytest.mark.parametrize("wrong", [{"num_return_sequences": 2}, {"do_sample": True}])
def test_refusals(wrong):
    """Several texts and drawing are refused before anything is computed."""
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        run_alone(greedy(), TableModel.random(3, 0), **wrong)
