"""Whole generations against `transformers`: greedy, many samples, beam search, best of n."""

from __future__ import annotations

import itertools
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from treille.bench.measure import Summary, torch_threads
from treille.bench.rows import number
from treille.bench.shapes import SHAPES
from treille.engine.instruments import ForwardReport, Instrument
from treille.errors import DecodingError
from treille.kernels.dispatch import memory_bandwidth
from treille.strategies import beam, best_of_n, sample
from treille.strategies import greedy as greedy_strategy

if TYPE_CHECKING:
    from treille.bench.measure import Side
    from treille.bench.rows import Row
    from treille.bench.subject import Subject
    from treille.models.decoder import Decoder
    from treille.output import Generation

OURS = "Treille"
PROBE = 8  # tokens of prompt and answer in the runs that choose the other side's threads
BEAMS = 4
TEXTS = 16
LONG_PROMPT = 1000


def greedy(subject: Subject) -> list[Row]:
    """Greedy decoding of one text; on CPU also the share of the memory bandwidth that reading the weights reaches."""
    length, new = (4, 4) if subject.settings.quick else (16, 128)
    prompt, device = subject.prompt(length), subject.settings.device
    ours, theirs = subject.ours, subject.theirs
    decoded = greedy_strategy(max_new_tokens=new, eos_token_id=[])
    baseline, side = subject.their_side(
        "generate", lambda: theirs.greedy(prompt, new), lambda: theirs.greedy(prompt, PROBE)
    )
    sides = {OURS: subject.side(lambda: ours.generate(prompt, decoded)), baseline: side}
    seconds = subject.alternate("greedy", sides)
    same = agreement(ours.generate(prompt, decoded).tokens, theirs.greedy(prompt, new))
    known: dict[str, Any] = {"batch": 1, "prompt": (length,), "new": (new,)}
    row = subject.compared(
        "greedy",
        "greedy",
        new,
        (seconds[OURS], seconds[baseline]),
        baseline=baseline,
        aim="" if device.type == "cuda" else "≥ 2.5×" if subject.name == "bundled" else "≥ 2×",
        note=told(subject, same, new),
        extra={"same_tokens": same},
        **known,
    )
    return [row] if device.type != "cpu" else [row, _bandwidth(subject, seconds[OURS], known)]


