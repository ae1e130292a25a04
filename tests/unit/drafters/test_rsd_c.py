"""RSD-C; its law is in tests/laws."""

from fractions import Fraction

import pytest
from draft_tables import DRAFT, WIDE, acceptance, as_draft, paths, proposed

from treille.drafters.rsd_c import rsd_c
from treille.errors import ParameterError


@pytest.mark.parametrize(
    ("k", "wanted"), [(1, Fraction(3, 5)), (2, Fraction(107, 140)), (3, Fraction(14117, 16800)), (4, Fraction(1))]
)
def test_acceptance_without_replacement(k, wanted):
    """The golden vectors: .6, .764286, .840298, 1."""
    assert acceptance(f"rsd_c:widths=[{k}]") == wanted


@pytest.mark.parametrize(("k", "wanted"), [(1, Fraction(1, 10)), (2, Fraction(3, 10)), (3, Fraction(3, 5))])
def test_acceptance_of_the_best_tokens(k, wanted):
    """Matched without drawing (its acceptance by rule V5 is the same): the mass of the k best under p."""

    class chosen(rsd_c):
        def source(self, run, node, *, chosen=False):
            """The best tokens in either case."""
            return super().source(run, node, chosen=True)

    assert acceptance(as_draft(chosen, widths=[k])) == wanted


def test_siblings_are_distinct_and_share_one_law():
    """Every node of a level has the given number of children, in the order of the draws."""
    tree, done = proposed("rsd_c:widths=[3,2,1]", WIDE, do_sample=True, verification="rejection")
    assert len(set(paths(tree))) == tree.size == 3 + 6 + 6
    for index, trials in enumerate(tree.trials):
        assert len({trial.token for trial in trials}) == len(trials) == [3, 2, 1, 0][tree.depths[index]]
        assert len({id(trial.law) for trial in trials}) == min(1, len(trials))
    assert done.forwards["draft"] == 3


def test_a_small_support_has_fewer_children():
    """A law with two tokens gives two children, however many are wanted."""
    tree, _ = proposed("rsd_c:widths=[3],keep=[0,1]", do_sample=True, verification="rejection")
    assert sorted(paths(tree)) == ["a", "b"]


def test_greedy_children_are_the_best():
    """Without drawing: the most probable tokens, best first."""
    tree, _ = proposed("rsd_c:widths=[2,1]")
    best = sorted(range(3), key=lambda token: -DRAFT.law([0])[token])
    assert [trial.token for trial in tree.trials[0]] == best[:2]


def test_refusals():
    """Widths are whole numbers of at least one."""
    with pytest.raises(ParameterError, match=r"widths=\[2, 0\]"):
        proposed("rsd_c:widths=[2,0]")
