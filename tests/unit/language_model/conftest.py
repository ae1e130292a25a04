"""Tiny random checkpoints behind the public face."""

import pytest

import random_llama
import treille


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Directory and `transformers` model of a checkpoint with a byte-level tokenizer."""
    directory = tmp_path_factory.mktemp("bytes")
    return directory, random_llama.save(directory)


@pytest.fixture(scope="module")
def lm(saved):
    """A model in debug mode."""
    return treille.load(saved[0], debug=True)


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    """A model whose tokenizer strips the first space of a text."""
    directory = tmp_path_factory.mktemp("spaces")
    random_llama.save(directory, random_llama.metaspace)
    return treille.load(directory, debug=True)


@pytest.fixture(scope="module")
def mute(tmp_path_factory):
    """A model without tokenizer."""
    directory = tmp_path_factory.mktemp("mute")
    random_llama.save(directory, None)
    return treille.load(directory)


@pytest.fixture(autouse=True)
def nothing_left(lm, spaced, mute):
    """After every test no run is left in the engine, no listener, and all slots are free or in the prefix cache."""
    yield
    for model in (lm, spaced, mute):
        assert model.engine.jobs == {}
        assert model.engine.instruments == []
        accounts = model.engine.runners["target"].store.accounts()
        assert accounts.protected == 0
        model.engine.runners["target"].prefix.clear()
        assert model.engine.runners["target"].store.accounts().free == accounts.total
