# ruff: noqa: ARG001 - an intrinsic names its arguments for numba; the code reads the values it is given
"""LLVM building blocks of the CPU kernels: raw memory, atomics, and the register tiles of products and of attention.

Numba has no type for bfloat16, no CPU atomics, and leaves the order of a vectorised sum to LLVM. The few instructions
that need a guarantee are therefore written out here; everything else in this package is plain numba. Addresses are
`intp` integers. After an edit here, delete the `__pycache__` of this folder: numba's cache follows only the file in
which a cached function stands.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils

# Numba's own annotations do not cover these: an intrinsic is called without its first argument, for a result.
intrinsic: Any = extending.intrinsic
types: Any = numba_types
cgutils: Any = numba_cgutils

_LINE = 64  # bytes of a cache line
LANES = 8  # float32 lanes of one accumulator; fixed, so that sums have one order on every machine

_F32 = ir.FloatType()
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)
_ELEMENTS: dict[Any, tuple[ir.Type, int]] = {  # stored type and bytes of each weight format
    types.uint16: (_I16, 2),  # bfloat16: the upper half of a float32
    types.int16: (ir.HalfType(), 2),  # float16
    types.float32: (_F32, 4),
}

Codegen: TypeAlias = Callable[[Any, ir.IRBuilder, Any, Sequence[ir.Value]], ir.Value]


def _pointer(builder: ir.IRBuilder, address: ir.Value, pointee: ir.Type) -> ir.Value:
    return builder.inttoptr(address, pointee.as_pointer())


@intrinsic
def floats_at(_typing: Any, address: Any) -> tuple[Any, Codegen]:
    """The address as a pointer to float32, for `numba.carray`."""

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return _pointer(builder, args[0], _F32)

    return types.CPointer(types.float32)(types.int64), codegen


@intrinsic
def store_float(_typing: Any, address: Any, value: Any) -> tuple[Any, Codegen]:
    """Writes the float32 `value` at `address`."""

    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        builder.store(args[1], _pointer(builder, args[0], _F32))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


@intrinsic
def load_int(_typing: Any, address: Any) -> tuple[Any, Codegen]:
    """The int64 at `address`; an acquire load, so what was written before its release store is visible."""

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return builder.load_atomic(_pointer(builder, args[0], _I64), "acquire", 8)

    return types.int64(address), codegen


@intrinsic
def store_int(_typing: Any, address: Any, value: Any) -> tuple[Any, Codegen]:
    """Writes the int64 `value` at `address`; a release store."""

    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        builder.store_atomic(args[1], _pointer(builder, args[0], _I64), "release", 8)
        return context.get_dummy_value()

    return types.void(address, types.int64), codegen


@intrinsic
def fetch_add(_typing: Any, address: Any, value: Any) -> tuple[Any, Codegen]:
    """The int64 at `address` before `value` was added to it, atomically (acquire and release)."""

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return builder.atomic_rmw("add", _pointer(builder, args[0], _I64), args[1], "acq_rel")

    return types.int64(address, types.int64), codegen


@intrinsic
def call_chunk(_typing: Any, function: Any, chunk: Any, job: Any) -> tuple[Any, Codegen]:
    """Calls the C function `void function(int64 chunk, int64 job)` that stands at the address `function`."""

    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        signature = ir.FunctionType(ir.VoidType(), [_I64, _I64])
        builder.call(_pointer(builder, args[0], signature), [args[1], args[2]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def float_bits(_typing: Any, value: Any) -> tuple[Any, Codegen]:
    """The bits of a float32 as int32."""

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return builder.bitcast(args[0], _I32)

    return types.int32(types.float32), codegen


@intrinsic
def bits_float(_typing: Any, value: Any) -> tuple[Any, Codegen]:
    """The float32 whose bits are the int32 `value`."""

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return builder.bitcast(args[0], _F32)

    return types.float32(types.int32), codegen


def _weights(builder: ir.IRBuilder, address: ir.Value, element: Any, lanes: int) -> ir.Value:
    """`lanes` consecutive weights at `address`, as float32."""
    stored, size = _ELEMENTS[element]
    wide = _F32 if lanes == 1 else ir.VectorType(_F32, lanes)
    raw = builder.load(_pointer(builder, address, stored if lanes == 1 else ir.VectorType(stored, lanes)), align=size)
    if element == types.float32:
        return raw
    if element == types.int16:
        return builder.fpext(raw, wide)
    bits = _I32 if lanes == 1 else ir.VectorType(_I32, lanes)
    sixteen = ir.Constant(_I32, 16) if lanes == 1 else ir.Constant(bits, [16] * lanes)
    return builder.bitcast(builder.shl(builder.zext(raw, bits), sixteen), wide)


def _multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    name = "llvm.fmuladd.f32" if a.type == _F32 else f"llvm.fmuladd.v{LANES}f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def _shuffle(builder: ir.IRBuilder, one: ir.Value, other: ir.Value, lanes: Sequence[int]) -> ir.Value:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_I32, LANES), list(lanes)))


# Each stage adds the halves of what is left of two sums and keeps both results in one vector: lanes of the halves.
_HALVES = (
    ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
    ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
    ((0, 2, 8, 10, 4, 6, 12, 14), (1, 3, 9, 11, 5, 7, 13, 15)),
)


def _sum_lanes(builder: ir.IRBuilder, vectors: Sequence[ir.Value]) -> list[ir.Value]:
    """The sums of the lanes of each vector by halving: (0+4)+(2+6) and so on, in an order that is written, not LLVM's.

    Those of eight vectors take 21 instructions and come in one vector: the sum of vector i in lane `_LANE[i]`.
    """
    for low, high in _HALVES:
        pairs = [(vectors[at], vectors[min(at + 1, len(vectors) - 1)]) for at in range(0, len(vectors), 2)]
        vectors = [builder.fadd(_shuffle(builder, *pair, low), _shuffle(builder, *pair, high)) for pair in pairs]
    return list(vectors)


_LANE = [4 * (at & 1) + (at >> 1 & 1) + 2 * (at >> 2 & 1) for at in range(LANES)]


def _prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Asks for the cache line at `address`, which need not exist, for reading."""
    byte = ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    read, locality, data = ir.Constant(_I32, 0), ir.Constant(_I32, 3), ir.Constant(_I32, 1)
    builder.call(function, [builder.inttoptr(address, byte), read, locality, data])


