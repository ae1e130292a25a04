"""Every family computes what `transformers` computes, however the text is cut into forwards."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from model_checkpoints import Checkpoint, Store, chunk_plan, make_checkpoint, one_pass, random_tokens, run_chunks

from treille.attention.merged import attend as merged_attend
from treille.attention.reference import attend as reference_attend
from treille.models.cpu_stack import accelerate
from treille.models.decoder import Decoder
from treille.models.loader import load_checkpoint

TOLERANCE = 1e-4
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 10_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500_000.0,
}


@dataclass(frozen=True)
class Case:
    """A configuration and a model class of `transformers`, with the keys that differ from the tests' base."""

    name: str
    config: str
    model: str
    keys: dict[str, Any] = field(default_factory=dict)


def _case(name: str, prefix: str, /, **keys: Any) -> Case:
    return Case(name, f"{prefix}Config", f"{prefix}ForCausalLM", keys)


GPT2 = {
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 512,
    **dict.fromkeys(
        ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"), ...
    ),
}
MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 12}
LONGROPE = {
    "max_position_embeddings": 512,
    "original_max_position_embeddings": 320,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0, 1.1, 1.3, 1.5, 1.7, 2.0],
        "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
    },
}

CASES = [
    _case("llama", "Llama"),
    _case("llama-grouped-tied", "Llama", num_key_value_heads=2, tie_word_embeddings=True),
    _case("llama-9-3", "Llama", hidden_size=72, num_attention_heads=9, num_key_value_heads=3),
    _case("llama-bias-head-dim", "Llama", head_dim=16, attention_bias=True, mlp_bias=True, num_key_value_heads=1),
    _case("llama3-rope", "Llama", num_key_value_heads=2, rope_parameters=LLAMA3),
    _case("llama-linear", "Llama", rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 10_000.0}),
    _case("llama-yarn", "Llama", rope_parameters=YARN),
    _case(
        "llama-yarn-mscale", "Llama", rope_parameters={**YARN, "mscale": 0.7, "mscale_all_dim": 1.1, "beta_fast": 16}
    ),
    _case("llama-dynamic", "Llama", rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}),
    _case("llama-gelu", "Llama", hidden_act="gelu"),
    _case("mistral", "Mistral", num_key_value_heads=2, sliding_window=None),
    _case("mistral-window", "Mistral", num_key_value_heads=2, sliding_window=13, head_dim=8),
    _case("qwen2", "Qwen2", num_key_value_heads=2, tie_word_embeddings=True),
    _case(
        "qwen2-window", "Qwen2", num_key_value_heads=1, use_sliding_window=True, sliding_window=11, max_window_layers=1
    ),
    _case("qwen3", "Qwen3", num_key_value_heads=2, head_dim=20),
    _case("qwen3-tied-bias", "Qwen3", num_key_value_heads=4, head_dim=8, attention_bias=True, tie_word_embeddings=True),
    _case("gemma2", "Gemma2", num_key_value_heads=2, head_dim=20, sliding_window=9, query_pre_attn_scalar=24),
    _case(
        "gemma2-untied",
        "Gemma2",
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=False,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    Case(
        "gemma3",
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "num_hidden_layers": 4,
            "sliding_window_pattern": 3,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "sliding_window": 10,
            "query_pre_attn_scalar": 20,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 10_000.0},
            },
        },
    ),
    _case("phi3", "Phi3", num_key_value_heads=2, sliding_window=15),
    _case(
        "phi3-partial",
        "Phi3",
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
    ),
    _case("phi3-longrope", "Phi3", **LONGROPE),
    _case("olmo2", "Olmo2", num_key_value_heads=2),
    _case("olmo2-bias", "Olmo2", hidden_size=72, num_attention_heads=9, num_key_value_heads=3, attention_bias=True),
    _case("smollm3", "SmolLM3", num_key_value_heads=2, no_rope_layer_interval=2),
    _case(
        "smollm3-window",
        "SmolLM3",
        num_key_value_heads=2,
        no_rope_layers=[1, 0, 1],
        use_sliding_window=True,
        sliding_window=12,
        tie_word_embeddings=False,
    ),
    Case("gpt2", "GPT2Config", "GPT2LMHeadModel", GPT2),
    Case(
        "gpt2-scaled",
        "GPT2Config",
        "GPT2LMHeadModel",
        {**GPT2, "scale_attn_by_inverse_layer_idx": True, "n_inner": 80, "activation_function": "relu"},
    ),
    _case("gpt-neox", "GPTNeoX", hidden_size=64),
    _case(
        "gpt-neox-serial",
        "GPTNeoX",
        use_parallel_residual=False,
        attention_bias=False,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 5_000.0, "partial_rotary_factor": 1.0},
    ),
    _case(
        "granite",
        "Granite",
        num_key_value_heads=2,
        embedding_multiplier=12.0,
        logits_scaling=8.0,
        residual_multiplier=0.22,
        attention_multiplier=0.0625,
    ),
    _case("qwen3-moe", "Qwen3Moe", num_key_value_heads=2, norm_topk_prob=True, **MOE),
    _case("qwen3-moe-mixed", "Qwen3Moe", num_key_value_heads=2, mlp_only_layers=[0], decoder_sparse_step=2, **MOE),
    _case("mixtral", "Mixtral", num_key_value_heads=2, num_local_experts=5, sliding_window=14),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The case's random checkpoint."""
    case: Case = request.param
    return make_checkpoint(tmp_path_factory.mktemp(case.name), case.config, case.model, **case.keys)


