"""A fixture that saves random checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest
from model_checkpoints import Checkpoint, make_checkpoint


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Saves a random model of `transformers`; by default a small Llama."""

    def build(config: str = "LlamaConfig", model: str = "LlamaForCausalLM", **keys: object) -> Checkpoint:
        return make_checkpoint(tmp_path / "checkpoint", config, model, **keys)

    return build
