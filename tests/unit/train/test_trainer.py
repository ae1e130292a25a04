"""Training: a killed run ends with the same bits, and a run is not taken up by another recipe."""

import json
import shutil
from dataclasses import replace
from itertools import islice

import pytest
import torch

from treille.errors import CheckpointError, ParameterError
from treille.train.trainer import CHECKPOINT, Trainer, read_log


def weights(directory):
    """The weights of a run's checkpoint."""
    return torch.load(directory / CHECKPOINT, weights_only=True)["network"]


def fresh(finished, tmp_path):
    """A directory with the tokenizer of the finished run and nothing else."""
    directory = tmp_path / "run"
    directory.mkdir()
    shutil.copy(finished / "tokenizer.json", directory)
    return directory


def test_a_killed_run_ends_with_the_same_bits(recipe, finished, tmp_path):
    """Three steps, a checkpoint, two steps that are lost, the rest from the checkpoint: equal weights and losses."""
    directory = fresh(finished, tmp_path)
    killed = Trainer(recipe, directory)
    list(islice(killed.run(), 3))
    killed.save()
    list(islice(killed.run(), 2))
    list(Trainer(recipe, directory).run())
    expected, found = weights(finished), weights(directory)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    rows = [[(row["step"], row["loss"]) for row in read_log(place)] for place in (finished, directory)]
    assert rows[0] == rows[1]
    assert [step for step, _ in rows[1]] == [1, 2, 3, 4, 5, 6]


def test_a_longer_plan_is_taken_up_before_the_decay(recipe, finished, tmp_path):
    """A run stopped in the stable phase and continued with more steps equals a run of that length."""
    longer = replace(recipe, schedule=replace(recipe.schedule, steps=8))
    straight, changed = fresh(finished, tmp_path), tmp_path / "changed"
    shutil.copytree(straight, changed)
    list(Trainer(longer, straight).run())
    begun = Trainer(recipe, changed)
    list(islice(begun.run(), recipe.schedule.settled))
    begun.save()
    list(Trainer(longer, changed).run())
    expected, found = weights(straight), weights(changed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_another_recipe_is_refused(recipe, finished):
    """A directory of another recipe is refused, with the keys that differ."""
    with pytest.raises(CheckpointError, match="seed was 0, is 5"):
        Trainer(replace(recipe, seed=5), finished)


def test_a_missing_start_is_refused(recipe, tmp_path):
    """A recipe that starts from another run names where that run is looked for."""
    with pytest.raises(ParameterError, match="train draft there first"):
        Trainer(replace(recipe, start="draft"), tmp_path / "aligned")


def test_a_start_gives_weights_and_tokenizer(recipe, finished):
    """A run that starts from another begins with its exported weights and keeps its tokenizer."""
    made = Trainer(replace(recipe, start=finished.name), finished.parent / "next")
    stored = weights(finished)
    assert all(torch.equal(p.detach(), stored[n].bfloat16().float()) for n, p in made.network.named_parameters())
    assert (made.directory / "tokenizer.json").read_bytes() == (finished / "tokenizer.json").read_bytes()


def test_the_log_tells_the_losses(finished):
    """One row per step; the last one has the held-out losses by source."""
    rows = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert set(rows[-1]["held_out"]) == {"python", "tasks"}
    assert rows[-1]["loss"] < rows[0]["loss"]
