"""The time of a forward by its number of rows, ours and by torch's own products."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from treille.attention import merged
from treille.attention.plan import AttentionPlan, Block, Piece
from treille.bench.measure import Summary, best_threads, ratios, timed
from treille.cache.slots import KVMemory
from treille.engine.runner import most_rows_on_one_thread, one_thread
from treille.models.decoder import Decoder
from treille.models.ops import TorchOps

if TYPE_CHECKING:
    from collections.abc import Callable

    from treille.bench.measure import Side
    from treille.bench.rows import Row
    from treille.bench.subject import Subject

ROWS = (1, 2, 4, 8, 16, 32)
CONTEXT = 64  # tokens that all rows see
AIMS = {8: "≤ 2.5× of one row", 16: "≤ 4× of one row"}


def forward(subject: Subject) -> list[Row]:
    """A decoding forward with its logits, for 1 to 32 rows that share a context of 64 tokens."""
    decoder = subject.decoder
    plain = Decoder(decoder.config, decoder.weights, TorchOps(merged.attend))
    times, plain_times = (1, 1) if subject.settings.quick else (4, 2)
    sides: dict[str, Side] = {}
    for rows in ROWS:
        sides[f"{rows} rows"] = _side(decoder, rows, times, None)
        sides[f"{rows} rows, torch"] = _plain_side(plain, rows, plain_times)
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


def _plain_side(plain: Decoder, rows: int, times: int) -> Side:
    """Seconds of one forward of torch's own products, with one thread or all, whichever is faster."""
    return _side(plain, rows, times, best_threads(_forwards(plain, rows, 1), plain.shape.device))


def _side(decoder: Decoder, rows: int, times: int, threads: int | None) -> Side:
    """Seconds of one forward, the mean of `times`.

    Args:
        decoder: Computes it.
        rows: Rows of the forward.
        times: Forwards in a row.
        threads: Threads of torch; None: as the engine has it, which leaves the products to the kernels' own threads.
    """
    call, device = _forwards(decoder, rows, times), decoder.shape.device
    clocked = timed(call, device, threads)

    def side() -> float:
        with one_thread(rows, most_rows_on_one_thread(decoder)) if threads is None else nullcontext():
            return clocked() / times

    return side


def _forwards(decoder: Decoder, rows: int, times: int) -> Callable[[], None]:
    """Computes `times` forwards of so many rows."""
    shape = decoder.shape
    memory = KVMemory(shape.layers, shape.kv_heads, shape.head_dim, CONTEXT + rows, shape.dtype, shape.device)
    memory.data.zero_()
    tokens = torch.arange(rows, device=shape.device) % shape.vocab_size

    def call() -> None:
        with torch.inference_mode():
            for _ in range(times):
                decoder.logits(decoder.forward(tokens, memory, _plan(rows, shape.device)))

    return call


def _plan(rows: int, device: torch.device) -> AttentionPlan:
    """Rows that stand side by side after one context; a plan is made for every forward, as it keeps derived values."""
    return AttentionPlan(
        torch.full((rows,), CONTEXT, device=device),
        torch.arange(CONTEXT, CONTEXT + rows, device=device),
        (Piece(0, CONTEXT, 0, range(rows)),),
        tuple(Block(row, row + 1, None) for row in range(rows)),
    )
