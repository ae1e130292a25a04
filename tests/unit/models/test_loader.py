"""What is wrong with a checkpoint is said with file and key; what is right is loaded whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from model_checkpoints import Checkpoint, make_checkpoint, one_pass, random_tokens
from safetensors.torch import load_file, save_file

from treille.errors import CheckpointError, ParameterError
from treille.models.loader import load_checkpoint

Save = Callable[..., Checkpoint]


def _tensors(saved: Checkpoint, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Rewrites the tensors of a checkpoint."""
    file = saved.directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_loads_everything_in_the_directory(save: Save) -> None:
    """Name, configurations and end tokens come with the model; a tokenizer need not be there."""
    saved = save()
    (saved.directory / "generation_config.json").write_text('{"eos_token_id": [2, 5], "temperature": 0.7}')
    loaded = load_checkpoint(str(saved.directory))
    assert loaded.name == str(saved.directory)
    assert loaded.config["model_type"] == "llama"
    assert loaded.generation_config["temperature"] == 0.7
    assert loaded.eos_token_ids == (2, 5)
    assert loaded.tokenizer is None
    assert loaded.chat_template is None
    (saved.directory / "generation_config.json").unlink()
    assert load_checkpoint(saved.directory).eos_token_ids == (2,)


def test_sharded_equals_single(tmp_path: Path) -> None:
    """A checkpoint in several files gives the same logits as in one."""
    saved = make_checkpoint(tmp_path / "one", "LlamaConfig", "LlamaForCausalLM")
    saved.model.save_pretrained(tmp_path / "many", max_shard_size="30KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    tokens = random_tokens(12)
    one, many = (load_checkpoint(tmp_path / name).decoder for name in ("one", "many"))
    assert torch.equal(one_pass(one, tokens), one_pass(many, tokens))


def test_sharded_errors(tmp_path: Path) -> None:
    """A shard that is not there, a tensor that is not in its shard, a file elsewhere, and a broken index are named."""
    make_checkpoint(tmp_path, "LlamaConfig", "LlamaForCausalLM").model.save_pretrained(tmp_path, max_shard_size="30KB")
    index = tmp_path / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    (name, file), *_ = good["weight_map"].items()
    for value, message in (("gone.safetensors", "gone.safetensors: no such file"), ("../x.safetensors", "same dir")):
        index.write_text(json.dumps({"weight_map": {**good["weight_map"], name: value}}))
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {**good["weight_map"], "extra.weight": file}}))
    with pytest.raises(CheckpointError, match=r"extra\.weight is missing"):
        load_checkpoint(tmp_path)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map must map"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), r"model\.layers\.1\.mlp\.up_proj\.weight is missing"),
        (lambda t: t.pop("lm_head.weight"), r"lm_head\.weight is missing"),
        (lambda t: t.pop("model.embed_tokens.weight"), r"model\.embed_tokens\.weight is missing"),
        (lambda t: t.update({"model.norm.weight": torch.ones(47)}), r"model\.norm\.weight has shape \(47,\).*\(48,\)"),
        (lambda t: t.update({"model.layers.3.x": torch.ones(1)}), r"unexpected tensors model\.layers\.3\.x"),
        (lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(48)}), "unexpected tensors"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(48).to(torch.int8)}),
            r"model\.norm\.weight is stored as I8",
        ),
        (lambda t: t.update({"model.norm.weight": torch.ones(48).double()}), r"model\.norm\.weight is stored as F64"),
    ],
)
def test_tensor_errors(save: Save, change: Callable[[dict[str, torch.Tensor]], None], message: str) -> None:
    """A missing, misshapen, left-over or oddly stored tensor is named with its file."""
    saved = save()
    _tensors(saved, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(saved.directory)
    assert str(saved.directory) in str(caught.value)


def test_ignorable_tensors_are_ignored(save: Save) -> None:
    """Stored rotary frequencies, as old checkpoints have them, change nothing."""
    saved = save()
    before = one_pass(load_checkpoint(saved.directory).decoder, random_tokens(5))
    _tensors(saved, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(6)}))
    assert torch.equal(one_pass(load_checkpoint(saved.directory).decoder, random_tokens(5)), before)


