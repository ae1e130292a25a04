"""Checkpoints of known shapes with random weights, for machines without a download.

The weights mean nothing, but a step costs what it costs on the real model. They are written once, as a checkpoint, so
that both sides of a benchmark load the same file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from treille.models.tensors import SINGLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama whose embedding is also its output projection."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    context: int = 8192
    rope_theta: float = 100_000.0

    def config(self, dtype: torch.dtype) -> dict[str, object]:
        """The `config.json` of a checkpoint of this shape."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": str(dtype).removeprefix("torch."),
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.hidden // self.heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }


SHAPES = {
    "135m": Shape(30, 576, 9, 3, 1536, 49_152),  # SmolLM2-135M
    "1b": Shape(16, 2048, 32, 8, 8192, 128_256, rope_theta=500_000.0),  # Llama-3.2-1B
    "tiny": Shape(2, 64, 4, 2, 96, 256, context=2048),  # to try the commands
}
TITLES = {"135m": "SmolLM2-135M shape", "1b": "Llama-1B shape", "tiny": "tiny shape"}


def checkpoint(name: str, dtype: torch.dtype, work: Path) -> Path:
    """The directory below `work` of a checkpoint of a shape, written if it is not there yet.

    Args:
        name: A key of `SHAPES`.
        dtype: Of the stored weights.
        work: A folder that may be kept between runs.
    """
    shape = SHAPES[name]
    directory = work / f"{name}-{str(dtype).removeprefix('torch.')}"
    if directory.exists():
        return directory
    work.mkdir(parents=True, exist_ok=True)
    # Written elsewhere and renamed, so that an interrupted run leaves no half of a checkpoint behind.
    with tempfile.TemporaryDirectory(dir=work) as unfinished:
        made = work / unfinished / name
        made.mkdir()
        (made / "config.json").write_text(json.dumps(shape.config(dtype), indent=2), encoding="utf-8")
        save_file({key: tensor.to(dtype) for key, tensor in _tensors(shape)}, made / SINGLE, {"format": "pt"})
        shutil.move(made, directory)
    return directory


def _tensors(shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """Random weights under their names in a checkpoint, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    kv = shape.kv_heads * (shape.hidden // shape.heads)
    linears = {
        "self_attn.q_proj": (shape.hidden, shape.hidden),
        "self_attn.k_proj": (kv, shape.hidden),
        "self_attn.v_proj": (kv, shape.hidden),
        "self_attn.o_proj": (shape.hidden, shape.hidden),
        "mlp.gate_proj": (shape.intermediate, shape.hidden),
        "mlp.up_proj": (shape.intermediate, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.intermediate),
    }
    yield "model.embed_tokens.weight", torch.randn(shape.vocabulary, shape.hidden, generator=generator) * 0.02
    yield "model.norm.weight", torch.ones(shape.hidden)
    for layer in range(shape.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{norm}.weight", torch.ones(shape.hidden)
        for name, size in linears.items():
            yield f"model.layers.{layer}.{name}.weight", torch.randn(*size, generator=generator) * 0.02
