"""Decoders with random weights, made of the traits in which model families differ, and forwards over forests."""

import torch

from treille.attention.plan import AttentionPlan, Block, Piece, check
from treille.cache.slots import KVMemory
from treille.models.config import DecoderConfig, ExpertsConfig, LayerConfig, Rope
from treille.models.decoder import Decoder, Layer, Mlp, Weights
from treille.models.ops import AttentionLayer, Experts, Linear, Norm, TorchOps

VOCABULARY, HIDDEN, INNER, LAYERS, SLOTS = 61, 40, 52, 3, 256
LLAMA = {
    "heads": 4, "kv_heads": 2, "head_dim": 12, "norm": "rms", "offset": 0.0, "pre_norm": True, "post_norm": False,
    "qk_norm": None, "bias": False, "gated": True, "activation": "silu", "rotated": (12, 12, 12),
    "windows": (None, None, None), "softcap": None, "experts": None, "learned": False, "config": {},
}  # fmt: skip
FAMILIES = {
    "llama": {},
    "one head": {"heads": 1, "kv_heads": 1, "head_dim": 16, "rotated": (16, 16, 16)},
    "odd heads": {"heads": 5, "kv_heads": 1, "head_dim": 6, "rotated": (6, 6, 6)},
    "qkv bias": {"bias": True},
    "qk norm per head": {"qk_norm": "head", "heads": 6},
    "qk norm of all heads": {"qk_norm": "projection", "pre_norm": False, "post_norm": True},
    "layer norm, plain mlp": {
        "norm": "layer", "gated": False, "activation": "gelu_tanh", "bias": True, "learned": True,
        "rotated": (0, 0, 0), "kv_heads": 4,
    },
    "parallel, partly rotated": {
        "norm": "layer", "gated": False, "activation": "gelu", "bias": True, "rotated": (4, 4, 4),
        "config": {"parallel_residual": True},
    },
    "sliding windows": {"windows": (7, 20, None)},
    "post norms, softcaps": {
        "offset": 1.0, "post_norm": True, "activation": "gelu_tanh", "windows": (9, None, 9), "softcap": 5.0,
        "config": {"logit_softcap": 8.0, "embedding_multiplier": 6.32, "round_embedding_multiplier": True},
    },
    "two rotations": {"qk_norm": "head", "offset": 1.0, "post_norm": True, "rotated": (12, 8, 0)},
    "multipliers": {"config": {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logit_divisor": 6.0}},
    "relu": {"gated": False, "activation": "relu"},
    "experts": {"experts": ExpertsConfig(5, 2, normalize=True, intermediate=24)},
}  # fmt: skip


def random_decoder(name, attend, dtype=torch.float32, seed=0):
    """A decoder of a family, on plain torch operations."""
    t = LLAMA | FAMILIES[name]
    make = torch.Generator().manual_seed(seed)
    heads, kv_heads, width = t["heads"], t["kv_heads"], t["head_dim"]

    def random(*shape, scale=1.0):
        return (torch.randn(*shape, generator=make) * scale).to(dtype)

    def linear(outputs, inputs, scale=1.0):
        return Linear(random(outputs, inputs, scale=scale / inputs**0.5), random(outputs) if t["bias"] else None)

    def norm(size, kind=t["norm"]):
        bias = random(size, scale=0.2) if kind == "layer" else None
        return Norm(kind, 1 - t["offset"] + random(size, scale=0.2), bias, 1e-5, t["offset"])

    def mlp():
        e = t["experts"]
        if e is None:
            return Mlp(linear(INNER * (1 + t["gated"]), HIDDEN), linear(HIDDEN, INNER))
        gate_up = random(e.count, 2 * e.intermediate, HIDDEN, scale=HIDDEN**-0.5)
        down = random(e.count, HIDDEN, e.intermediate, scale=e.intermediate**-0.5)
        return Experts(Linear(random(e.count, HIDDEN)), gate_up, down, e.top_k, e.normalize)

    ropes = [
        None if n == 0 else Rope("default", 1e4, tuple(1e4 ** (-2 * i / n) for i in range(n // 2)))
        for n in t["rotated"]
    ]
    known = list(dict.fromkeys(rope for rope in ropes if rope is not None))
    qk = {None: None, "head": (width, width), "projection": (heads * width, kv_heads * width)}[t["qk_norm"]]
    layers = tuple(
        Layer(
            norm(HIDDEN) if t["pre_norm"] else None,
            linear((heads + 2 * kv_heads) * width, HIDDEN),
            AttentionLayer(
                i, heads, kv_heads, width, width**-0.5, t["windows"][i], t["softcap"],
                None if qk is None else norm(qk[0], "rms"), None if qk is None else norm(qk[1], "rms"),
            ),
            None if ropes[i] is None else known.index(ropes[i]),
            linear(HIDDEN, heads * width),
            norm(HIDDEN) if t["post_norm"] else None,
            norm(HIDDEN) if t["pre_norm"] else None,
            mlp(),
            norm(HIDDEN) if t["post_norm"] else None,
        )
        for i in range(LAYERS)
    )  # fmt: skip
    described = tuple(
        LayerConfig(rope, width**-0.5, window, t["experts"]) for rope, window in zip(ropes, t["windows"], strict=True)
    )
    config = DecoderConfig(
        family=name, vocab_size=VOCABULARY, hidden=HIDDEN, intermediate=INNER, heads=heads, kv_heads=kv_heads,
        head_dim=width, layers=described, context_length=SLOTS, norm_eps=1e-5, activation=t["activation"],
        gated=t["gated"], tie_embeddings=False, **t["config"],
    )  # fmt: skip
    positions = random(SLOTS, HIDDEN) if t["learned"] else None
    head = Linear(random(VOCABULARY, HIDDEN, scale=HIDDEN**-0.5))
    return Decoder(config, Weights(random(VOCABULARY, HIDDEN), positions, layers, norm(HIDDEN), head), TorchOps(attend))


def forwards(rows, seed=0):
    """Three forwards: two contexts; then `rows` rows of chains, of a tree and of a new text; then one row on top."""
    draw = torch.Generator().manual_seed(seed)
    contexts = _plan([(0, 33, (), None), (40, 5, (), None)])
    first = Piece(0, 33, 0, ()), Piece(40, 45, 0, ())
    chain, tree = max(1, rows // 3), rows // 3
    parents = tuple(int(torch.randint(-1, i, (), generator=draw)) if i else -1 for i in range(tree))
    blocks = [(60, chain, first[:1], None)]
    if tree:
        blocks.append((110, tree, first[1:], parents))
    if rows > chain + tree:
        blocks.append((160, rows - chain - tree, (), None))
    middle = _plan(blocks)
    last = _plan([(59, 1, (Piece(0, 33, 0, ()), Piece(60, 60 + chain, 33, ())), None)])
    for plan in (contexts, middle, last):
        check(plan, SLOTS)
        yield (plan.slots * 7 + seed) % VOCABULARY, plan


def _plan(blocks):
    """A plan of blocks (first slot, rows, pieces of its context, parents)."""
    positions, slots, pieces, made = [], [], [], []
    for slot, count, context, parents in blocks:
        begin = len(slots)
        base = sum(piece.stop - piece.start for piece in context)
        for i in range(count):
            parent = i - 1 if parents is None else parents[i]
            positions.append(base if parent < 0 else positions[begin + parent] + 1)
        slots += range(slot, slot + count)
        pieces += [Piece(p.start, p.stop, p.position, range(begin, begin + count)) for p in context]
        made.append(Block(begin, begin + count, parents))
    return AttentionPlan(torch.tensor(positions), torch.tensor(slots), tuple(pieces), tuple(made))


def run(decoder, steps, boundaries=()):
    """Logits of all rows of all forwards, hidden states at layer boundaries, and the keys and values they left."""
    shape = decoder.shape
    memory = KVMemory(shape.layers, shape.kv_heads, shape.head_dim, SLOTS, shape.dtype, shape.device)
    memory.poison(0, SLOTS)
    rows, states = [], []
    with torch.inference_mode():
        for tokens, plan in steps:
            hidden, kept = decoder.forward_hidden(tokens, memory, plan, boundaries)
            rows.append(decoder.logits(hidden))
            states += [kept[b].float() for b in boundaries]
    return torch.cat(rows), states, memory.data.float()
