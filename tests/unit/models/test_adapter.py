"""Models of `transformers` that no family file describes run on the same store and plans."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_checkpoints import BASE, Checkpoint, Store, chunk_plan, one_pass, random_tokens, randomize, run_chunks

from treille.errors import ParameterError
from treille.models.adapter import TransformersAdapter
from treille.models.loader import load_checkpoint

CASES: dict[str, dict[str, Any]] = {
    "Llama": {"num_key_value_heads": 2},
    "Gemma2": {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 9, "final_logit_softcapping": 3.0},
    "Starcoder2": {"num_key_value_heads": 2, "sliding_window": 11},
    "Cohere": {"num_key_value_heads": 4, "logit_scale": 0.5, "use_qk_norm": True},
    "Cohere2": {"num_key_value_heads": 2, "sliding_window": 12, "head_dim": 12},
    "Exaone4": {"num_key_value_heads": 2, "sliding_window": 10, "sliding_window_pattern": 2},
}


def _model(prefix: str, **keys: Any) -> Any:
    config = getattr(transformers, f"{prefix}Config")(**{**BASE, **keys})
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    randomize(model)
    return model


@pytest.mark.parametrize("prefix", CASES)
def test_equals_the_model_itself(prefix: str) -> None:
    """In one forward, in chunks and token by token, the logits are the model's own within 1e-4."""
    tokens = random_tokens(60)
    model = _model(prefix, **CASES[prefix])
    expected = Checkpoint(Path(), model).reference(tokens)
    adapter = TransformersAdapter(model)
    assert (one_pass(adapter, tokens) - expected).abs().max() <= 1e-4
    assert (run_chunks(adapter, tokens, [30, 1, 1, 20, 8], offset=3) - expected).abs().max() <= 1e-4


def test_equals_the_decoder(tmp_path: Path) -> None:
    """For a family that has a file, shape, keys, values and hidden states are those of the decoder."""
    model = _model("Llama", num_key_value_heads=2)
    model.save_pretrained(tmp_path)
    decoder, adapter = load_checkpoint(tmp_path).decoder, TransformersAdapter(model)
    assert replace(adapter.shape, last_boundary=decoder.shape.last_boundary, layer_access=True) == decoder.shape
    assert not adapter.shape.layer_access
    tokens, stores, kept = random_tokens(20), [], []
    for run in (decoder, adapter):
        stores.append(Store(run, 20))
        kept.append(run.forward_hidden(tokens, stores[-1], chunk_plan(0, 20), (0, 2)))
    assert torch.allclose(stores[0].pool, stores[1].pool, atol=1e-5)
    for boundary in (0, 2):
        assert torch.allclose(kept[0][1][boundary], kept[1][1][boundary], atol=1e-5)


def test_bfloat16() -> None:
    """A model in bfloat16 keeps its keys and values in bfloat16 and gives float32 logits."""
    adapter = TransformersAdapter(_model("Starcoder2", num_key_value_heads=2).to(torch.bfloat16))
    assert adapter.shape.dtype == torch.bfloat16
    assert one_pass(adapter, random_tokens(9)).dtype == torch.float32


def test_refuses_what_it_cannot_run() -> None:
    """State-space models, position biases, closed attention, batch-dependent rotations, boundaries out of reach."""
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2))
    with pytest.raises(ParameterError, match="MambaForCausalLM"):
        TransformersAdapter(mamba)
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=97, hidden_size=32, n_head=4, n_layer=2))
    with pytest.raises(ParameterError, match="BloomForCausalLM"):
        TransformersAdapter(bloom, context_length=64)
    with pytest.raises(ParameterError, match="StableLmAttention: keyword arguments"):
        TransformersAdapter(_model("StableLm", hidden_size=64, num_key_value_heads=2))
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    with pytest.raises(ParameterError, match="rope_type = 'dynamic'"):
        TransformersAdapter(_model("Llama", rope_parameters=rope))
    with pytest.raises(ParameterError, match="context_length = 1000"):
        TransformersAdapter(_model("Llama"), context_length=1000)
    adapter = TransformersAdapter(_model("Llama"))
    with pytest.raises(ParameterError, match="boundary 3"):
        adapter.forward_hidden(random_tokens(2), Store(adapter, 2), chunk_plan(0, 2), (3,))
