"""DEL: the plan, the statistics it comes from, and that they never reach the text."""

import numpy as np
import pytest
from driving import Sizes
from driving import run as table_run
from small_models import assert_plain_text, engine, host, start, text

from treille.draft_tree import DraftTree
from treille.drafters.base import Host, Observation
from treille.drafters.dynamic_exit import Agreement, best_plan, dynamic_exit
from treille.errors import ParameterError
from treille.requests import Choice

ALPHAS = {4: 0.5, 8: 0.7, 12: 0.8, 16: 0.85}


def test_the_plan_with_the_most_tokens_per_layer():
    """The golden values: exit 8 and two tokens, .05475 tokens per layer; plain decoding has 1/24."""
    stop, length, rate = best_plan(ALPHAS, 24, 18)
    assert (stop, length) == (8, 2)
    assert rate == pytest.approx(0.05475)
    assert best_plan({4: 0.5}, 24, 18) == (4, 2, pytest.approx(0.0546875))
    assert best_plan({}, 24, 18) == (0, 0, pytest.approx(1 / 24))
    assert best_plan(ALPHAS, 24, 0)[:2] == (0, 0)
    assert best_plan({8: 0.1}, 24, 18)[:2] == (0, 0)


def test_an_expensive_head_shortens_the_draft():
    """With a head as costly as half of the layers, exits save less of a pass."""
    assert best_plan(ALPHAS, 24, 18, head=12.0)[1] <= best_plan(ALPHAS, 24, 18)[1]
    assert best_plan({4: 0.5}, 24, 18, head=24.0)[:2] == (0, 0)


def test_agreement_is_counted_and_decays():
    """Matches over all, with one of each taken for granted; no mismatch yet is no division by zero."""
    seen = Agreement()
    assert seen.alpha == 0.5
    assert seen.threshold == 0.5
    seen.add(Choice(1, np.log(0.8), np.log(0.8)), Choice(1, 0, 0))
    assert seen.alpha == pytest.approx(2 / 3)
    assert seen.threshold == pytest.approx(0.4)
    seen.add(Choice(2, np.log(0.2), np.log(0.2)), Choice(1, 0, 0))
    assert seen.threshold == pytest.approx(0.5)
    seen.decay(0.5)
    assert seen.counts == [0.5, 0.5]
    assert seen.threshold == pytest.approx(0.5)


def test_only_rows_of_the_real_text_are_counted():
    """The root and the accepted nodes: below a rejected token the context is not the text's."""
    drafter = dynamic_exit(Host(Sizes(3, layers=4), Sizes), every=1)
    assert list(drafter.exits) == [1, 2, 3]
    tree = DraftTree(table_run([0, 1]).tip)
    tree.add_chain([1, 2, 0])
    right, wrong = Choice(1, -0.1, -0.1), Choice(2, -0.1, -0.1)
    readings = [((right, right, wrong, right),), ((right, wrong, wrong, right),), ((wrong,) * 3 + (right,),), None]
    drafter.observe(Observation(np.array([0, 1, 1]), 2, tree, (1,), readings))
    assert [seen.counts for seen in drafter.exits.values()] == [[0, 2], [1, 1], [2, 0]]
    drafter.observe(Observation(np.array([0, 1, 1, 2]), 3))
    assert drafter.exits[1].counts == [0, 2]


def test_the_text_is_the_plain_text():
    """Greedy and with a seed, token for token, on a small model in debug mode."""
    assert_plain_text(engine(), "dynamic_exit:k=4,every=1")


def test_an_exit_that_always_agrees_is_used():
    """A target whose last layers do nothing: the exit before them is found and every draft of it accepted."""
    the_engine = engine(6)
    layers = the_engine.runners["target"].decoder.weights.layers
    for layer in layers[2:]:
        layer.out.weight.zero_()
        layer.mlp.down.weight.zero_()
    run = start(the_engine, "dynamic_exit:k=4,every=2")
    text(the_engine, run)
    assert run.drafts.accepted == run.drafts.drafted > 10
    assert run.drafts.emitted / run.drafts.steps > 2


@pytest.mark.parametrize("given", [{"k": 0}, {"every": 0}, {"decay": 1.5}, {"head": -1}, {"every": 6}])
def test_wrong_values_are_refused(given):
    """Each names the value; exits after every six layers of six are none."""
    with pytest.raises(ParameterError, match="draft"):
        dynamic_exit(host(engine()), **given)
