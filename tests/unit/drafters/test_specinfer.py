"""SpecInfer; its law is in tests/laws."""

from fractions import Fraction

import pytest
from draft_tables import DRAFT, MODELS, TARGET, acceptance, paths, proposed

from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.testing import TableModel

SURE = TableModel.markov([["0", "1", "0"]] * 3)


@pytest.mark.parametrize(("k", "wanted"), [(1, Fraction(3, 5)), (2, Fraction(18, 25)), (3, Fraction(96, 125))])
def test_acceptance_of_independent_draws(k, wanted):
    """The golden vectors: .6, .72, .768."""
    assert acceptance(f"specinfer:widths=[{k}]") == wanted


def test_a_repeated_draw_is_computed_once_and_tried_twice():
    """A draft that always draws the same token has one node per level and as many trials as draws."""
    tree, done = proposed(
        "specinfer:widths=[3,2]", {"target": TARGET, "draft": SURE}, do_sample=True, verification="rejection"
    )
    assert paths(tree) == ["b", "bb"]
    assert [len(trials) for trials in tree.trials] == [3, 2, 0]
    assert done.forwards["draft"] == 2


def test_every_model_proposes_with_its_own_law():
    """Two models: the first one's draws, then the second one's, each with its own law."""
    models = {**MODELS, "sure": SURE}
    tree, _ = proposed("specinfer:widths=[2],model=[draft,sure]", models, do_sample=True, verification="rejection")
    laws = [tuple(trial.law.q) for trial in tree.trials[0]]
    assert laws == [DRAFT.law([0])] * 2 + [SURE.law([0])] * 2
    assert [trial.token for trial in tree.trials[0][2:]] == [1, 1]


def test_draws_are_fresh_in_every_step():
    """The root's length is part of the noise's key."""
    found = {
        tuple(paths(proposed("specinfer:widths=[2,2]", prompt=[0] * n, do_sample=True, verification="rejection",
                             random=Random(1))[0]))
        for n in range(1, 12)
    }  # fmt: skip
    assert len(found) > 4


@pytest.mark.parametrize("widths", ["[]", "[0]", "2", "[1.5]", "[true]"])
def test_refusals(widths):
    """Widths are whole numbers of at least one."""
    with pytest.raises(ParameterError, match=r"give a list of whole numbers|not a value of type Sequence\[int\]"):
        proposed(f"specinfer:widths={widths}")
    with pytest.raises(ParameterError, match="list of names"):
        proposed("specinfer:model=[]")