def agreement(ours: tuple[int, ...], theirs: list[int]) -> int:
    """How many tokens are the same before the first that differs (in 16 bits, sums of another order decide ties)."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=True))
    return sum(1 for _ in pairs)


def told(subject: Subject, same: int, new: int) -> str:
    """How far both sides agree; of random weights it says nothing, as their best tokens are nearly level."""
    return "" if subject.name in SHAPES else f"the first {same} of {new} tokens are the same on both sides"


def _bandwidth(subject: Subject, seconds: list[float], known: dict[str, Any]) -> Row:
    """The rate at which weights are read, as a share of the rate at which this machine reads memory."""
    read, most = weight_bytes(subject.decoder), memory_bandwidth()
    rates = [read * known["new"][0] / s / 1e9 for s in seconds]
    return subject.row(
        "greedy",
        "greedy, weights read",
        "GB/s",
        rates,
        baseline=f"memory: {most:.3g} GB/s",
        ratio=Summary.of(rate / most for rate in rates),
        note="share of the bandwidth measured in the same process"
        + ("" if read > 64 << 20 else "; these weights may fit a cache"),
        extra={"weight_bytes": read, "memory_gb_per_s": most},
        **known,
    )


def weight_bytes(decoder: Decoder) -> int:
    """Bytes of weights that one decoded token reads: all layers and the output projection, and one embedding row."""
    weights = decoder.weights
    tensors: dict[int, torch.Tensor] = {}
    stack: list[object] = [weights.layers, weights.final_norm, weights.head]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            tensors[item.data_ptr()] = item
        elif isinstance(item, tuple):
            stack += item
        elif hasattr(item, "__dataclass_fields__"):
            stack += [getattr(item, name) for name in item.__dataclass_fields__]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def samples(subject: Subject) -> list[Row]:
    """Texts of different lengths at once, against the faster of padded batches and continuous batching.

    Counted are the tokens that were asked for: what a padded batch computes beyond them is its own loss.
    """
    quick, ours, theirs = subject.settings.quick, subject.ours, subject.theirs
    count = 3 if quick else TEXTS
    lengths, new = (
        spread_lengths(count, *((3, 9) if quick else (16, 256))),
        spread_lengths(count, 2, 8 if quick else 128),
    )
    new = [new[(5 * i + 3) % count] for i in range(count)]  # long prompts do not go with long answers
    prompts = [subject.prompt(length, seed) for seed, length in enumerate(lengths)]
    strategies = [sample(max_new_tokens=n, seed=i, eos_token_id=[]) for i, n in enumerate(new)]
    padded, side = subject.their_side(
        "padded batch",
        lambda: theirs.padded(prompts, new),
        lambda: theirs.padded([prompt[:PROBE] for prompt in prompts], [PROBE] * count),
    )
    sides = {OURS: subject.side(lambda: ours.generate(prompts, strategies)), padded: side}
    paged, problem = _continuous(subject, prompts, new)
    sides |= paged
    seconds = subject.alternate("samples", sides)
    own = seconds.pop(OURS)
    rates = {name: sum(new) / median(took) for name, took in seconds.items()}
    best = max(rates, key=lambda name: rates[name])
    others = ", ".join(f"{name}: {number(rate)} tokens/s" for name, rate in rates.items() if name != best)
    row = subject.compared(
        "samples",
        f"{count} samples of different lengths",
        sum(new),
        (own, seconds[best]),
        baseline=best,
        aim="≥ 1.5×",
        note="; ".join(part for part in (others, problem) if part),
        extra=rates,
        batch=count,
        prompt=tuple(lengths),
        new=tuple(new),
    )
    return [row]


def _continuous(subject: Subject, prompts: list[list[int]], new: list[int]) -> tuple[dict[str, Side], str]:
    """Continuous batching with one torch thread and with all; or none, and why it does not run here.

    A short run could not choose the threads, as starting the manager takes longer.
    """
    theirs, every = subject.theirs, torch.get_num_threads()
    try:
        theirs.continuous(prompts[:1], new[:1])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the row's news and not this command's end
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return {}, f"continuous batching does not run here: {type(error).__name__}: {reason}"
    if subject.settings.device.type != "cpu":
        return {"continuous batching": lambda: theirs.continuous(prompts, new)}, ""

    def with_threads(threads: int) -> float:
        with torch_threads(threads):
            return theirs.continuous(prompts, new)

    return {f"continuous batching, {n} thread{'s' * (n > 1)}": partial(with_threads, n) for n in {1, every}}, ""


def spread_lengths(count: int, shortest: int, longest: int) -> list[int]:
    """`count` lengths from `shortest` to `longest` with equal ratios between neighbours."""
    factor = (longest / shortest) ** (1 / max(count - 1, 1))
    return [round(shortest * factor**i) for i in range(count)]


def beams(subject: Subject) -> list[Row]:
    """Beam search of width 4."""
    length, new = (4, 4) if subject.settings.quick else (32, 64)
    prompt, ours, theirs = subject.prompt(length), subject.ours, subject.theirs
    searched = beam(width=BEAMS, max_new_tokens=new, eos_token_id=[])
    baseline, side = subject.their_side(
        f"num_beams={BEAMS}",
        lambda: theirs.beam(prompt, new, BEAMS),
        lambda: theirs.beam(prompt[:PROBE], PROBE, BEAMS),
    )
    sides = {OURS: subject.side(lambda: ours.generate(prompt, searched)), baseline: side}
    seconds = subject.alternate("beam", sides)
    same = agreement(ours.generate(prompt, searched).tokens, theirs.beam(prompt, new, BEAMS))
    row = subject.compared(
        "beam",
        f"beam, width {BEAMS}",
        new,
        (seconds[OURS], seconds[baseline]),
        baseline=baseline,
        aim="≥ 2×",
        note=told(subject, same, new),
        extra={"same_tokens": same},
        batch=BEAMS,
        prompt=(length,),
        new=(new,),
    )
    return [row]


class SlotsHeld(Instrument):
    """The most KV slots that held rows after any forward; room that is set aside for growth does not count."""

    def __init__(self, subject: Subject) -> None:
        self._store = subject.ours.engine.runners["target"].store
        self.most = 0

    def after_forward(self, report: ForwardReport) -> None:  # noqa: ARG002 - the hook's signature
        """Look at the accounts."""
        accounts = self._store.accounts()
        self.most = max(self.most, accounts.protected + accounts.evictable)


def best_of(subject: Subject) -> list[Row]:
    """Best of 16 on a long prompt: time, prompt rows computed, KV slots held."""
    quick, ours, theirs = subject.settings.quick, subject.ours, subject.theirs
    count, new = (3, 3) if quick else (TEXTS, 24)
    length = min(20 if quick else LONG_PROMPT, subject.context - new)
    prompt = subject.prompt(length)
    searched = best_of_n(n=count, seed=0, max_new_tokens=new, eos_token_id=[])
    baseline, side = subject.their_side(
        f"num_return_sequences={count}",
        lambda: theirs.many(prompt, new, count),
        lambda: theirs.many(prompt[:PROBE], PROBE, count),
    )
    sides = {OURS: subject.side(lambda: ours.generate(prompt, searched)), baseline: side}
    seconds = subject.alternate("best_of", sides)
    rows, slots = _counters(subject, prompt, searched)
    row = subject.compared(
        "best_of",
        f"best of {count}, prompt of {length}",
        count * new,
        (seconds[OURS], seconds[baseline]),
        baseline=baseline,
        note=f"{rows} prompt rows computed, at most {slots} KV slots held",
        extra={"prompt_rows": rows, "slots_held": slots},
        batch=count,
        prompt=(length,),
        new=(new,),
    )
    return [row]


def _counters(subject: Subject, prompt: list[int], searched: Any) -> tuple[int, int]:
    """Prompt rows computed and most slots held, in a run of its own: counting takes time."""
    held = SlotsHeld(subject)
    subject.ours.engine.instruments.append(held)
    try:
        result: Generation = subject.ours.generate(prompt, searched)
    finally:
        subject.ours.engine.instruments.remove(held)
    if result.stats.prompt_rows < len(prompt):
        raise DecodingError(
            f"{result.stats.prompt_rows} prompt rows for a prompt of {len(prompt)}: the counter is wrong"
        )
    return result.stats.prompt_rows, held.most
