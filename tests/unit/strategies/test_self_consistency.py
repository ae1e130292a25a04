"""Self-consistency; its laws are in tests/laws."""

import pytest

from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.strategies import self_consistency
from treille.strategies.self_consistency import count, decided, last_number
from treille.strategy import Limits, Run
from treille.testing import TableModel, run_alone
from treille.tree import Node

MODEL = TableModel.random(4, 2)
LIMITS = {"max_new_tokens": 4, "eos_token_ids": (3,)}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 3 + 4 = 7.", "7"),
        ("it is 0.50", "1/2"),
        ("it is 2/4", "1/2"),
        ("about 1,234,567 in all", "1234567"),
        ("minus: -3", "-3"),
        ("5-3", "3"),
        ("version x7", None),
        ("1/0", "0"),
        ("no number", None),
        ("", None),
    ],
)
def test_last_number(text, answer):
    """The last number in lowest terms, so that equal values in other notations are one answer."""
    assert last_number(text) == answer


def test_texts_without_an_answer_abstain():
    """They do not vote, and None never wins over an answer; without any answer the first text is returned."""
    assert count(["x", None, "y", "x", None, None], [1.0] * 6) == {"x": 2.0, "y": 1.0}
    done = run_alone(self_consistency(extract=lambda text: None), MODEL, **LIMITS)
    assert done.output.details == {"answer": None, "votes": {}, "answers": (None,) * 8}


def test_ties_go_to_the_summed_probability():
    """One vote each: the more probable text wins, whichever was drawn first."""
    model = TableModel.markov([["1/8", "7/8"], ["1/2", "1/2"]])
    for seed in range(40):
        done = run_alone(self_consistency(n=2, extract=str), model, max_new_tokens=1, random=Random(seed))
        if len(done.output.details["votes"]) == 2:
            assert done.output.details["answer"] == "b"
            break
    else:
        pytest.fail("no seed gave a tie")


def test_the_winner_is_the_first_text_with_the_answer():
    """Its score is the answer's votes, and details list all of them."""
    done = run_alone(self_consistency(n=9, extract=lambda text: text[:1] or None), MODEL, **LIMITS)
    details = done.output.details
    assert details["votes"][details["answer"]] == max(details["votes"].values()) == done.output.candidates[0].score
    assert len(details["answers"]) == 9


def test_a_lead_is_decided_only_when_it_cannot_be_caught():
    """A tie that is still possible is not decided."""
    assert not decided({}, 3)
    assert not decided({"x": 3.0, "y": 1.0}, 2)
    assert decided({"x": 3.0, "y": 1.0}, 1)
    assert not decided({"x": 2.0}, 2)
    assert decided({"x": 2.0}, 1)


@pytest.mark.parametrize(
    ("strategy", "more", "message"),
    [
        (self_consistency(n=0), {}, "n=0 is too small"),
        (self_consistency(round_size=0), {}, "round_size=0 is too small"),
        (self_consistency(), {"num_return_sequences": 2}, r"details\['answers'\]"),
        (self_consistency(), {"do_sample": False}, "would be the same"),
    ],
)
def test_refusals(strategy, more, message):
    """Each refusal names the value and the way out."""
    with pytest.raises(ParameterError, match=message):
        run_alone(strategy, MODEL, **more)


def test_a_checkpoint_without_tokenizer_is_refused_before_the_first_token():
    """Votes need texts."""
    run = Run(Node.root([0]), Random(0), Limits(4), do_sample=True)
    with pytest.raises(ParameterError, match="no tokenizer"):
        next(self_consistency().start(run))
