"""Linear layers for few rows on the CPU, fused with the norm before them and the arithmetic after them.

One decoding step reads every weight once, so at one row the speed is the memory's; at 8 to 32 rows it is the
multipliers'. Both are served by one register tile (`intrinsics.dot_tile`) that reads bfloat16, float16 or float32
weights and accumulates in float32. Activations are float32 throughout. The result of a row does not depend, to the
bit, on how many other rows are in the call, nor on the number of threads.

Letters: R rows, K inputs, N outputs, F features of the MLP, H hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from treille.errors import ParameterError
from treille.kernels.elementwise import (
    GELU,
    GELU_TANH,
    LAYER,
    RELU,
    RMS,
    SILU,
    activate,
    add_bias,
    add_scaled,
    multiply,
    normalise,
    normalise_rows,
)
from treille.kernels.intrinsics import bits_float, dot_tile, float_bits, load_int, store_int
from treille.kernels.team import CACHE, MAX_CHUNKS, compile_chunk, fork_join, shared_team

ACTIVATIONS = {"silu": SILU, "gelu": GELU, "gelu_tanh": GELU_TANH, "relu": RELU}
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]

_CHUNK_BYTES = 1 << 16  # weights per chunk: a few microseconds at one row, and at home in the second-level cache
_TILE = 12  # chunks are multiples of the tiles' column counts 3 and 4

# What a region does with its products.
_PLAIN, _ADD, _ACTIVATE, _GATE = range(4)

# The words of a job, int64 each; addresses, counts, and float32 as their bits. The words from _X on change per call.
(
    _WEIGHT, _ROW_BYTES, _BIAS, _INNER, _OUTER, _WIDTH, _MODE, _ACTIVATION,
    _NORM, _NORM_WEIGHT, _NORM_BIAS, _NORM_EPS, _NEXT,
    _X, _ROWS, _OUT, _BASE, _SCALE, _RAW,
) = (8 * word for word in range(19))  # fmt: skip
_WORDS = 19


@njit(cache=CACHE)
def _ahead(block, c, step, columns, w_stride, following):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Bytes from the weights of column `c` to what the memory shall bring meanwhile.

    The first rows of a chunk read its weights from memory, so the next `step` columns are asked for; the last of them
    ask for the beginning of the chunk that this thread will probably claim next, and the rows after the first, whose
    weights are in the cache, for the rest of it: products and memory work at the same time.
    """
    if block > 0:
        return following
    return step * w_stride if c + 2 * step <= columns else following - c * w_stride


@njit(cache=CACHE)
def _products(element, x, x_stride, rows, w, w_stride, columns, inner, out, out_stride, following):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """out[r, c] = x[r] . w[c]: blocks of at most four rows, whose inputs stay in the first-level cache.

    `following`: bytes from these weights to those of the chunk that this thread will probably claim next.
    """
    blocks = (rows + 3) // 4
    row = 0
    for block in range(blocks):
        high = (rows - row + blocks - block - 1) // (blocks - block)
        xa, oa, c = x + row * x_stride, out + row * out_stride, 0
        if high == 1:
            while c + 4 <= columns:
                ahead, wa = _ahead(block, c, 4, columns, w_stride, following), w + c * w_stride
                dot_tile(1, 4, element, xa, x_stride, wa, w_stride, inner, oa + 4 * c, out_stride, ahead)
                c += 4
            while c < columns:
                ahead, wa = _ahead(block, c, 1, columns, w_stride, following), w + c * w_stride
                dot_tile(1, 1, element, xa, x_stride, wa, w_stride, inner, oa + 4 * c, out_stride, ahead)
                c += 1
        elif high == 2:
            while c + 4 <= columns:
                ahead, wa = _ahead(block, c, 4, columns, w_stride, following), w + c * w_stride
                dot_tile(2, 4, element, xa, x_stride, wa, w_stride, inner, oa + 4 * c, out_stride, ahead)
                c += 4
            while c < columns:
                ahead, wa = _ahead(block, c, 1, columns, w_stride, following), w + c * w_stride
                dot_tile(2, 1, element, xa, x_stride, wa, w_stride, inner, oa + 4 * c, out_stride, ahead)
                c += 1
        elif high == 3:
            while c + 3 <= columns:
                ahead, wa = _ahead(block, c, 3, columns, w_stride, following), w + c * w_stride
                dot_tile(3, 3, element, xa, x_stride, wa, w_stride, inner, oa + 4 * c, out_stride, ahead)
                c += 3
            while c < columns:
                ahead, wa = _ahead(block, c, 1, columns, w_stride, following), w + c * w_stride
                dot_tile(3, 1, element, xa, x_stride, wa, w_stride, inner, oa + 4 * c, out_stride, ahead)
                c += 1
        else:
            while c + 3 <= columns:
                ahead, wa = _ahead(block, c, 3, columns, w_stride, following), w + c * w_stride
                dot_tile(4, 3, element, xa, x_stride, wa, w_stride, inner, oa + 4 * c, out_stride, ahead)
                c += 3
            while c < columns:
                ahead, wa = _ahead(block, c, 1, columns, w_stride, following), w + c * w_stride
                dot_tile(4, 1, element, xa, x_stride, wa, w_stride, inner, oa + 4 * c, out_stride, ahead)
                c += 1
        row += high


