"""A fixture that saves random checkpoints; one thread, as such small products only wait for each other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from model_checkpoints import Checkpoint, make_checkpoint


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Runs the module's tests on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Saves a random model of `transformers`; by default a small Llama."""

    def build(config: str = "LlamaConfig", model: str = "LlamaForCausalLM", **keys: object) -> Checkpoint:
        return make_checkpoint(tmp_path / "checkpoint", config, model, **keys)

    return build
