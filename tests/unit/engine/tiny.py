"""A tiny random Llama behind an engine, and the plain loop that it is compared with."""

import random

import torch

from treille.attention.plan import AttentionPlan, Block
from treille.attention.reference import attend as reference
from treille.cache.slots import KVMemory
from treille.engine.engine import Engine
from treille.engine.runner import ModelRunner
from treille.models.config import DecoderConfig, LayerConfig, Rope
from treille.models.decoder import Decoder, Layer, Mlp, Weights
from treille.models.ops import AttentionLayer, Linear, Norm, TorchOps
from treille.sampling.random import Random
from treille.strategy import Limits, Run
from treille.tree import Node

VOCABULARY = 97
EOS = 96


def decoder(seed=0, hidden=32, heads=4, kv_heads=2, layers=2, context=512, attend=reference):
    """A random float32 Llama with sharp distributions, so that texts differ and sometimes end."""
    head_dim = hidden // heads
    make = torch.Generator().manual_seed(seed)

    def weight(*shape, scale=1.0):
        return torch.randn(*shape, generator=make) * scale / shape[-1] ** 0.5

    def norm():
        return Norm("rms", 1 + 0.1 * torch.randn(hidden, generator=make), None, 1e-5)

    frequencies = tuple(1e4 ** (-2 * i / head_dim) for i in range(head_dim // 2))
    rope = Rope("default", 1e4, frequencies)
    config = DecoderConfig(
        family="tiny", vocab_size=VOCABULARY, hidden=hidden, intermediate=48, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, layers=(LayerConfig(rope, head_dim**-0.5),) * layers, context_length=context,
        norm_eps=1e-5, activation="silu", tie_embeddings=False,
    )  # fmt: skip
    built = tuple(
        Layer(
            norm(), Linear(weight((heads + 2 * kv_heads) * head_dim, hidden)),
            AttentionLayer(i, heads, kv_heads, head_dim, head_dim**-0.5), 0,
            Linear(weight(hidden, heads * head_dim)), None, norm(),
            Mlp(Linear(weight(96, hidden)), Linear(weight(hidden, 48))), None,
        )
        for i in range(layers)
    )  # fmt: skip
    weights = Weights(
        weight(VOCABULARY, hidden, scale=6), None, built, norm(), Linear(weight(VOCABULARY, hidden, scale=4))
    )
    return Decoder(config, weights, TorchOps(attend))


def engine(model=None, *, slots=4096, budget=512, seed=None, prefix_cache=False, **more):
    """An engine in debug mode: plans and accounts are checked after every step."""
    runner = ModelRunner("target", model or decoder(), slots=slots, prefix_cache=prefix_cache, debug=True)
    shuffle = None if seed is None else random.Random(seed)
    return Engine({"target": runner}, budget=budget, debug=True, shuffle=shuffle, **more)


def run(prompt, *, max_new_tokens=12, seed=0, do_sample=False, n=1, codec=None, stop=()):
    """A run over a prompt of token ids."""
    limits = Limits(max_new_tokens, frozenset({EOS}), stop)
    return Run(Node.root(prompt), Random(seed), limits, do_sample=do_sample, num_return_sequences=n, codec=codec)


def submit(the_engine, strategy, prompt, chain=None, **more):
    """Submit a configured strategy on a prompt."""
    return the_engine.submit(strategy, run(prompt, do_sample=strategy.info.do_sample, **more), chain)


def texts(output, prompt_length):
    """Generated tokens of every candidate."""
    return [c.node.path[prompt_length:].tolist() for c in output.candidates]


def full_logits(model, tokens):
    """[T, V]: one plain forward over a whole text, without any engine."""
    shape = model.shape
    memory = KVMemory(shape.layers, shape.kv_heads, shape.head_dim, len(tokens), shape.dtype, shape.device)
    index = torch.arange(len(tokens))
    plan = AttentionPlan(index, index, (), (Block(0, len(tokens), None),))
    return model.logits(model.forward(torch.tensor(tokens), memory, plan))


def plain_greedy(model, prompt, max_new_tokens=12):
    """Greedy decoding that computes the whole text again for every token."""
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        tokens.append(int(full_logits(model, tokens)[-1].argmax()))
        if tokens[-1] == EOS:
            break
    return tokens[len(prompt) :]
