"""DySpec; its law is in tests/laws."""

import pytest
from draft_tables import FALLING, MODELS, acceptance, paths, proposed

from treille.errors import ParameterError

MODEL = {"target": FALLING, "draft": FALLING}


def test_the_trace_of_the_heap():
    """The card's trace with the mode in the place of every draw: estimates 1, .6, .4, .36, .3, .24."""
    tree, done = proposed("dyspec:rows=6,form=heap", MODEL)
    assert paths(tree) == ["a", "aa", "b", "aaa", "ba", "ab"]
    assert done.forwards["draft"] == 4  # of the root, a, aa and b


def test_levels_draw_where_the_estimate_is_above_the_threshold():
    """The nodes that the heap has drawn when its best estimate falls to the threshold, in one pass per level."""
    tree, done = proposed("dyspec:rows=16,threshold=0.23", MODEL)
    assert sorted(paths(tree)) == sorted(["a", "aa", "b", "aaa", "ba", "ab"])
    assert done.forwards["draft"] == 3


def test_rows_bound_the_tree():
    """Whatever the threshold, the nodes of the best estimates of a level come first."""
    tree, _ = proposed("dyspec:rows=3,threshold=0.01", MODEL)
    assert paths(tree) == ["a", "b", "c"]
    assert tree.size == 3


def test_drawn_siblings_are_verified_without_replacement():
    """One level with two draws has the golden acceptance .764286."""
    assert float(acceptance("dyspec:rows=2,threshold=0.01")) == pytest.approx(0.764286, abs=1e-6)


def test_every_draw_carries_its_law():
    """Drawn nodes have the draft's law at their parent."""
    tree, _ = proposed("dyspec:rows=8,form=heap", MODELS, do_sample=True, verification="rejection")
    for index, trials in enumerate(tree.trials):
        for trial in trials:
            assert tuple(trial.law.q) == MODELS["draft"].law(tree.nodes[index].path.tolist())


@pytest.mark.parametrize(
    ("draft", "message"),
    [("dyspec:rows=0", "rows=0"), ("dyspec:threshold=2.0", "threshold=2.0"), ("dyspec:form=tree", "levels, heap")],
)
def test_refusals(draft, message):
    """Each refusal names the value."""
    with pytest.raises(ParameterError, match=message):
        proposed(draft)