def _accumulate(
    builder: ir.IRBuilder,
    sums: Sequence[ir.Value],
    bounds: tuple[ir.Value, ir.Value],
    streams: tuple[Sequence[ir.Value], Sequence[ir.Value]],
    element: Any,
    lanes: int,
    unroll: int = 1,
    ahead: ir.Value | None = None,
) -> None:
    """Emits `sums[row, column] += x[row, k] * w[column, k]` for k from bounds[0] to bounds[1] in steps of `lanes`.

    With `ahead`, as many bytes of weights as are read here are also asked for that far behind `ws[0]`, in the order of
    memory: rows follow each other without gaps, and one ascending stream is what the memory serves fastest.
    """
    size = _ELEMENTS[element][1]
    xs, ws = streams
    x_type = _F32 if lanes == 1 else ir.VectorType(_F32, lanes)
    step = ir.Constant(_I64, lanes * unroll)
    with cgutils.for_range_slice(builder, bounds[0], bounds[1], step, intp=_I64) as (start, _):
        if ahead is not None:
            far = builder.add(ahead, builder.mul(start, ir.Constant(_I64, size * len(ws))))
            for line in range(len(ws)):
                _prefetch(builder, builder.add(builder.add(ws[0], far), ir.Constant(_I64, _LINE * line)))
        for part in range(unroll):
            k = builder.add(start, ir.Constant(_I64, part * lanes))
            x_at = builder.mul(k, ir.Constant(_I64, 4))
            w_at = builder.mul(k, ir.Constant(_I64, size))
            weights = [_weights(builder, builder.add(w, w_at), element, lanes) for w in ws]
            for row, x in enumerate(xs):
                loaded = builder.load(_pointer(builder, builder.add(x, x_at), x_type), align=4)
                for column, weight in enumerate(weights):
                    place = sums[row * len(ws) + column]
                    builder.store(_multiply_add(builder, loaded, weight, builder.load(place)), place)


