"""Diverse beam search; its laws are in tests/laws."""

import pytest

from treille.errors import ParameterError
from treille.strategies import diverse_beam
from treille.testing import TableModel, run_alone

MODEL = TableModel.random(8, 0)


def test_details_name_the_group_of_every_candidate():
    """All groups contribute; each group's candidates are sorted."""
    done = run_alone(diverse_beam(width=6, groups=3), MODEL, num_return_sequences=6)
    assert sorted(done.output.details["groups"]) == [0, 0, 1, 1, 2, 2]
    assert done.forwards == {"target": 4}


def test_a_penalty_makes_texts_differ():
    """More distinct tokens over the candidates than without a penalty."""
    spread = [
        len(
            {
                token
                for text in run_alone(diverse_beam(diversity_penalty=p), MODEL, num_return_sequences=4).texts
                for token in text
            }
        )
        for p in (0.0, 5.0)
    ]
    assert spread[1] > spread[0]


@pytest.mark.parametrize(
    ("strategy", "more", "message"),
    [
        (diverse_beam(width=4, groups=3), {}, "does not divide width=4"),
        (diverse_beam(groups=0), {}, "groups=0 is too small"),
        (diverse_beam(width=2), {"num_return_sequences": 3}, "raise width"),
        (diverse_beam(early_stopping="x"), {}, "early_stopping='x'"),
        (diverse_beam(), {"do_sample": True}, "draws no tokens"),
    ],
)
def test_refusals(strategy, more, message):
    """Each refusal names the value and the way out."""
    with pytest.raises(ParameterError, match=message):
        run_alone(strategy, MODEL, **more)
