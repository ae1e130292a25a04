"""First Finish Search; its laws are in tests/laws."""

import pytest

from treille.errors import ParameterError
from treille.strategies import first_finish, sample
from treille.testing import TableModel, run_alone

MODEL = TableModel.hashed(4, 3)
LIMITS = {"max_new_tokens": 30, "eos_token_ids": (3,)}


def test_the_shortest_of_the_samples_wins():
    """The winner is the shortest of what `sample` draws with the same seed, the first on ties."""
    drawn = run_alone(sample(num_return_sequences=5), MODEL, **LIMITS).texts
    done = run_alone(first_finish(n=5), MODEL, **LIMITS)
    winner = done.output.details["winner"]
    assert winner == min(range(5), key=lambda i: len(drawn[i]))
    assert done.text == drawn[winner]


def test_no_step_is_computed_after_the_winner_ended():
    """Forwards: as many as the winner has tokens."""
    done = run_alone(first_finish(n=5), MODEL, **LIMITS)
    assert done.forwards == {"target": len(done.text)}
    assert done.rows["target"] <= 1 + 5 * (len(done.text) - 1)


@pytest.mark.parametrize(
    ("strategy", "more", "message"),
    [
        (first_finish(n=0), {}, "n=0 is too small"),
        (first_finish(), {"num_return_sequences": 2}, "strategy='sample'"),
        (first_finish(), {"do_sample": False}, "would be the same"),
    ],
)
def test_refusals(strategy, more, message):
    """Each refusal names the value and the way out."""
    with pytest.raises(ParameterError, match=message):
        run_alone(strategy, MODEL, **more)