@njit(cache=CACHE)
def _chunk(element, chunk, job):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Computes the outputs [chunk * width, (chunk + 1) * width) of a job, for all its rows."""
    mode, rows, inner, outer = (
        load_int(job + _MODE),
        load_int(job + _ROWS),
        load_int(job + _INNER),
        load_int(job + _OUTER),
    )
    width = load_int(job + _WIDTH)
    first = chunk * width
    columns = min(width, outer - first)
    x, w, w_stride = load_int(job + _X), load_int(job + _WEIGHT), load_int(job + _ROW_BYTES)
    bias, out, out_stride = load_int(job + _BIAS), load_int(job + _OUT) + 4 * first, 4 * outer
    following = load_int(job + _NEXT)
    _products(element, x, 4 * inner, rows, w + first * w_stride, w_stride, columns, inner, out, out_stride, following)
    raw = load_int(job + _RAW) + 4 * first
    if mode == _GATE:
        w += (outer + first) * w_stride
        _products(element, x, 4 * inner, rows, w, w_stride, columns, inner, raw, out_stride, following)
    for row in range(rows):
        line = out + row * out_stride
        if bias != 0:
            add_bias(line, bias + 4 * first, columns)
        if mode == _ADD:
            scale = bits_float(np.int32(load_int(job + _SCALE)))
            add_scaled(line, scale, load_int(job + _BASE) + 4 * first + row * out_stride, columns)
        elif mode != _PLAIN:
            activate(line, columns, load_int(job + _ACTIVATION))
        if mode == _GATE:
            up = raw + row * out_stride
            if bias != 0:
                add_bias(up, bias + 4 * (outer + first), columns)
            multiply(line, up, line, columns)


def _chunk_bfloat16(chunk: int, job: int) -> None:
    _chunk(np.uint16(0), chunk, job)


def _chunk_float16(chunk: int, job: int) -> None:
    _chunk(np.int16(0), chunk, job)


def _chunk_float32(chunk: int, job: int) -> None:
    _chunk(np.float32(0), chunk, job)


_CHUNKS: dict[torch.dtype, Callable[[int, int], None]] = {
    torch.bfloat16: _chunk_bfloat16,
    torch.float16: _chunk_float16,
    torch.float32: _chunk_float32,
}


def chunk_address(dtype: torch.dtype) -> int:
    """The address of the compiled chunk function for weights of `dtype`; compiled (or read from disk) on first use."""
    return compile_chunk(_CHUNKS[dtype])


@njit(cache=CACHE, nogil=True)
def execute(
    state: int,
    function: int,
    job: int,
    chunks: int,
    x: int,
    rows: int,
    out: int,
    base: int,
    scale: float,
    scratch: int,
) -> int:
    """Runs one job: the norm of its rows, its chunks by the team, the norm after them; returns the helpers awake."""
    norm, inner, outer = load_int(job + _NORM), load_int(job + _INNER), load_int(job + _OUTER)
    weight, bias, eps = load_int(job + _NORM_WEIGHT), load_int(job + _NORM_BIAS), load_int(job + _NORM_EPS)
    post = norm != 0 and base != 0
    source = x
    if norm != 0 and not post:
        for row in range(rows):
            at = 4 * row * inner
            normalise(x + at, scratch + at, weight, bias, inner, norm, bits_float(np.int32(eps)))
        source, scratch = scratch, scratch + 4 * rows * inner
    store_int(job + _X, source)
    store_int(job + _ROWS, rows)
    store_int(job + _OUT, out)
    store_int(job + _BASE, base)
    store_int(job + _SCALE, float_bits(np.float32(scale)))
    store_int(job + _RAW, scratch)
    awake = fork_join(state, function, job, chunks)
    if post:
        for row in range(rows):
            line = out + 4 * row * outer
            normalise(line, line, weight, bias, outer, norm, bits_float(np.int32(eps)))
            add_scaled(line, np.float32(scale), base + 4 * row * outer, outer)
    return awake


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A linear layer's weight [N, K] as the kernels read it, and its bias [N] in float32.

    The weight is not copied: a tensor changed in place is seen, a parameter replaced is not.

    Raises:
        ParameterError: the weight is not a contiguous bfloat16, float16 or float32 matrix on the CPU.
    """

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None) -> "PackedLinear":
        """The packed form of `weight` [N, K] and `bias` [N] or None, of any floating dtype."""
        if (
            weight.dtype not in _CHUNKS
            or weight.device.type != "cpu"
            or weight.dim() != 2
            or not weight.is_contiguous()
        ):
            raise ParameterError(
                f"weight {tuple(weight.shape)} of {weight.dtype} on {weight.device}, strides {weight.stride()}: the "
                "CPU kernels take a contiguous bfloat16, float16 or float32 matrix on the CPU; use the torch operations"
            )
        return cls(weight.detach(), None if bias is None else bias.detach().float().contiguous())

    @property
    def outputs(self) -> int:
        """N."""
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        """K."""
        return self.weight.shape[1]


