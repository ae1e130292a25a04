"""Decoding without some layers: the law of the shallower model after the whole one has read the prompt."""

from fractions import Fraction

import pytest

from treille.errors import ParameterError
from treille.strategies import greedy, lossy_layer_skip, sample
from treille.testing import TableModel, enumerate_outputs, run_alone

MODEL = TableModel.markov([["1/2", "3/10", "1/5"], ["1/5", "1/2", "3/10"], ["1/10", "3/10", "3/5"]])


def test_without_anything_left_out_it_is_the_model():
    """`skip` empty: the plain law, and the plain greedy text."""
    assert enumerate_outputs(lossy_layer_skip(), MODEL) == enumerate_outputs(sample(), MODEL)
    assert run_alone(lossy_layer_skip(), MODEL, do_sample=False).text == run_alone(greedy(), MODEL).text


def test_it_is_another_law():
    """The first token has the model's law, later ones that of the remaining layers (a table: mixed with uniform)."""
    law = enumerate_outputs(lossy_layer_skip(skip=[1, 2]), MODEL, max_new_tokens=2)
    for a, p in enumerate(MODEL.law((0,))):
        for b, q in enumerate(MODEL.law((a,))):
            assert law[a, b] == p * (q / 2 + Fraction(1, 6))
    assert law != enumerate_outputs(sample(), MODEL, max_new_tokens=2)


@pytest.mark.parametrize("skip", [[1.5], [True], ["1"]])
def test_what_is_no_layer_is_refused(skip):
    """Numbers of layers are wanted; those the model lacks are refused by the engine."""
    with pytest.raises(ParameterError, match=r"not a value of type Sequence\[int\]"):
        run_alone(lossy_layer_skip(skip=skip), MODEL)
