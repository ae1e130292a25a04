"""One model behind the engine: its decoder, its KV memory, its prefix cache."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from treille.attention.plan import check
from treille.attention.reference import weights
from treille.cache.prefix import PrefixCache
from treille.cache.segments import Rows, SegmentStore
from treille.cache.slots import KVMemory
from treille.errors import ParameterError
from treille.kernels.dispatch import most_rows
from treille.kernels.logits import prepare
from treille.models.cpu_ops import CpuOps
from treille.models.decoder import Decoder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import Tensor

    from treille.attention.plan import AttentionPlan
    from treille.engine.batch import Batch
    from treille.models.decoder import LanguageModel
    from treille.tree import Node

DEFAULT_KV_BYTES = 2 << 30  # reserved, not touched: a slot costs memory once it is written
MOST_SLOTS = 1 << 20
FEW_ROWS = 32


@contextmanager
def one_thread(rows: int, most: int) -> Iterator[None]:
    """One torch thread for a forward of at most `most` rows.

    Torch's threads and those of the kernels would wait for each other on the same cores, and torch's small operations
    wait longer for help than it gives.
    """
    threads = torch.get_num_threads()
    if rows > most or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def most_rows_on_one_thread(decoder: LanguageModel) -> int:
    """Up to how many rows the kernels, not torch, do the large products of a forward on CPU."""
    if decoder.shape.device.type != "cpu":
        return 0
    on_kernels = isinstance(decoder, Decoder) and isinstance(decoder.ops, CpuOps)
    return most_rows(decoder.shape.dtype) if on_kernels else FEW_ROWS


class ModelRunner:
    """Computes batches of one model.

    Args:
        name: what `Forward.model` calls it.
        decoder: the network.
        slots: tokens of KV memory; default: as many as fit `DEFAULT_KV_BYTES`.
        prefix_cache: whether finished prompts and answers keep their rows.
        debug: poison freed slots and check every plan.
    """

    def __init__(
        self,
        name: str,
        decoder: LanguageModel,
        *,
        slots: int | None = None,
        prefix_cache: bool = True,
        debug: bool = False,
    ) -> None:
        shape = decoder.shape
        sizes = (shape.layers, shape.kv_heads, shape.head_dim)
        if slots is not None and slots < 1:
            raise ParameterError(f"kv_slots={slots}: must be at least 1; None takes what fits 2 GiB")
        if slots is None:
            slots = min(DEFAULT_KV_BYTES // KVMemory.bytes_per_slot(*sizes, shape.dtype), MOST_SLOTS)
        self.name = name
        self.decoder = decoder
        self.debug = debug
        self.one_thread_rows = most_rows_on_one_thread(decoder)
        self.memory = KVMemory(*sizes, slots, shape.dtype, shape.device)
        self.store = SegmentStore(self.memory, debug=debug)
        self.prefix = PrefixCache() if prefix_cache else None
        if shape.device.type == "cpu":
            prepare()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.decoder.shape.device

    def cached_prefix(self, root: Node) -> Rows | None:
        """Rows of the longest known prefix of a root, short of its last token, whose distribution may be wanted."""
        return None if self.prefix is None else self.prefix.match(root.path[:-1])

    def remember(self, node: Node) -> None:
        """Keep the rows of `node`'s path in the prefix cache, if it is computed."""
        rows = node.kv.get(self.name)
        if self.prefix is not None and rows is not None and rows.alive:
            self.prefix.insert(node.path, rows)

    def make_room(self) -> bool:
        """Take back unused reserves, else let the prefix cache give up an entry; False if neither has anything."""
        return self.store.trim() or (self.prefix is not None and self.prefix.evict())

    def attention(self, layer: int, states: Tensor, plan: AttentionPlan, row: int) -> Tensor:
        """[Hq, T] float32: a row's attention weights in a layer whose input was `states` [R, H]."""
        assert isinstance(self.decoder, Decoder), "refused for other models"
        q = self.decoder.queries(layer, states[row : row + 1], plan.positions[row : row + 1])[0]
        part = self.decoder.weights.layers[layer].attention
        return weights(
            q, self.memory.keys[layer], plan, row, scale=part.scale, window=part.window, softcap=part.softcap
        )

    def forward(self, batch: Batch, want_hidden: Collection[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Compute a batch: hidden states after the final norm `[R, H]`, and those at the wanted layer boundaries."""
        if self.debug:
            check(batch.plan, self.memory.slots)
        if batch.layers is None:
            return self.decoder.forward_hidden(batch.tokens, self.memory, batch.plan, want_hidden)
        assert isinstance(self.decoder, Decoder), "refused for other models"
        return self.decoder.forward_hidden(batch.tokens, self.memory, batch.plan, want_hidden, batch.layers)

    def exit_logits(self, states: Tensor) -> Tensor:
        """[n, V] float32: the logits if the model stopped at the layer boundary that these states [n, H] stand at."""
        assert isinstance(self.decoder, Decoder), "refused for other models"
        return self.decoder.logits(self.decoder.finish(states))