@dataclass(frozen=True, slots=True)
class PackedNorm:
    """A norm's weight (its offset added) and bias in float32, kind 1 root mean square, 2 layer norm."""

    kind: int
    weight: Tensor
    bias: Tensor | None
    eps: float

    @classmethod
    def of(cls, kind: str, weight: Tensor, bias: Tensor | None, eps: float, offset: float = 0.0) -> "PackedNorm":
        """The packed form of a norm of `kind` "rms" or "layer" that scales by `weight + offset`.

        Raises:
            ParameterError: another kind.
        """
        kinds = {"rms": RMS, "layer": LAYER}
        if kind not in kinds:
            raise ParameterError(f"norm {kind!r}: the CPU kernels know 'rms' and 'layer'; use the torch operations")
        shift = None if bias is None else bias.detach().float().contiguous()
        return cls(kinds[kind], (weight.detach().float() + offset).contiguous(), shift, eps)

    def __call__(self, x: Tensor) -> Tensor:
        """[R, K] float32: the norm of x [R, K] float32, contiguous."""
        out, bias = torch.empty_like(x), 0 if self.bias is None else self.bias.data_ptr()
        rows, count = x.shape
        normalise_rows(x.data_ptr(), out.data_ptr(), self.weight.data_ptr(), bias, rows, count, self.kind, self.eps)
        return out


def _bits(value: float) -> int:
    """The bits of `value` as float32."""
    return int(np.float32(value).view(np.int32))


