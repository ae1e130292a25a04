"""Train the first bundled model: a small Llama on the standard library's sources and three generated tasks.

Everything is made from an empty directory on one CPU core: corpus, tokenizer, weights, model card. A killed run that is
started again with the same arguments continues from its last checkpoint on the same batches (they are keyed by seed and
step); with another ``--steps`` it continues on a cosine of that length, and the model card says so. Progress is
appended to ``log.jsonl`` in the run directory, one JSON object a line::

    python scripts/train_first_model.py --minutes 70 --export src/treille/models/bundled
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from first_model_corpus import EVERY_SPECIAL, code_documents, task_documents
from first_model_export import export, schedule, train_tokenizer
from first_model_optimizer import make_optimizers
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

VOCABULARY = 4096
SHARES = {"files": 0.35, "functions": 0.4, "tasks": 0.25}  # rows of a batch drawn from each pool
PROMPTS = (
    "def fib(n):",
    "import os\n\nclass ",
    "<|user|>Compute 27 + 48 - 13.<|assistant|>",
    "<|user|>Write a JSON record with name (string), age (integer), city (string).<|assistant|>",
    "<|user|>Sort [7, 2, 9, 4].<|assistant|>",
)


@dataclass(frozen=True, slots=True)
class Pool:
    """Documents of one kind as one stream of token ids, each document closed by the end token.

    Attributes:
        ids: Token ids of all documents, ``uint16``, ``[T]``.
        starts: Index of each document's first token, ``int64``, ``[D]``.
    """

    ids: np.ndarray
    starts: np.ndarray

    def window(self, rng: np.random.Generator, length: int, *, anywhere: bool) -> np.ndarray:
        """``length + 1`` consecutive token ids, from a random document's start or, if ``anywhere``, a random index."""
        last = len(self.ids) - length - 1
        start = int(rng.integers(last + 1)) if anywhere else min(int(rng.choice(self.starts)), last)
        return self.ids[start : start + length + 1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does; written to ``plan.json`` at its start.

    Attributes:
        steps: Optimizer steps in all.
        tokens_per_step: Tokens of one batch.
        matrix_rate: Muon's learning rate after the warm-up, for the matrices of the layers.
        peak_rate: AdamW's learning rate after the warm-up, for the embedding and the norms.
        warmup: Steps of linear warm-up; a cosine to a fiftieth of the peak follows.
        seed: Seed of the weights, of the tasks and of every batch.
    """

    steps: int
    tokens_per_step: int = 2048
    matrix_rate: float = 0.02
    peak_rate: float = 3e-3
    warmup: int = 30
    seed: int = 0

    def rate(self, step: int) -> float:
        """Share of the peak learning rates at ``step``."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def make_pool(tokenizer: Tokenizer, documents: list[str]) -> Pool:
    """The documents' tokens in order, with an end token after each."""
    end = tokenizer.token_to_id("<|end|>")
    rows = [row if row[-1] == end else [*row, end] for row in (e.ids for e in tokenizer.encode_batch(documents)) if row]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return Pool(np.concatenate([np.array(row, dtype=np.uint16) for row in rows]), np.cumsum(lengths) - lengths)


def make_pools(run: Path, seed: int) -> tuple[Tokenizer, dict[str, Pool], dict[str, Pool]]:
    """Tokenizer (kept in ``run``), training pools and held-out pools; a held-out file is in no training pool."""
    train, held = code_documents(held_out=0.03, seed=seed)
    train["tasks"], held["tasks"] = task_documents(seed, 24_000), task_documents(seed + 1, 600)
    tokenizer = train_tokenizer(run / "tokenizer.json", train["files"] + train["tasks"][:4000], VOCABULARY)
    return (
        tokenizer,
        {name: make_pool(tokenizer, documents) for name, documents in train.items()},
        {name: make_pool(tokenizer, documents) for name, documents in held.items()},
    )


def make_model(tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """A Llama of 3.5 M parameters with random weights drawn from ``seed``."""
    torch.manual_seed(seed)
    pad, end = (tokenizer.token_to_id(token) for token in EVERY_SPECIAL[:2])
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=416,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        pad_token_id=pad,
        bos_token_id=end,
        eos_token_id=end,
    )
    return LlamaForCausalLM(config)


def batch(pools: dict[str, Pool], plan: Plan, step: int) -> torch.Tensor:
    """Token ids of one step, ``[B, L + 1]`` with ``B * L = tokens_per_step``; a function of the seed and the step."""
    rng = np.random.default_rng((plan.seed, step))
    length = int(rng.choice([256, 512, 1024], p=[0.65, 0.3, 0.05]))
    names = rng.choice(list(SHARES), size=plan.tokens_per_step // length, p=list(SHARES.values()))
    return torch.from_numpy(np.stack([pools[n].window(rng, length, anywhere=n == "files") for n in names]))


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token, in nats."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.inference_mode()
def evaluate(model: LlamaForCausalLM, held: dict[str, Pool], rows: int = 8) -> dict[str, float]:
    """Held-out loss of each pool over the same ``rows`` windows of 512 tokens, nats per token."""
    losses = {}
    for name, pool in held.items():
        rng = np.random.default_rng(7)
        windows = torch.from_numpy(np.stack([pool.window(rng, 512, anywhere=True) for _ in range(rows)]))
        losses[name] = round(sum(loss_of(model, part).item() for part in windows.split(8)) / (rows // 8), 4)
    return losses


@torch.inference_mode()
def complete(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str, tokens: int) -> str:
    """Greedy continuation of ``prompt`` by at most ``tokens`` tokens."""
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :].tolist(), skip_special_tokens=False)


def save(path: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], state: dict[str, float]) -> None:
    """Replace the checkpoint at ``path`` in one rename, so that a kill leaves the old or the new one."""
    partial = path.with_suffix(".partial")
    moments = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"model": model.state_dict(), "optimizers": moments, "state": state}, partial)
    partial.replace(path)


