"""Models as ordinary Hugging Face directories."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from treille.errors import CheckpointError, ParameterError
from treille.train.network import EPSILON, THETA
from treille.train.tokenizer import END, PAD, tokenizer_config

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

    from treille.train.network import Llama
    from treille.train.recipe import Shape

MODEL = "model"  # folder of a run's directory


def sibling(directory: Path, run: str) -> Path:
    """Directory of the model that the run of this name, beside ``directory``, has made.

    Raises:
        ParameterError: there is no such model.
    """
    model = directory.resolve().parent / run / MODEL
    if not (model / "model.safetensors").exists():
        raise ParameterError(
            f"the recipe needs the model of the run {run!r}, and {model} has none: train {run} there first"
        )
    return model


def read_weights(network: Llama, directory: Path) -> None:
    """Replace the network's weights by those of a model directory, in the network's dtype.

    Raises:
        CheckpointError: the names or shapes differ.
    """
    path = directory / "model.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} does not fit the recipe's shape: {reason}") from None


def config(shape: Shape) -> dict[str, Any]:
    """Contents of ``config.json``; the exits of a nested draft stand under a key of their own."""
    nested = {"exits": list(shape.exits)} if len(shape.exits) > 1 else {}
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": END,
        "dtype": "bfloat16",
        "eos_token_id": END,
        **nested,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pad_token_id": PAD,
        "rms_norm_eps": EPSILON,
        "rope_parameters": {"rope_theta": THETA, "rope_type": "default"},
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": shape.vocabulary,
    }


def export(directory: Path, network: Llama, tokenizer: Tokenizer) -> None:
    """Replace ``directory`` by the model in bfloat16 with its tokenizer; a reader never sees half of it."""
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    (partial / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner only
    shape = network.shape
    generation = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": PAD}
    for name, table in (
        ("config.json", config(shape)),
        ("generation_config.json", generation),
        ("tokenizer_config.json", tokenizer_config(shape.context)),
    ):
        (partial / name).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(partial / "tokenizer.json"))
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
