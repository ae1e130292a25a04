"""On CUDA in float32: the same logits, texts and scores as on the CPU. Skipped without a GPU."""

import json

import pytest
import torch

import random_llama
import treille
from treille.bench import core
from treille.strategies import beam, best_of_n, diverse_beam, first_finish, greedy, sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda"
PROMPTS = ["hello", "a b", "x", "the end.", "12", "a" * 70]
STRATEGIES = [
    greedy(), sample(seed=1), beam(width=3), diverse_beam(width=4, groups=2), best_of_n(n=3, seed=2),
    first_finish(n=3, seed=3),
    sample(seed=4, temperature=0.8, top_p=0.9, repetition_penalty=1.2, no_repeat_ngram_size=3, min_new_tokens=4),
]  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same checkpoint on the CPU and on the GPU, in debug mode."""
    directory = tmp_path_factory.mktemp("llama")
    random_llama.save(directory)
    return [treille.load(directory, device=device, dtype="float32", debug=True) for device in ("cpu", DEVICE)]


def test_logits_and_scores_are_those_of_the_cpu(both):
    """Teacher-forced logits within 1e-3, on the device that was asked for; scores likewise."""
    cpu, gpu = both
    tokens = [(7 * i) % 45 for i in range(150)]
    found = gpu.logits(tokens)
    assert found.device.type == DEVICE
    torch.testing.assert_close(found.cpu(), cpu.logits(tokens), atol=1e-3, rtol=1e-3)
    assert gpu.score("hello", "th end.") == pytest.approx(cpu.score("hello", "th end."), abs=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_texts_are_those_of_the_cpu(both, strategy):
    """Every strategy gives the same tokens, with log-probabilities within 1e-3."""
    cpu, gpu = ([m.generate(p, strategy, max_new_tokens=20) for p in PROMPTS] for m in both)
    for ours, theirs in zip(gpu, cpu, strict=True):
        assert [c.tokens for c in ours.candidates] == [c.tokens for c in theirs.candidates]
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)


def test_a_mixed_batch_is_what_each_gives_alone(both):
    """Strategies in one batch, with forks, folds and shared prefixes, do not touch each other."""
    gpu = both[1]
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(STRATEGIES))]
    batch = gpu.generate(prompts, STRATEGIES, max_new_tokens=20)
    for prompt, strategy, out in zip(prompts, STRATEGIES, batch, strict=True):
        assert gpu.generate(prompt, strategy, max_new_tokens=20).tokens == out.tokens
    assert gpu.engine.runners["target"].store.accounts().protected == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_decodes(both, dtype, tmp_path):
    """16-bit weights decode with every strategy; the text said by a stream is the result's."""
    random_llama.save(tmp_path)
    lm = treille.load(tmp_path, device=DEVICE, dtype=dtype)
    for strategy in STRATEGIES:
        stream = lm.stream("hello", strategy, max_new_tokens=12)
        assert "".join(stream) == stream.result.text


def test_the_benchmark_runs(tmp_path):
    """`treille bench core --quick` writes rows that name the device."""
    out = tmp_path / "rows.jsonl"
    arguments = ["--quick", "--model", "tiny", "--only", "greedy,forward", "--device", DEVICE]
    assert core.main([*arguments, "--out", str(out), "--work", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows
    assert {row["device"] for row in rows} == {DEVICE}