def test_file_errors(save: Save, tmp_path: Path) -> None:
    """Truncated, missing and pickled weights, broken and missing configurations, and wrong places are named."""
    saved = save()
    weights, config = saved.directory / "model.safetensors", saved.directory / "config.json"
    whole = weights.read_bytes()
    for size in (len(whole) - 10, 5):
        weights.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors: not a whole"):
            load_checkpoint(saved.directory)
    weights.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load_checkpoint(saved.directory)
    (saved.directory / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: pickled.*convert.*save_pretrained"):
        load_checkpoint(saved.directory)
    for text, message in (("{", r"config\.json: not readable as JSON"), ("[]", "must be a JSON object")):
        config.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(saved.directory)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        load_checkpoint(saved.directory)
    with pytest.raises(CheckpointError, match="is a file"):
        load_checkpoint(saved.directory / "pytorch_model.bin")
    for place in (tmp_path / "nowhere", "./nowhere/at/all"):
        with pytest.raises(CheckpointError, match="no such directory"):
            load_checkpoint(place)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["T5ForConditionalGeneration"]}, r'architectures = \["T5ForC.*LlamaForCausalLM'),
        ({"architectures": ..., "model_type": "t5"}, 'model_type = "t5"'),
        ({"architectures": ..., "model_type": ...}, "model_type is missing"),
        ({"hidden_size": ...}, "hidden_size is missing"),
        ({"rms_norm_eps": None}, "rms_norm_eps is missing"),
        ({"vocab_size": "97"}, 'vocab_size = "97" must be a positive integer'),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3 must divide"),
        ({"hidden_act": "mish"}, 'hidden_act = "mish" is not supported'),
        ({"mlp_bias": "no"}, "mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"sliding_window": 64}, "sliding_window = 64 is not supported"),
        ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
        ({"pretraining_tp": 2}, "pretraining_tp = 2"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"rope_theta": 500.0}, "rope_theta = 500.0 contradicts"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.*contradicts"),
        ({"rope_parameters": {"rope_type": "mrope", "rope_theta": 1e4}}, 'rope_type = "mrope"'),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "factor is missing"),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [1]}}, "mrope_section"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
        ({"rope_parameters": {"rope_theta": float("inf")}}, "rope_theta"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}, "rotates 3 of 12"),
        ({"dtype": "float64"}, 'dtype = "float64"'),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
    ],
)
def test_config_errors(save: Save, changes: dict[str, Any], message: str) -> None:
    """A key that is missing, malformed, contradictory or not supported is named with its value."""
    saved = save()
    saved.edit(**changes)
    (saved.directory / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved.directory)


@pytest.mark.parametrize(
    ("config", "model", "changes", "message"),
    [
        ("Qwen2Config", "Qwen2ForCausalLM", {"layer_types": ["sliding_attention"] * 3}, "layer_types.*contradicts"),
        ("Qwen2Config", "Qwen2ForCausalLM", {"use_sliding_window": True}, "sliding_window is missing"),
        ("Qwen3Config", "Qwen3ForCausalLM", {"attention_bias": ...}, "attention_bias is missing"),
        ("MistralConfig", "MistralForCausalLM", {"layer_types": ["full_attention"] * 3}, "layer_types"),
        ("Gemma2Config", "Gemma2ForCausalLM", {"layer_types": ["full_attention"]}, "layer_types.*each of 3"),
        ("Gemma2Config", "Gemma2ForCausalLM", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("Gemma3TextConfig", "Gemma3ForCausalLM", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("SmolLM3Config", "SmolLM3ForCausalLM", {"no_rope_layers": [1]}, "no_rope_layers"),
        ("GPTNeoXConfig", "GPTNeoXForCausalLM", {"use_parallel_residual": ...}, "use_parallel_residual is missing"),
        ("MixtralConfig", "MixtralForCausalLM", {"num_experts_per_tok": 9}, "num_experts_per_tok = 9"),
        ("GraniteConfig", "GraniteForCausalLM", {"logits_scaling": ...}, "logits_scaling is missing"),
    ],
)
def test_family_errors(tmp_path: Path, config: str, model: str, changes: dict[str, Any], message: str) -> None:
    """The families refuse what they do not compute, and do not guess what they need."""
    saved = make_checkpoint(tmp_path, config, model, num_key_value_heads=4, hidden_size=64)
    saved.edit(**changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("config", "keys", "old"),
    [
        ("Llama", {}, {"rope_theta": 10_000.0, "rope_scaling": None}),
        ("Llama", {}, {}),
        ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
         {"rope_theta": 10_000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("GPTNeoX", {"hidden_size": 64}, {"rotary_emb_base": 10_000, "rotary_pct": 0.25}),
        ("Phi3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.5] * 6,
                                      "long_factor": [3.0] * 6}, "original_max_position_embeddings": 128},
         {"rope_theta": 1e4, "rope_scaling": {"type": "su", "short_factor": [1.5] * 6, "long_factor": [3.0] * 6}}),
        ("Qwen2", {"num_key_value_heads": 2}, {"rope_theta": 10_000.0, "layer_types": ...}),
    ],
)  # fmt: skip
def test_old_format_means_the_same(tmp_path: Path, config: str, keys: dict[str, Any], old: dict[str, Any]) -> None:
    """A configuration with the rope's keys at the top level describes the same decoder as the newer one."""
    saved = make_checkpoint(tmp_path, f"{config}Config", f"{config}ForCausalLM", **keys)
    new = load_checkpoint(tmp_path).decoder.config
    saved.edit(rope_parameters=..., dtype=..., torch_dtype="float32", **old)
    assert load_checkpoint(tmp_path).decoder.config == new


def test_gemma3_old_format(tmp_path: Path) -> None:
    """Gemma 3's two rotary bases and its window pattern are read from their first format."""
    saved = make_checkpoint(
        tmp_path, "Gemma3TextConfig", "Gemma3ForCausalLM", head_dim=8, num_key_value_heads=4, sliding_window_pattern=2
    )
    new = load_checkpoint(tmp_path).decoder.config
    assert [layer.window is None for layer in new.layers] == [False, True, False]
    saved.edit(
        rope_parameters=..., layer_types=..., _sliding_window_pattern=..., sliding_window_pattern=2,
        rope_theta=1_000_000.0, rope_local_base_freq=10_000.0, tie_word_embeddings=...,
    )  # fmt: skip
    assert load_checkpoint(tmp_path).decoder.config == new


def test_gemma3_with_images_gives_its_text_part(tmp_path: Path) -> None:
    """The text decoder of a checkpoint with images is the same model; its vision tensors are left alone."""
    saved = make_checkpoint(tmp_path, "Gemma3TextConfig", "Gemma3ForCausalLM", head_dim=8, num_key_value_heads=4)
    tokens = random_tokens(9)
    expected = one_pass(load_checkpoint(tmp_path).decoder, tokens)
    text = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text})
    )
    for base in ("language_model.model.", "model.language_model."):
        tensors = {
            name.replace("model.", base, 1): t.clone()
            for name, t in saved.model.model.state_dict(prefix="model.").items()
        }
        tensors["vision_tower.x"] = torch.ones(3)
        save_file(tensors, tmp_path / "model.safetensors")
        assert torch.equal(one_pass(load_checkpoint(tmp_path).decoder, tokens), expected)
    del text["num_hidden_layers"]
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text})
    )
    with pytest.raises(CheckpointError, match="text_config: num_hidden_layers is missing"):
        load_checkpoint(tmp_path)