def _emit_tile(builder: ir.IRBuilder, shape: tuple[int, int], element: Any, args: Sequence[ir.Value]) -> None:
    """Emits the whole tile: vector loop, sum of the lanes, scalar loop over the rest of k, stores."""
    x, x_stride, w, w_stride, inner, out, out_stride, ahead = args
    rows, columns = shape
    count = rows * columns
    at = [builder.add(x, builder.mul(x_stride, ir.Constant(_I64, row))) for row in range(rows)]
    wt = [builder.add(w, builder.mul(w_stride, ir.Constant(_I64, column))) for column in range(columns)]
    zero, zeros = ir.Constant(_I64, 0), ir.Constant(_VECTOR, [0.0] * LANES)
    whole = builder.and_(inner, ir.Constant(_I64, -LANES))
    sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(count)]
    for place in sums:
        builder.store(zeros, place)
    steps = _LINE // (LANES * _ELEMENTS[element][1])
    lines = builder.and_(inner, ir.Constant(_I64, -LANES * steps))
    _accumulate(builder, sums, (zero, lines), (at, wt), element, LANES, steps, ahead)
    _accumulate(builder, sums, (lines, whole), (at, wt), element, LANES)
    scalars = [cgutils.alloca_once(builder, _F32) for _ in range(count)]
    totals = _sum_lanes(builder, [builder.load(place) for place in sums])
    for index, total in enumerate(scalars):
        lane = ir.Constant(_I32, _LANE[index % LANES])
        builder.store(builder.extract_element(totals[index // LANES], lane), total)
    _accumulate(builder, scalars, (whole, inner), (at, wt), element, 1)
    for row in range(rows):
        line = builder.add(out, builder.mul(out_stride, ir.Constant(_I64, row)))
        for column in range(columns):
            target = builder.add(line, ir.Constant(_I64, 4 * column))
            builder.store(builder.load(scalars[row * columns + column]), _pointer(builder, target, _F32))


@intrinsic(prefer_literal=True)
def dot_tile(
    _typing: Any,
    rows: Any,
    columns: Any,
    element: Any,
    x: Any,
    x_stride: Any,
    w: Any,
    w_stride: Any,
    inner: Any,
    out: Any,
    out_stride: Any,
    ahead: Any,
) -> tuple[Any, Codegen]:
    """Writes the products of `rows` activation rows with `columns` weight rows, all sums held in registers.

    out[r, c] = sum over k < inner of x[r, k] * w[c, k], float32. Every sum runs over k in the same order (eight
    partial sums by k mod 8, halved, then the rest of k one by one) whatever the shape of the tile, so a value never
    depends on which other rows or columns are computed with it.

    `rows` and `columns` are literals; the type of `element` names the weight format (uint16: bfloat16, int16:
    float16, float32); addresses and strides are in bytes. As many bytes of weights as are read are also asked for at
    `w + ahead`, which need not exist.
    """
    shape = (rows.literal_value, columns.literal_value)
    weight_format = types.unliteral(element)

    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        _emit_tile(builder, shape, weight_format, args[3:])
        return context.get_dummy_value()

    addresses = (types.int64,) * 8
    return types.void(rows, columns, element, *addresses), codegen


@intrinsic
def dot_keys(_typing: Any, query: Any, key: Any, stride: Any, width: Any, out: Any) -> tuple[Any, Codegen]:
    """Writes the products of a float32 query with eight float32 keys that stand `stride` bytes apart.

    out[j] = sum over d < width of query[d] * key[j, d]; `width` is a multiple of LANES. Addresses are in bytes.
    """

    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        query, key, stride, width, out = args
        zeros = ir.Constant(_VECTOR, [0.0] * LANES)
        # Key j is summed as the vector whose sum comes to lane j.
        keys = [builder.add(key, builder.mul(stride, ir.Constant(_I64, lane))) for lane in _LANE]
        sums = [cgutils.alloca_once(builder, _VECTOR) for _ in keys]
        for place in sums:
            builder.store(zeros, place)
        _accumulate(builder, sums, (ir.Constant(_I64, 0), width), ([query], keys), types.float32, LANES)
        (total,) = _sum_lanes(builder, [builder.load(place) for place in sums])
        builder.store(total, _pointer(builder, out, _VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 5), codegen


def _spread(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A vector of which every lane is `value`."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_I32, 0))
    return _shuffle(builder, first, nothing, [0] * LANES)


def _weigh_columns(
    builder: ir.IRBuilder, places: Sequence[ir.Value], count: ir.Value, scale: ir.Value, vectors: int
) -> None:
    """Emits `weigh_rows` for as many vectors of columns: even and odd rows are summed apart, for more sums at once."""
    weights, rows, stride, out = places
    columns = [ir.Constant(_I64, 4 * LANES * index) for index in range(vectors)]
    targets = [_pointer(builder, builder.add(out, column), _VECTOR) for column in columns]
    sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in columns] for _ in range(2)]
    for target, even, odd in zip(targets, *sums, strict=True):
        builder.store(builder.fmul(builder.load(target, align=4), _spread(builder, scale)), even)
        builder.store(ir.Constant(_VECTOR, [0.0] * LANES), odd)
    zero, two = ir.Constant(_I64, 0), ir.Constant(_I64, 2)
    with cgutils.for_range_slice(builder, zero, count, two, intp=_I64) as (start, _):
        for parity in range(2):
            row = builder.add(start, ir.Constant(_I64, parity))
            weight_at = builder.add(weights, builder.mul(row, ir.Constant(_I64, 4)))
            weight = _spread(builder, builder.load(_pointer(builder, weight_at, _F32)))
            first = builder.add(rows, builder.mul(row, stride))
            for column, place in zip(columns, sums[parity], strict=True):
                value = builder.load(_pointer(builder, builder.add(first, column), _VECTOR), align=4)
                builder.store(_multiply_add(builder, weight, value, builder.load(place)), place)
    for target, even, odd in zip(targets, *sums, strict=True):
        builder.store(builder.fadd(builder.load(even), builder.load(odd)), target, align=4)


@intrinsic
def weigh_rows(
    _typing: Any, weights: Any, rows: Any, stride: Any, count: Any, width: Any, scale: Any, out: Any
) -> tuple[Any, Codegen]:
    """out[d] = scale * out[d] + sum over j < count of weights[j] * rows[j, d], all float32.

    `count` is even, `width` a multiple of LANES; rows stand `stride` bytes apart. Addresses are in bytes.
    """

    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        weights, rows, stride, count, width, scale, out = args
        whole = builder.and_(width, ir.Constant(_I64, -4 * LANES))
        for begin, end, vectors in ((ir.Constant(_I64, 0), whole, 4), (whole, width, 1)):
            step = ir.Constant(_I64, vectors * LANES)
            with cgutils.for_range_slice(builder, begin, end, step, intp=_I64) as (column, _):
                offset = builder.mul(column, ir.Constant(_I64, 4))
                places = (weights, builder.add(rows, offset), stride, builder.add(out, offset))
                _weigh_columns(builder, places, count, scale, vectors)
        return context.get_dummy_value()

    addresses = (types.int64,) * 5
    return types.void(*addresses, types.float32, types.int64), codegen
