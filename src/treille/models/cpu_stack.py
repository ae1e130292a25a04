"""Whole ranges of layers by one kernel call: the fast build of the decoder's loop over its layers, for few rows.

The loop in `Decoder` with `CpuOps` is its specification: the same kernels in the same order on the same numbers. What
it saves is Python's work between them, which for a small model is most of the time of a step.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from treille.attention.few_rows import FewRowsAttention, address_of
from treille.attention.plan import AttentionPlan, Block
from treille.cache.slots import KVMemory
from treille.kernels import program
from treille.kernels.attention import steps
from treille.kernels.dispatch import most_rows
from treille.kernels.linear import Gate, LinearJob, Project, Residual
from treille.kernels.team import shared_team
from treille.models.config import DecoderConfig
from treille.models.cpu_ops import CpuOps, attention_kernel, packed_linear, packed_norm, short_blocks
from treille.models.decoder import Decoder, Layer, Mlp, Weights
from treille.models.ops import Attend, KVStore
from treille.models.rope import Rotary
from treille.requests import Layers

_STREAM, _OTHER, _QKV, _CONTEXT, _INNER = range(5)  # buffers; the residual stream alternates between the first two
_MOST_PROGRAMS = 64  # with layers left out, kept for the next forward that leaves out the same

_Half: TypeAlias = list[list[int]]
_Program: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class _Attention:
    kernel: FewRowsAttention
    job: np.ndarray[tuple[int], np.dtype[np.int64]]


class CpuStack:
    """The layers of a decoder as one program.

    Args:
        config: What the decoder computes.
        weights: On the CPU, of a dtype that the kernels read.
        attentions: The attention kernel of every layer.
    """

    def __init__(self, config: DecoderConfig, weights: Weights, attentions: Sequence[FewRowsAttention]) -> None:
        self._weights = weights
        self._most_rows = most_rows(weights.embedding.dtype)
        self._steps = steps(narrow=weights.embedding.dtype != torch.float32)
        self._jobs: list[LinearJob] = []
        self._attentions: list[_Attention] = []
        self._schedules: list[FewRowsAttention] = []  # one per distinct schedule
        self._halves: list[tuple[_Half, _Half]] = []  # per layer: attention and MLP
        for layer, kernel in zip(weights.layers, attentions, strict=True):
            self._add_layer(config, layer, kernel)
        self._parallel = config.parallel_residual
        self._programs: OrderedDict[tuple[int, int, Layers], tuple[_Program, int]] = OrderedDict()
        self._widths = (config.hidden, config.hidden, *self._inner_widths())
        self._scratch = max(job.inputs + job.outputs for job in self._jobs)  # floats per row
        self._rows = 0
        self._buffers: list[Tensor] = []
        self._addresses = np.zeros(len(self._widths), np.int64)
        self._kv: KVStore | None = None

    @staticmethod
    def build(config: DecoderConfig, weights: Weights) -> "CpuStack | None":
        """The stack of a decoder; None if a layer has experts, or a norm that the attention kernel lacks."""
        kernels = [attention_kernel(layer.attention) for layer in weights.layers]
        found = [kernel for kernel in kernels if kernel is not None]
        if len(found) < len(kernels) or not all(isinstance(layer.mlp, Mlp) for layer in weights.layers):
            return None
        return CpuStack(config, weights, found)

    def _add_layer(self, config: DecoderConfig, layer: Layer, kernel: FewRowsAttention) -> None:
        assert isinstance(layer.mlp, Mlp)
        project = Project(packed_linear(layer.qkv), packed_norm(layer.attention_norm)).job
        out = Residual(packed_linear(layer.out), packed_norm(layer.post_attention_norm)).job
        gate = Gate(
            packed_linear(layer.mlp.gate_up), packed_norm(layer.mlp_norm), config.activation, gated=config.gated
        ).job
        down = Residual(packed_linear(layer.mlp.down), packed_norm(layer.post_mlp_norm)).job
        scale = int(np.float32(config.residual_multiplier).view(np.int32))
        attended = [
            self._linear(project, _STREAM, _QKV),
            self._attend(kernel, -1 if layer.rope is None else layer.rope),
            self._linear(out, _CONTEXT, _OTHER, _STREAM, scale),
        ]
        inner = [self._linear(gate, _STREAM, _INNER), self._linear(down, _INNER, _OTHER, _STREAM, scale)]
        self._halves.append((attended, inner))

    def _program(self, start: int, stop: int, layers: Layers) -> tuple[_Program, int]:
        """The instructions of layers `start … stop - 1`, and the buffer in which they leave the residual stream."""
        key = (start, stop, layers)
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = self._assemble(start, stop, layers)
            if len(self._programs) > _MOST_PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return found

    def _assemble(self, start: int, stop: int, layers: Layers) -> tuple[_Program, int]:
        """Each half of a layer moves the residual stream to the other of its two buffers."""
        table: list[list[int]] = []
        stream, other = _STREAM, _OTHER
        for index in range(start, stop):
            entering = stream
            for half, skipped in zip(self._halves[index], (layers.skip_attention, layers.skip_mlp), strict=True):
                if index in skipped:
                    continue
                rows = [list(row) for row in half]
                rows[0][program.SOURCE] = entering if self._parallel else stream
                rows[-1][program.TARGET], rows[-1][program.BASE] = other, stream
                table += rows
                stream, other = other, stream
        return np.array(table, np.int64).reshape(-1, program.LENGTH), stream

    def _linear(self, job: LinearJob, source: int, target: int, base: int = -1, scale: int = 0) -> list[int]:
        self._jobs.append(job)
        return [program.LINEAR, job.function, job.address, job.chunks, source, target, base, scale, 0, 0]

    def _attend(self, kernel: FewRowsAttention, rope: int) -> list[int]:
        keys = [known.schedule_key for known in self._schedules]
        if kernel.schedule_key not in keys:
            self._schedules.append(kernel)
            keys.append(kernel.schedule_key)
        entry = _Attention(kernel, kernel.new_job())
        self._attentions.append(entry)
        where = keys.index(kernel.schedule_key)
        return [program.ATTEND, 0, entry.job.ctypes.data, 0, _QKV, _CONTEXT, -1, 0, where, rope]

    def _inner_widths(self) -> tuple[int, int, int]:
        layer = self._weights.layers[0]
        assert isinstance(layer.mlp, Mlp)
        return layer.qkv.weight.shape[0], layer.out.weight.shape[1], layer.mlp.down.weight.shape[1]

    def takes(self, plan: AttentionPlan) -> bool:
        """Whether a forward is this stack's: every product and all attention by the kernels."""
        return plan.row_count <= self._most_rows and short_blocks(plan)

    def run(
        self, start: int, stop: int, x: Tensor, rotaries: Sequence[Rotary], kv: KVStore, plan: AttentionPlan,
        layers: Layers,
    ) -> Tensor:  # fmt: skip
        """[R, H] float32: the residual stream after layers `start … stop - 1`, in memory that the next call reuses.

        Args:
            start: First layer.
            stop: One past the last.
            x: [R, H] float32, the residual stream before layer `start`.
            rotaries: The decoder's rotary tables for these rows.
            kv: Where keys and values are written and read.
            plan: What each row sees.
            layers: Which halves of these layers are left out.
        """
        rows = x.shape[0]
        self._reserve(rows)
        self._bind(kv)
        schedules = np.array(
            [(address_of(s.job), s.units, s.short) for s in (kernel.schedule(plan) for kernel in self._schedules)],
            np.int64,
        )
        tables = np.array(
            [(by.cos.data_ptr(), by.sin.data_ptr(), by.cos.shape[1]) for by in rotaries] or [(0, 0, 0)], np.int64
        )
        stream = self._buffers[_STREAM][: rows * x.shape[1]].view(rows, -1)
        stream.copy_(x)
        chosen, left_in = self._program(start, stop, layers)
        team = shared_team()
        with team.lock:
            team.reserve(rows * self._scratch)
            awake = program.run_program(
                team.state, self._steps, chosen, self._addresses, schedules, tables, rows, team.scratch
            )
        team.ring(awake)
        return self._buffers[left_in][: rows * x.shape[1]].view(rows, -1)

    def _reserve(self, rows: int) -> None:
        if rows > self._rows:
            self._rows = max(rows, 8)
            with torch.inference_mode(mode=False):  # usable inside and outside of it
                self._buffers = [torch.empty(self._rows * width) for width in self._widths]
            self._addresses[:] = [buffer.data_ptr() for buffer in self._buffers]

    def _bind(self, kv: KVStore) -> None:
        """Point the attention jobs at this KV memory."""
        if kv is not self._kv:
            for index, entry in enumerate(self._attentions):
                entry.kernel.bind(entry.job, kv.keys[index], kv.values[index])
            self._kv = kv


def accelerate(decoder: Decoder, attend: Attend) -> None:
    """Give a decoder the CPU kernels, if they cover its device and dtype; else it stays as it is."""
    shape = decoder.shape
    if shape.device.type == "cpu" and most_rows(shape.dtype) > 0:
        decoder.ops = CpuOps(attend, shape.dtype)
        decoder.stack = CpuStack.build(decoder.config, decoder.weights)
        _warm(decoder)


def _warm(decoder: Decoder) -> None:
    """Compile the kernels, or read them from numba's cache, now rather than at the first token."""
    shape, index = decoder.shape, torch.arange(2)
    memory = KVMemory(shape.layers, shape.kv_heads, shape.head_dim, 2, shape.dtype, shape.device)
    with torch.inference_mode():
        plan = AttentionPlan(index, index, (), (Block(0, 2, None),))
        decoder.logits(decoder.forward(torch.zeros(2, dtype=torch.int64), memory, plan))