def test_gpt2_without_prefix(tmp_path: Path) -> None:
    """The first GPT-2 files have no prefix, and masks among their tensors."""
    keys = {
        "n_embd": 48,
        "n_layer": 2,
        "n_head": 4,
        "hidden_size": ...,
        "num_hidden_layers": ...,
        "intermediate_size": ...,
    }
    saved = make_checkpoint(
        tmp_path, "GPT2Config", "GPT2LMHeadModel", num_attention_heads=..., max_position_embeddings=..., **keys
    )
    expected = one_pass(load_checkpoint(tmp_path).decoder, random_tokens(9))

    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)

    _tensors(saved, strip)
    assert torch.equal(one_pass(load_checkpoint(tmp_path).decoder, random_tokens(9)), expected)


def test_tied_head_that_differs_is_refused(save: Save) -> None:
    """A stored head beside tied embeddings must be equal to them."""
    saved = save(tie_word_embeddings=True)
    _tensors(saved, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    decoder = load_checkpoint(saved.directory).decoder
    assert decoder.weights.head.weight.data_ptr() == decoder.weights.embedding.data_ptr()
    _tensors(saved, lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1.0}))
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        load_checkpoint(saved.directory)


def test_dtype(save: Save) -> None:
    """Asked for, else declared, else stored; mixed storage without a declaration is refused."""
    saved = save()
    assert load_checkpoint(saved.directory).decoder.shape.dtype == torch.float32
    saved.edit(dtype="bfloat16")
    assert load_checkpoint(saved.directory).decoder.shape.dtype == torch.bfloat16
    assert load_checkpoint(saved.directory, dtype=torch.float16).decoder.shape.dtype == torch.float16
    saved.edit(dtype=...)
    assert load_checkpoint(saved.directory).decoder.shape.dtype == torch.float32
    _tensors(saved, lambda t: t.update({"model.norm.weight": t["model.norm.weight"].bfloat16()}))
    with pytest.raises(CheckpointError, match="say which dtype"):
        load_checkpoint(saved.directory)
    with pytest.raises(ParameterError, match=r"torch\.float64"):
        load_checkpoint(saved.directory, dtype=torch.float64)


def test_weights_do_not_share_the_file(save: Save) -> None:
    """Rewriting the checkpoint after loading does not change the model."""
    saved = save()
    decoder = load_checkpoint(saved.directory).decoder
    before = one_pass(decoder, random_tokens(6))
    with (saved.directory / "model.safetensors").open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\0" * 4096)
    assert torch.equal(one_pass(decoder, random_tokens(6)), before)


def test_context_length(save: Save) -> None:
    """A shorter context may be asked for; a longer one than the positions is refused."""
    saved = save()
    assert load_checkpoint(saved.directory).decoder.shape.context_length == 512
    limited = load_checkpoint(saved.directory, context_length=100).decoder
    full = load_checkpoint(saved.directory).decoder.config
    assert limited.config == replace(full, context_length=100)
    for length in (0, 513):
        with pytest.raises(ParameterError, match=rf"context_length = {length}.*512"):
            load_checkpoint(saved.directory, context_length=length)


def test_hub_names(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is asked for on the Hub, and every failure there is one error that names it."""
    saved = save()
    asked: list[str] = []

    def snapshot(name: str, **_: object) -> str:
        asked.append(name)
        if name == "owner/model":
            return str(saved.directory)
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_checkpoint("owner/model").name == "owner/model"
    with pytest.raises(CheckpointError, match=r"owner/other: .*LocalEntryNotFoundError: no connection\)"):
        load_checkpoint("owner/other")
    assert asked == ["owner/model", "owner/other"]