def measured_steps(model: LlamaForCausalLM, pools: dict[str, Pool], minutes: float) -> int:
    """Steps that fit into ``minutes``, from the time of six forward and backward passes; weights are not changed."""
    plan = Plan(steps=1)
    loss_of(model, batch(pools, plan, 0)).backward()
    start = time.perf_counter()
    for step in range(1, 7):
        loss_of(model, batch(pools, plan, step)).backward()
    model.zero_grad(set_to_none=True)
    # 0.8 leaves room for the optimizers, evaluations and exports.
    return int(0.8 * minutes * 60 / ((time.perf_counter() - start) / 6))


def steps_of(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    pools: dict[str, Pool],
    plan: Plan,
    first: int,
) -> Iterator[tuple[int, float]]:
    """Train and yield (steps done, training loss) after every step."""
    parameters = list(model.parameters())
    for step in range(first, plan.steps):
        model.zero_grad(set_to_none=True)
        loss = loss_of(model, batch(pools, plan, step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * plan.rate(step)
            optimizer.step()
        yield step + 1, loss.item()


def resume(
    arguments: argparse.Namespace,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    pools: dict[str, Pool],
) -> tuple[Plan, dict[str, float]]:
    """Plan and state of the run; the weights and moments of its last checkpoint, if any, are loaded."""
    state = {"step": 0, "seconds": 0.0, "loss": math.log(VOCABULARY)}
    if (checkpoint := arguments.run / "checkpoint.pt").exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, moments in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
        state = saved["state"]
    plan_file: Path = arguments.run / "plan.json"
    if arguments.steps or not plan_file.exists():
        steps = arguments.steps or measured_steps(model, pools, arguments.minutes)
        plan_file.write_text(json.dumps(asdict(Plan(steps=steps, seed=arguments.seed))))
    return Plan(**json.loads(plan_file.read_text())), state


def report(path: Path, row: dict[str, Any], *, aloud: bool = True) -> None:
    """Append ``row`` to the log at ``path`` and, if ``aloud``, print it."""
    with path.open("a", encoding="utf-8") as log:
        print(json.dumps(row), file=log)
    if aloud:
        print(json.dumps(row), flush=True)


def train(arguments: argparse.Namespace) -> None:
    """Run or resume the plan, log, evaluate, checkpoint, and export."""
    arguments.run.mkdir(parents=True, exist_ok=True)
    tokenizer, pools, held = make_pools(arguments.run, arguments.seed)
    model = make_model(tokenizer, arguments.seed)
    optimizers = make_optimizers(model, Plan(0).matrix_rate, Plan(0).peak_rate)
    plan, state = resume(arguments, model, optimizers, pools)
    sizes = {name: len(pool.ids) for name, pool in pools.items()}
    log = arguments.run / "log.jsonl"
    report(log, {"plan": asdict(plan), "parameters": model.num_parameters(), "corpus": sizes, **state})
    last_export, last_save, start = -math.inf, time.monotonic(), time.monotonic() - state["seconds"]
    for step, loss in steps_of(model, optimizers, pools, plan, int(state["step"])):
        now, final = time.monotonic(), step == plan.steps
        state = {"step": step, "seconds": now - start, "loss": 0.98 * state["loss"] + 0.02 * loss}
        if step % 10 == 0:
            report(log, {**state, "batch_loss": round(loss, 4), "rate": plan.rate(step)}, aloud=False)
        if step % arguments.evaluate_every == 0 or final:
            report(log, {**state, "held_out": evaluate(model, held)})
            for prompt in PROMPTS:
                print(f"--- {prompt!r}\n{complete(model, tokenizer, prompt, 60)}", flush=True)
        if now - last_save > 240 or final:
            save(arguments.run / "checkpoint.pt", model, optimizers, state)
            last_save = now
        if step >= 150 and arguments.preview and now - last_export > 480:
            export(arguments.preview, model, tokenizer, facts(plan, state, sizes, evaluate(model, held), log))
            last_export = now
    if arguments.export:
        export(arguments.export, model, tokenizer, facts(plan, state, sizes, evaluate(model, held, rows=48), log))


def facts(
    plan: Plan, state: dict[str, float], sizes: dict[str, int], held: dict[str, float], log: Path
) -> dict[str, Any]:
    """What the model card reports about a run."""
    run = {"schedule": schedule(log), "torch": torch.__version__}
    return {**asdict(plan), **state, **run, "sizes": sizes, "held_out": held}


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, default=Path("runs/first-model"), help="checkpoints and logs")
    parser.add_argument("--minutes", type=float, default=70.0, help="budget from which the number of steps is measured")
    parser.add_argument("--steps", type=int, default=0, help="number of steps, instead of --minutes; also on resuming")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate-every", type=int, default=250, help="steps")
    parser.add_argument("--preview", type=Path, help="directory rewritten every eight minutes with the present model")
    parser.add_argument("--export", type=Path, help="directory of the final model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
