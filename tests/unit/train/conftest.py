"""One tiny run that the tests of the training recipe share."""

from dataclasses import replace

import pytest

from treille.train.recipe import load_recipe
from treille.train.run import train_model
from treille.train.trainer import Trainer


@pytest.fixture(scope="session")
def recipe():
    """The packaged tiny recipe, with fewer steps."""
    tiny = load_recipe("tiny")
    return replace(tiny, schedule=replace(tiny.schedule, steps=6, warmup=2))


@pytest.fixture(scope="session")
def finished(recipe, tmp_path_factory):
    """The directory of a finished run of the recipe, without an evaluation of tasks."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    train_model(recipe, "tiny", directory, questions=0)
    return directory


@pytest.fixture(scope="session")
def trainer(recipe, finished):
    """The finished run, taken up: at its last step."""
    return Trainer(recipe, finished)