def test_equals_transformers(checkpoint: Checkpoint) -> None:
    """Logits after each of 300 prompt lengths differ from those of `transformers` by at most 1e-4."""
    model = load_checkpoint(checkpoint.directory).decoder
    tokens = random_tokens(300)
    expected = checkpoint.reference(tokens)
    assert expected.std() > 0.1
    assert (one_pass(model, tokens) - expected).abs().max() <= TOLERANCE
    for length in (1, 2, 37):
        alone = checkpoint.reference(tokens[:length])
        assert (one_pass(model, tokens[:length]) - alone).abs().max() <= TOLERANCE


def test_incremental_equals_one_pass(checkpoint: Checkpoint) -> None:
    """Token by token and in uneven chunks, at any place of the pool, the logits are those of one forward."""
    model = load_checkpoint(checkpoint.directory).decoder
    tokens = random_tokens(90, seed=1)
    whole = one_pass(model, tokens)
    for sizes in ([1] * 12 + [78], [40, 1, 1, 29, 2, 17], [74, *[1] * 16]):
        assert (run_chunks(model, tokens, sizes, offset=5) - whole).abs().max() <= TOLERANCE


def test_the_cpu_kernels_compute_the_same(checkpoint: Checkpoint) -> None:
    """On the CPU kernels, in forwards of few and of many rows, the logits are those of `transformers`."""
    model = load_checkpoint(checkpoint.directory).decoder
    assert isinstance(model, Decoder)
    accelerate(model, merged_attend)
    tokens = random_tokens(90, seed=2)
    expected = checkpoint.reference(tokens)
    for sizes in ([1, 1, 3, 8, 40, 37], [70, *[1] * 8, 12]):
        assert (run_chunks(model, tokens, sizes, offset=3) - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stack_of_layers_is_the_loop_over_them(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """One call for a range of layers gives, to the bit, what the same kernels give one operation at a time."""
    model = load_checkpoint(checkpoint.directory, dtype=dtype).decoder
    assert isinstance(model, Decoder)
    accelerate(model, merged_attend)
    if model.stack is None:
        assert checkpoint.model.config.model_type in {"qwen3_moe", "mixtral", "olmo2"}
        return
    tokens = random_tokens(30, seed=3)
    fast = run_chunks(model, tokens, [1, 1, 3, 8, 17])
    boundary = model.forward_hidden(tokens, Store(model, 30), chunk_plan(0, 30), (0, 1, 2))
    model.stack = None
    slow = run_chunks(model, tokens, [1, 1, 3, 8, 17])
    assert torch.equal(fast, slow)
    last, hidden = model.forward_hidden(tokens, Store(model, 30), chunk_plan(0, 30), (0, 1, 2))
    assert torch.equal(boundary[0], last)
    assert all(torch.equal(boundary[1][layer], hidden[layer]) for layer in hidden)


def test_long_context_equals_transformers_beyond_the_original_length(tmp_path: Path) -> None:
    """Under LongRoPE a context beyond the original length uses the long set, as `transformers` does for such texts."""
    saved = make_checkpoint(tmp_path, "Phi3Config", "Phi3ForCausalLM", **LONGROPE)
    tokens = random_tokens(400)
    short, long = load_checkpoint(tmp_path).decoder, load_checkpoint(tmp_path, context_length=512).decoder
    assert short.shape.context_length == 320
    assert long.shape.context_length == 512
    assert (one_pass(long, tokens) - saved.reference(tokens)).abs().max() <= TOLERANCE


def test_reference_attention_gives_the_same(tmp_path: Path) -> None:
    """With the attention that is the specification, a window and grouped heads, the logits are the same."""
    saved = make_checkpoint(
        tmp_path, "MistralConfig", "MistralForCausalLM", num_key_value_heads=2, sliding_window=7, num_hidden_layers=2
    )
    tokens = random_tokens(40)
    model = load_checkpoint(tmp_path, attend=reference_attend).decoder
    assert (run_chunks(model, tokens, [25, 1, 14]) - saved.reference(tokens)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama-9-3", "gemma2", "gpt2", "granite", "mixtral"])
def test_half_precision(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """In 16 bits the logits are near those in float32, and the dtype is that of weights, keys and values."""
    case = next(case for case in CASES if case.name == name)
    make_checkpoint(tmp_path, case.config, case.model, **case.keys)
    exact = one_pass(load_checkpoint(tmp_path).decoder, random_tokens(20))
    model = load_checkpoint(tmp_path, dtype=dtype).decoder
    assert model.shape.dtype == dtype
    rounded = one_pass(model, random_tokens(20))
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() <= 0.05 * exact.std()
