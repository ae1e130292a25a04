"""Norms and activations of the CPU kernels, over rows of float32."""

import math
from typing import Any

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from treille.kernels.intrinsics import bits_float, float_bits, floats_at
from treille.kernels.team import CACHE

# Sums may be reordered and products contracted; NaN and infinity keep their meaning.
FASTMATH = frozenset({"reassoc", "contract"})

RMS, LAYER = 1, 2  # kinds of norm; 0 is none
SILU, GELU, GELU_TANH, RELU = range(4)

_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_EXP_MAX, _EXP_MIN = np.float32(88.0), np.float32(-87.0)
_ROUND, _ROUND_BITS = np.float32(12582912.0), np.int32(0x4B400000)  # 1.5 * 2**23: adding it rounds to an integer
_P0, _P1, _P2 = np.float32(1.9875691e-4), np.float32(1.3981999e-3), np.float32(8.3334519e-3)
_P3, _P4, _P5 = np.float32(4.1665795e-2), np.float32(1.6666665e-1), np.float32(5.0000001e-1)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)
_ROOT_HALF = np.float32(math.sqrt(0.5))
_GELU_SLOPE, _GELU_CUBE = np.float32(-2.0 * math.sqrt(2.0 / math.pi)), np.float32(0.044715)


@njit(fastmath={"contract"}, forceinline=True, cache=CACHE)
def exponential(x: Any) -> Any:
    """e**x for float32 within 2 units in the last place, clamped to [e**-87, e**88]; NaN stays NaN.

    Written without a call so that LLVM vectorises the loops it stands in: x = n ln 2 + r, e**r by the polynomial of
    Cephes' expf, 2**n by its bits. Must be compiled without reassociation (the rounding trick would be folded away).
    """
    x = _EXP_MAX if x > _EXP_MAX else x  # noqa: FURB136 - min and max would drop a NaN
    x = _EXP_MIN if x < _EXP_MIN else x  # noqa: FURB136
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    power = np.int32(np.int32(float_bits(shifted) - _ROUND_BITS) + _BIAS)
    return (p * r * r + r + _ONE) * bits_float(np.int32(power << _MANTISSA))


@njit(cache=CACHE, error_model="numpy")
def activate(values: int, count: int, activation: int) -> None:
    """Replaces `count` float32 at the address `values` by their activation."""
    v = carray(floats_at(values), count)
    if activation == SILU:
        for i in range(count):
            v[i] = v[i] / (_ONE + exponential(-v[i]))
    elif activation == GELU_TANH:  # 0.5 x (1 + tanh u) = x / (1 + exp(-2u))
        for i in range(count):
            x = v[i]
            v[i] = x / (_ONE + exponential(_GELU_SLOPE * (x + _GELU_CUBE * x * x * x)))
    elif activation == GELU:
        for i in range(count):
            v[i] = _HALF * v[i] * (_ONE + np.float32(math.erf(v[i] * _ROOT_HALF)))
    else:
        for i in range(count):
            v[i] = _ZERO if v[i] < _ZERO else v[i]  # noqa: FURB136


@njit(cache=CACHE, fastmath=set(FASTMATH), error_model="numpy")
def add_bias(values: int, bias: int, count: int) -> None:
    """values[i] += bias[i] for `count` float32."""
    v, b = carray(floats_at(values), count), carray(floats_at(bias), count)
    for i in range(count):
        v[i] += b[i]


@njit(cache=CACHE, fastmath=set(FASTMATH), error_model="numpy")
def multiply(values: int, factors: int, out: int, count: int) -> None:
    """out[i] = values[i] * factors[i] for `count` float32."""
    v, f, o = carray(floats_at(values), count), carray(floats_at(factors), count), carray(floats_at(out), count)
    for i in range(count):
        o[i] = v[i] * f[i]


@njit(cache=CACHE, fastmath=set(FASTMATH), error_model="numpy")
def add_scaled(values: int, scale: Any, base: int, count: int) -> None:
    """values[i] = base[i] + scale * values[i] for `count` float32."""
    v, b = carray(floats_at(values), count), carray(floats_at(base), count)
    for i in range(count):
        v[i] = b[i] + scale * v[i]


@njit(cache=CACHE, fastmath=set(FASTMATH), error_model="numpy")
def normalise(source: int, target: int, weight: int, bias: int, count: int, kind: int, eps: Any) -> None:
    """Writes norm(source) to `target`, one row of `count` float32: root mean square or layer norm, scaled and shifted.

    `bias` 0 means none; `target` may be `source`.
    """
    x, y, w = carray(floats_at(source), count), carray(floats_at(target), count), carray(floats_at(weight), count)
    mean = _ZERO
    if kind == LAYER:
        for i in range(count):
            mean += x[i]
        mean /= np.float32(count)
    square = _ZERO
    for i in range(count):
        centred = x[i] - mean
        square += centred * centred
    scale = _ONE / np.float32(math.sqrt(square / np.float32(count) + eps))
    for i in range(count):
        y[i] = (x[i] - mean) * scale * w[i]
    if bias != 0:
        add_bias(target, bias, count)


@njit(cache=CACHE, error_model="numpy")
def normalise_rows(
    source: int, target: int, weight: int, bias: int, rows: int, count: int, kind: int, eps: Any
) -> None:
    """`normalise` of each of `rows` consecutive rows."""
    for row in range(rows):
        at = 4 * row * count
        normalise(source + at, target + at, weight, bias, count, kind, np.float32(eps))
