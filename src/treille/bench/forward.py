"""The time of a forward by its number of rows, ours and by torch's own products."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from treille.attention import merged
from treille.attention.plan import AttentionPlan, Block, Piece
from treille.bench.measure import Summary, ratios
from treille.cache.slots import KVMemory
from treille.engine.runner import few_threads
from treille.models.decoder import Decoder
from treille.models.ops import TorchOps

if TYPE_CHECKING:
    from treille.bench.measure import Side
    from treille.bench.rows import Row
    from treille.bench.subject import Subject

ROWS = (1, 2, 4, 8, 16, 32)
CONTEXT = 64  # tokens that all rows see
AIMS = {8: "≤ 2.5× of one row", 16: "≤ 4× of one row"}


def forward(subject: Subject) -> list[Row]:
    """A decoding forward with its logits, for 1 to 32 rows that share a context of 64 tokens."""
    decoder = subject.ours.checkpoint.decoder
    plain = Decoder(decoder.config, decoder.weights, TorchOps(merged.attend))
    times = 1 if subject.settings.quick else 4
    sides: dict[str, Side] = {}
    for rows in ROWS:
        sides[f"{rows} rows"] = _side(decoder, rows, times, few=True)
        sides[f"{rows} rows, torch"] = _side(plain, rows, times, few=False)
    seconds = subject.alternate("forward", sides)
    one = seconds["1 rows"]
    found = []
    for rows in ROWS:
        ours, torchs = seconds[f"{rows} rows"], seconds[f"{rows} rows, torch"]
        row = subject.row(
            "forward",
            f"{rows} rows",
            "ms",
            [1e3 * s for s in ours],
            baseline="torch",
            baseline_value=Summary.of(1e3 * s for s in torchs),
            ratio=ratios(torchs, ours),
            aim=AIMS.get(rows, ""),
            extra={"relative": _plain(ratios(ours, one)), "forwards_per_round": times},
            batch=rows,
            prompt=(CONTEXT,),
            new=(),
        )
        found.append(row)
    return found


def _plain(summary: Summary) -> dict[str, float]:
    return {"median": summary.median, "low": summary.low, "high": summary.high}


def _side(decoder: Decoder, rows: int, times: int, *, few: bool) -> Side:
    """Seconds of one forward, the mean of `times`.

    Args:
        decoder: Computes it.
        rows: Rows of the forward.
        times: Forwards in a row.
        few: Whether torch is held to one thread as in the engine; its own products have all threads.
    """
    shape = decoder.shape
    memory = KVMemory(shape.layers, shape.kv_heads, shape.head_dim, CONTEXT + rows, shape.dtype, shape.device)
    memory.data.zero_()
    tokens = torch.arange(rows, device=shape.device) % shape.vocab_size

    def side() -> float:
        with few_threads(rows, shape.device) if few else nullcontext(), torch.inference_mode():
            start = time.perf_counter()
            for _ in range(times):
                decoder.logits(decoder.forward(tokens, memory, _plan(rows, shape.device)))
            if shape.device.type == "cuda":
                torch.cuda.synchronize(shape.device)
            return (time.perf_counter() - start) / times

    return side


def _plan(rows: int, device: torch.device) -> AttentionPlan:
    """Rows that stand side by side after one context; a plan is made for every forward, as it keeps derived values."""
    return AttentionPlan(
        torch.full((rows,), CONTEXT, device=device),
        torch.arange(CONTEXT, CONTEXT + rows, device=device),
        (Piece(0, CONTEXT, 0, range(rows)),),
        tuple(Block(row, row + 1, None) for row in range(rows)),
    )