class LinearJob:
    """A region that is run again and again: the constant words, and every object whose address they hold.

    Attributes:
        function: Address of the chunk function.
        address: Address of the words.
        chunks: How many chunks the outputs are cut into.
        inputs: K.
        outputs: N, or F when gated.
    """

    def __init__(self, linear: PackedLinear, norm: PackedNorm | None, mode: int, activation: int = 0) -> None:
        outputs = linear.outputs // 2 if mode == _GATE else linear.outputs
        row_bytes = linear.inputs * linear.weight.element_size()
        width = max(_TILE, _CHUNK_BYTES // row_bytes // _TILE * _TILE, -(-outputs // MAX_CHUNKS))
        self._kept = (linear, norm)
        self._words: npt.NDArray[np.int64] = np.zeros(_WORDS, np.int64)
        self._team = shared_team()
        self.function = chunk_address(linear.weight.dtype)
        self.address = self._words.ctypes.data
        self.chunks = -(-outputs // width)
        self.inputs, self.outputs = linear.inputs, outputs
        self._set(_WEIGHT, linear.weight.data_ptr(), row_bytes)
        self._set(_BIAS, 0 if linear.bias is None else linear.bias.data_ptr())
        self._set(_INNER, linear.inputs, outputs, width, mode, activation)
        self._set(_NEXT, (self._team.helpers + 1) * width * row_bytes)
        if norm is not None:
            shift = 0 if norm.bias is None else norm.bias.data_ptr()
            self._set(_NORM, norm.kind, norm.weight.data_ptr(), shift, _bits(norm.eps))

    def _set(self, word: int, *values: int) -> None:
        self._words[word // 8 : word // 8 + len(values)] = values

    def run(self, x: Tensor, base: Tensor | None = None, scale: float = 1.0) -> Tensor:
        """The outputs [R, N] float32 for the inputs `x` [R, K] (and `base` [R, N]), both contiguous float32."""
        rows = x.shape[0]
        assert x.shape[1] == self.inputs
        assert x.dtype is torch.float32
        assert x.is_contiguous()
        out = torch.empty((rows, self.outputs))
        team = self._team
        with team.lock:
            team.reserve(rows * (self.inputs + self.outputs))
            awake = execute(
                team.state,
                self.function,
                self.address,
                self.chunks,
                x.data_ptr(),
                rows,
                out.data_ptr(),
                0 if base is None else base.data_ptr(),
                scale,
                team.scratch,
            )
        team.ring(awake)
        return out


class Project:
    """`linear(norm(x))` for one layer; the norm may be None. Also the language-model head."""

    def __init__(self, linear: PackedLinear, norm: PackedNorm | None = None) -> None:
        self.job = LinearJob(linear, norm, _PLAIN)

    def __call__(self, x: Tensor) -> Tensor:
        """A new tensor [R, N] for `x` [R, K], contiguous float32."""
        return self.job.run(x)


class Residual:
    """`x + multiplier * post_norm(linear(h))` for one layer; the norm may be None."""

    def __init__(self, linear: PackedLinear, post_norm: PackedNorm | None = None) -> None:
        self.job = LinearJob(linear, post_norm, _ADD if post_norm is None else _PLAIN)

    def __call__(self, h: Tensor, x: Tensor, multiplier: float = 1.0) -> Tensor:
        """A new tensor [R, H] for `h` [R, K] and the residual stream `x` [R, H], contiguous float32."""
        assert x.shape == (h.shape[0], self.job.outputs)
        assert x.dtype is torch.float32
        assert x.is_contiguous()
        return self.job.run(h, x, float(multiplier))


class Gate:
    """`act(gate) * up` with [gate; up] = linear(norm(x)), or `act(linear(norm(x)))` when not gated."""

    def __init__(self, linear: PackedLinear, norm: PackedNorm | None, activation: Activation, *, gated: bool) -> None:
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ParameterError(f"activation {activation!r}: the CPU kernels know {known}; use the torch operations")
        if gated and linear.outputs % 2:
            raise ParameterError(f"a gated weight of {linear.outputs} rows cannot be halved into gate and up")
        self.job = LinearJob(linear, norm, _GATE if gated else _ACTIVATE, ACTIVATIONS[activation])

    def __call__(self, x: Tensor) -> Tensor:
        """A new tensor [R, F] for `x` [R, K], contiguous float32."""
        return self.job.run(x)
