"""Recipes: what a file may say, and which runs may be taken up by which recipe."""

from dataclasses import replace

import pytest

from treille.errors import ParameterError
from treille.train.recipe import CONFIGS, Schedule, from_table, load_recipe


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.toml")))
def test_packaged_recipes_survive_their_table(name):
    """Every packaged recipe loads, and its table gives the same recipe again."""
    recipe = load_recipe(name)
    assert from_table(recipe.as_table(), name) == recipe


TABLE = """
name = "x"
seed = 0
[shape]
layers = 2
hidden = 8
heads = 2
kv_heads = 1
intermediate = 8
[schedule]
steps = 1
"""


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("[shape]", "[form]", "shape"),
        ("seed = 0", "seed = 0\nlayer = 3", "layer"),
        ("seed = 0", "seed = ", "TOML"),
        ("hidden = 8", "hidden = 9", "hidden=9"),
        ("heads = 2", "heads = 2\nexits = [1]", "exits"),
        ("steps = 1", "steps = 1\ntokens = 1000", "tokens=1000"),
        ("steps = 1", "steps = 1\ndecay = 1.5", "decay=1.5"),
        ("steps = 1", "steps = 1\n[alignment]\ntarget = 't'\ntexts = 0", "texts=0"),
    ],
)
def test_refused_recipes(tmp_path, old, new, part):
    """A recipe that cannot be meant is refused with the key or the value."""
    path = tmp_path / "r.toml"
    path.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(ParameterError, match=part):
        load_recipe(path)


def test_unknown_name_lists_the_packaged_ones():
    """A name that is no recipe is refused with the names that are."""
    with pytest.raises(ParameterError, match="tiny"):
        load_recipe("tinny")


def test_rates_warm_up_stay_and_fall_to_zero():
    """Warm-up rises to 1, the stable phase is 1, the decay is linear and ends one step above zero."""
    schedule = Schedule(steps=100, warmup=10, decay=0.3)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10:71] == [1.0] * 61
    assert factors[70:] == pytest.approx([(100 - i) / 30 for i in range(70, 100)])


def test_only_the_length_may_change_and_only_before_the_decay():
    """A recipe continues another if they are equal, or differ in their steps while both are still stable."""
    recipe = load_recipe("target")
    longer = replace(recipe, schedule=replace(recipe.schedule, steps=recipe.schedule.steps + 500))
    settled = recipe.schedule.settled
    assert longer.continues(recipe, settled)
    assert not longer.continues(recipe, settled + 1)
    assert recipe.continues(recipe, settled + 1)
    assert not replace(recipe, seed=9).continues(recipe, 0)
