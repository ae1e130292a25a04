"""Attention for few rows on the CPU: one call per layer, from the fused projection to the heads' outputs.

The call normalises and rotates queries and keys, writes keys and values into the pool, and attends, in three steps that
the team's threads share: rows are prepared; context is read, each piece once for all rows that see it; the partial
results are merged by their maxima and sums (as in Flash-Decoding, Dao et al. 2023).

Context is cut at absolute positions that are multiples of `CHUNK`, never by what else is in the batch, and every sum
has an order that depends on the row alone: a row's result is bitwise the same alone and among others.

Half-precision pools are read as uint16. No comparison may drop a NaN: freed slots are filled with NaN in debug mode.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic, overload

from treille.kernels.elementwise import exponential
from treille.kernels.intrinsics import LANES, call_chunk, dot_keys, weigh_rows
from treille.kernels.team import CACHE, fork_join

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 256  # positions per unit of work
TILE = 32  # positions held as float32 at once: keys and values of 64 positions and 64 dimensions fit the first cache
FORK_ROWS = 4  # from here on rows are prepared and merged by the team; a row takes about a microsecond for both

# Words of a job (int64): counts, flags and addresses. Shapes: R rows, H and K heads, D width, S slots, N rotated pairs,
# W the width rounded up to a multiple of LANES, I items, P entries of `seen`. First what all layers of a forward share:
ROWS, HEADS, KV_HEADS, WIDTH, ITEM_COUNT, SEEN_COUNT = range(6)
TREE = 6  # int64 [R, 3]: slot, parent's row or -1, number of rows it sees going up from itself
ITEMS, SEEN, OFFSETS, PARTS = range(7, 11)  # see `split_context`
QUERIES = 11  # scratch, float32 [R, H, W], W: D rounded up to a multiple of LANES
FRESH = 12  # scratch, float32 [2, R, K, D]: keys and values of the rows, rounded to the pool's type
PARTIAL = 13  # scratch, float32 [P, H, W + 2]: weighted sum, maximum, sum of weights
# Then what belongs to a layer:
PAIRS, SLOTS = 14, 15
KEYS = 16  # [K, S, D] float32, or uint16 that hold bfloat16 (HALF 0) or float16 (HALF 1)
VALUES = 17
HALF = 18
NUMBERS = 19  # float32 [3]: eps of the norms, factor on the scores, c of ``c * tanh(score / c)`` or 0
Q_WEIGHT = 20  # float32 [D], factor after the per-head RMS norm of queries, a norm's offset already added; 0: no norm
K_WEIGHT = 21  # the same for keys
COS = 22  # float32 [R, N], for the first 2 N dimensions of a head, of which i and i + N form a pair
SIN = 23
QKV = 24  # float32 [R, (H + 2 K) * D], the projection: all queries, then all keys, then all values
OUT = 25  # float32 [R, H * D]
WORDS = 26

# No "nnan" and no "ninf": a poisoned slot must show.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@njit(["float32(uint16, boolean)"], fastmath={"contract"}, forceinline=True, cache=CACHE)
def _widen(bits: Any, half: Any) -> Any:
    """The float32 value of 16 bits: float16 if `half`, else bfloat16."""
    wide = np.uint32(bits)
    if not half:
        return np.uint32(wide << np.uint32(16)).view(np.float32)
    # The exponent is rebased by a product, which also makes subnormals right; infinities and NaN keep exponent 255.
    magnitude = np.uint32((wide & np.uint32(0x7FFF)) << np.uint32(13))
    value = np.uint32(magnitude).view(np.float32) * np.float32(2.0**112)
    special = np.uint32(0x7F800000) if magnitude >= np.uint32(0x0F800000) else np.uint32(0)
    sign = np.uint32((wide & np.uint32(0x8000)) << np.uint32(16))
    return np.uint32(np.float32(value).view(np.uint32) | special | sign).view(np.float32)


@njit(["uint16(float32, boolean)"], fastmath={"contract"}, forceinline=True, cache=CACHE)
def _narrow(value: Any, half: Any) -> Any:
    """The nearest float16 or bfloat16, ties to even, as 16 bits."""
    bits = np.float32(value).view(np.uint32)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    if not half:
        if magnitude > np.uint32(0x7F800000):
            return np.uint16(0x7FC0)
        odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    sign = np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000))
    if magnitude > np.uint32(0x7F800000):
        return np.uint16(0x7E00)
    if magnitude >= np.uint32(0x477FF000):  # 65520 and above round to infinity
        return np.uint16(sign | np.uint32(0x7C00))
    if magnitude < np.uint32(0x38800000):  # subnormal: adding 0.5 leaves the rounded multiple of 2**-24 in the low bits
        shifted = np.float32(np.uint32(magnitude).view(np.float32) + np.float32(0.5))
        return np.uint16(sign | (shifted.view(np.uint32) - np.uint32(0x3F000000)))
    odd = np.uint32((magnitude >> np.uint32(13)) & np.uint32(1))
    rebased = np.uint32(magnitude - np.uint32(0x38000000) + np.uint32(0x0FFF) + odd)
    return np.uint16(sign | np.uint32(rebased >> np.uint32(13)))


def _load(pool: Any, head: Any, slot: Any, d: Any, half: Any) -> Any:
    """An element of the pool as float32."""
    raise NotImplementedError


@overload(_load, jit_options={"forceinline": True})
def _load_of(pool: Any, head: Any, slot: Any, d: Any, half: Any) -> Callable[..., Any]:  # noqa: ARG001
    """Chooses by the pool's type."""

    def load(pool: Any, head: Any, slot: Any, d: Any, half: Any) -> Any:  # noqa: ARG001
        return pool[head, slot, d]

    def load_wide(pool: Any, head: Any, slot: Any, d: Any, half: Any) -> Any:
        return _widen(pool[head, slot, d], half)

    return load if pool.dtype == types.float32 else load_wide


def _store(pool: Any, head: Any, slot: Any, d: Any, value: Any, half: Any) -> None:
    """Writes a float32 into the pool, rounded to the pool's type."""
    raise NotImplementedError


@overload(_store, jit_options={"forceinline": True})
def _store_of(pool: Any, head: Any, slot: Any, d: Any, value: Any, half: Any) -> Callable[..., Any]:  # noqa: ARG001
    """Chooses by the pool's type."""

    def store(pool: Any, head: Any, slot: Any, d: Any, value: Any, half: Any) -> None:  # noqa: ARG001
        pool[head, slot, d] = value

    def store_narrow(pool: Any, head: Any, slot: Any, d: Any, value: Any, half: Any) -> None:
        pool[head, slot, d] = _narrow(value, half)

    return store if pool.dtype == types.float32 else store_narrow


@njit(fastmath=_FAST, forceinline=True)
def _prepare_head(
    source: Any, row: Any, at: Any, width: Any, weight: Any, eps: Any, cos: Any, sin: Any, out: Any
) -> None:
    """Normalises and rotates the head at ``source[row, at:at + width]`` into `out`."""
    factor = np.float32(1.0)
    if weight.shape[0] > 0:
        total = np.float32(0.0)
        for d in range(width):
            total += source[row, at + d] * source[row, at + d]
        factor = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
        for d in range(width):
            out[d] = source[row, at + d] * factor * weight[d]
    else:
        for d in range(width):
            out[d] = source[row, at + d]
    pairs = cos.shape[1]
    for i in range(pairs):
        a, b = out[i], out[i + pairs]
        out[i] = a * cos[row, i] - b * sin[row, i]
        out[i + pairs] = b * cos[row, i] + a * sin[row, i]


@njit(fastmath=_FAST, forceinline=True)
def _see_tile(q: Any, key: Any, value: Any, wide: Any, count: Any, softcap: Any, scores: Any, state: Any) -> None:
    """Adds `count` positions to a head's running softmax.

    The loops start at a literal 0: from an unknown start numba must allow for negative indices, and nothing vectorises.

    Args:
        q: Address of [W].
        key: Address of [count + LANES, W], zero from `count` on.
        value: Like `key`.
        wide: W, the width of a head rounded up to a multiple of LANES.
        count: Positions.
        softcap: 0 for none.
        scores: [TILE + LANES], scratch.
        state: [W + 2]: weighted sum, maximum, sum of weights.
    """
    top, stride, at = state[wide], 4 * wide, scores.ctypes.data
    for j in range(0, count, LANES):
        dot_keys(q, key + j * stride, stride, wide, at + 4 * j)
    if softcap > np.float32(0.0):
        for j in range(count):
            scores[j] = softcap * np.tanh(scores[j] / softcap)
    for j in range(count):
        top = scores[j] if scores[j] > top else top  # noqa: FURB136
    kept = exponential(state[wide] - top)
    total = np.float32(0.0)
    for j in range(count):
        scores[j] = exponential(scores[j] - top)
        total += scores[j]
    scores[count] = np.float32(0.0)
    state[wide] = top
    state[wide + 1] = state[wide + 1] * kept + total
    weigh_rows(at, value, stride, count + count % 2, wide, kept, state.ctypes.data)


@njit(fastmath=_FAST)
def _see_unit(
    unit: Any, items: Any, seen: Any, q: Any, keys: Any, values: Any, half: Any, softcap: Any, partial: Any
) -> None:
    """Computes the partial results of one unit of work: item ``unit % I`` for kv head ``unit // I``."""
    width, wide, groups = keys.shape[2], q.shape[2], q.shape[1] // keys.shape[0]
    key, value = np.zeros((TILE + LANES, wide), np.float32), np.zeros((TILE + LANES, wide), np.float32)
    scores = np.empty(TILE + LANES, np.float32)
    head, item = unit // items.shape[0], unit % items.shape[0]
    start, size, first, last = items[item, 0], items[item, 1], items[item, 2], items[item, 3]
    for s in range(first, last):
        for h in range(head * groups, (head + 1) * groups):
            for d in range(wide + 2):
                partial[s, h, d] = np.float32(0.0)
            partial[s, h, wide] = -np.inf
    for at in range(items[item, 4] // TILE * TILE, size, TILE):
        count = min(TILE, size - at)
        for j in range(count):
            for d in range(width):
                key[j, d] = _load(keys, head, start + at + j, d, half)
            for d in range(width):
                value[j, d] = _load(values, head, start + at + j, d, half)
        for j in range(count, count + LANES):
            for d in range(width):
                key[j, d] = value[j, d] = np.float32(0.0)
        for s in range(first, last):
            low = max(seen[s, 1] - at, 0)
            if low < count:
                skipped = 4 * wide * low
                for h in range(head * groups, (head + 1) * groups):
                    _see_tile(
                        q[seen[s, 0], h].ctypes.data,
                        key.ctypes.data + skipped,
                        value.ctypes.data + skipped,
                        wide,
                        count - low,
                        softcap,
                        scores,
                        partial[s, h],
                    )


@njit(fastmath=_FAST)
def _merge_row(
    row: Any, tree: Any, offsets: Any, parts: Any, q: Any, fresh: Any, softcap: Any, partial: Any, out: Any
) -> None:
    """Merges the row's partial results with its ancestors in this forward and itself, into `out`."""
    heads, width, groups, depth = q.shape[1], fresh.shape[3], q.shape[1] // fresh.shape[2], tree[row, 2]
    wide = q.shape[2]
    scores = np.empty(depth, np.float32)
    for h in range(heads):
        top = np.float32(-np.inf)
        other = row
        for i in range(depth):
            score = np.float32(0.0)
            for d in range(width):
                score += q[row, h, d] * fresh[0, other, h // groups, d]
            if softcap > np.float32(0.0):
                score = softcap * np.tanh(score / softcap)
            scores[i] = score
            top = score if score > top else top  # noqa: FURB136
            other = tree[other, 1]
        for i in range(offsets[row], offsets[row + 1]):
            part = partial[parts[i], h, wide]
            top = part if part > top else top  # noqa: FURB136
        total, result = np.float32(0.0), out[row, h * width : (h + 1) * width]
        for d in range(width):
            result[d] = np.float32(0.0)
        for i in range(offsets[row], offsets[row + 1]):
            weight = exponential(partial[parts[i], h, wide] - top)
            total += weight * partial[parts[i], h, wide + 1]
            for d in range(width):
                result[d] += weight * partial[parts[i], h, d]
        other = row
        for i in range(depth):
            weight = exponential(scores[i] - top)
            total += weight
            for d in range(width):
                result[d] += weight * fresh[1, other, h // groups, d]
            other = tree[other, 1]
        for d in range(width):
            result[d] /= total


@njit(["int64(int64)"], forceinline=True, cache=CACHE)
def _whole(width: Any) -> Any:
    """W for a width D."""
    return (width + LANES - 1) // LANES * LANES


def _pointer_to(element: Any) -> Callable[..., Any]:
    """An intrinsic that turns an address into a typed pointer, for `carray`."""

    @intrinsic
    def pointer(_typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(address), codegen  # type: ignore[no-untyped-call]

    return cast("Callable[..., Any]", pointer)


_floats, _integers, _halves = _pointer_to(types.float32), _pointer_to(types.int64), _pointer_to(types.uint16)


@njit(fastmath=_FAST, forceinline=True)
def _prepare(row: Any, job: Any, keys: Any, values: Any) -> None:
    """Fills the row's queries (scaled) and fresh keys and values, and writes the latter two into the pool."""
    count, heads, kv_heads, width, pairs = job[ROWS], job[HEADS], job[KV_HEADS], job[WIDTH], job[PAIRS]
    qkv = carray(_floats(job[QKV]), (count, (heads + 2 * kv_heads) * width))
    q_weight = carray(_floats(job[Q_WEIGHT]), (width if job[Q_WEIGHT] != 0 else 0,))
    k_weight = carray(_floats(job[K_WEIGHT]), (width if job[K_WEIGHT] != 0 else 0,))
    cos, sin = carray(_floats(job[COS]), (count, pairs)), carray(_floats(job[SIN]), (count, pairs))
    q = carray(_floats(job[QUERIES]), (count, heads, _whole(width)))
    fresh = carray(_floats(job[FRESH]), (2, count, kv_heads, width))
    slot, half = carray(_integers(job[TREE]), (count, 3))[row, 0], job[HALF] != 0
    numbers = carray(_floats(job[NUMBERS]), (3,))
    eps, scale = numbers[0], numbers[1]
    for h in range(heads):
        _prepare_head(qkv, row, h * width, width, q_weight, eps, cos, sin, q[row, h])
        for d in range(width):
            q[row, h, d] *= scale
        for d in range(width, q.shape[2]):
            q[row, h, d] = np.float32(0.0)
    for h in range(kv_heads):
        _prepare_head(qkv, row, (heads + h) * width, width, k_weight, eps, cos, sin, fresh[0, row, h])
        at = (heads + kv_heads + h) * width
        for d in range(width):
            _store(keys, h, slot, d, fresh[0, row, h, d], half)
            _store(values, h, slot, d, qkv[row, at + d], half)
        # What later forwards will read, rounded, is also what this one attends to.
        for d in range(width):
            fresh[0, row, h, d] = _load(keys, h, slot, d, half)
            fresh[1, row, h, d] = _load(values, h, slot, d, half)


@njit(fastmath=_FAST, forceinline=True)
def _see(unit: Any, job: Any, keys: Any, values: Any) -> None:
    """`_see_unit` on the arrays of `job`."""
    _see_unit(
        unit,
        carray(_integers(job[ITEMS]), (job[ITEM_COUNT], 5)),
        carray(_integers(job[SEEN]), (job[SEEN_COUNT], 2)),
        carray(_floats(job[QUERIES]), (job[ROWS], job[HEADS], _whole(job[WIDTH]))),
        keys,
        values,
        job[HALF] != 0,
        carray(_floats(job[NUMBERS]), (3,))[2],
        carray(_floats(job[PARTIAL]), (job[SEEN_COUNT], job[HEADS], _whole(job[WIDTH]) + 2)),
    )


def _prepare_float32(row: Any, address: Any) -> None:
    job = carray(_integers(address), (WORDS,))
    shape = (job[KV_HEADS], job[SLOTS], job[WIDTH])
    _prepare(row, job, carray(_floats(job[KEYS]), shape), carray(_floats(job[VALUES]), shape))


def _prepare_uint16(row: Any, address: Any) -> None:
    job = carray(_integers(address), (WORDS,))
    shape = (job[KV_HEADS], job[SLOTS], job[WIDTH])
    _prepare(row, job, carray(_halves(job[KEYS]), shape), carray(_halves(job[VALUES]), shape))


def _see_float32(unit: Any, address: Any) -> None:
    job = carray(_integers(address), (WORDS,))
    shape = (job[KV_HEADS], job[SLOTS], job[WIDTH])
    _see(unit, job, carray(_floats(job[KEYS]), shape), carray(_floats(job[VALUES]), shape))


def _see_uint16(unit: Any, address: Any) -> None:
    job = carray(_integers(address), (WORDS,))
    shape = (job[KV_HEADS], job[SLOTS], job[WIDTH])
    _see(unit, job, carray(_halves(job[KEYS]), shape), carray(_halves(job[VALUES]), shape))


def _merge(row: Any, address: Any) -> None:
    job = carray(_integers(address), (WORDS,))
    count, heads, kv_heads, width = job[ROWS], job[HEADS], job[KV_HEADS], job[WIDTH]
    _merge_row(
        row,
        carray(_integers(job[TREE]), (count, 3)),
        carray(_integers(job[OFFSETS]), (count + 1,)),
        carray(_integers(job[PARTS]), (job[SEEN_COUNT],)),
        carray(_floats(job[QUERIES]), (count, heads, _whole(width))),
        carray(_floats(job[FRESH]), (2, count, kv_heads, width)),
        carray(_floats(job[NUMBERS]), (3,))[2],
        carray(_floats(job[PARTIAL]), (job[SEEN_COUNT], heads, _whole(width) + 2)),
        carray(_floats(job[OUT]), (count, heads * width)),
    )


@cache
def _compiled(step: Callable[[Any, Any], None]) -> Any:
    return cfunc("void(int64, int64)", fastmath=_FAST, cache=CACHE)(step)


def steps(*, narrow: bool) -> tuple[int, int, int]:
    """Addresses of the three steps; the first call compiles them, unless numba's cache has them.

    Args:
        narrow: For a pool of bfloat16 or float16, else float32.
    """
    prepare, see = (_prepare_uint16, _see_uint16) if narrow else (_prepare_float32, _see_float32)
    return _compiled(prepare).address, _compiled(see).address, _compiled(_merge).address


@njit(cache=CACHE, forceinline=True)
def _for_all(state: Any, step: Any, job: Any, chunks: Any, alone: Any) -> Any:
    """The number of helpers awake after the step has run for every chunk, or -1 when the caller did it alone."""
    if not alone:
        return fork_join(state, step, job, chunks)
    for chunk in range(chunks):
        call_chunk(step, chunk, job)
    return -1


@njit(["int64(int64, int64, int64, int64, int64, int64, int64, boolean)"], cache=CACHE, nogil=True)
def attend_rows(state: Any, prepare: Any, see: Any, merge: Any, job: Any, rows: Any, units: Any, short: Any) -> Any:
    """The number of helpers awake, or -1 when none was asked; the result stands at ``job[OUT]``.

    Args:
        state: The state of the team (`treille.kernels.team`).
        prepare: From `steps`, like `see` and `merge`.
        see: Address.
        merge: Address.
        job: Address of WORDS int64, see the constants above.
        rows: R.
        units: ``job[ITEM_COUNT] * job[KV_HEADS]``.
        short: Sharing the units costs more than it saves.
    """
    few = rows < FORK_ROWS
    awake = _for_all(state, prepare, job, rows, few)
    awake = max(awake, _for_all(state, see, job, units, short))
    return max(awake, _for_all(state, merge, job, rows, few))


_SPLIT = (
    "Tuple((int64[:,::1], int64[:,::1], int64[::1], int64[::1], int64))"
    "(int64[:,::1], int64[::1], int64[::1], int64[::1], int64)"
)


@njit([_SPLIT], cache=CACHE)
def split_context(pieces: Any, ends: Any, rows: Any, positions: Any, window: Any) -> Any:
    """The units of work that pieces are cut into, at multiples of CHUNK in position.

    Args:
        pieces: [N, 3] start, stop, position; in the order of position.
        ends: [N + 1] bounds of each piece's rows in `rows`.
        rows: Rows that see the pieces, piece by piece.
        positions: [R].
        window: 0 for none.

    Returns:
        items: [I, 5] first slot, slots, begin and end in `seen`, first slot that any row sees (within the item).
        seen: [P, 2] row, first slot it sees (within the item).
        offsets: [R + 1] bounds of each row in `parts`.
        parts: [P] indices into `seen`, row by row, in the order of position.
        products: of a row with a key, in all items together.
    """
    most_items, most_seen = 0, 0
    for n in range(pieces.shape[0]):
        cuts = (pieces[n, 1] - pieces[n, 0]) // CHUNK + 2
        most_items += cuts
        most_seen += cuts * (ends[n + 1] - ends[n])
    items, seen = np.empty((most_items, 5), np.int64), np.empty((most_seen, 2), np.int64)
    offsets = np.zeros(positions.shape[0] + 1, np.int64)
    count, used, products = 0, 0, 0
    for n in range(pieces.shape[0]):
        start, stop, position = pieces[n, 0], pieces[n, 1], pieces[n, 2]
        while start < stop:
            size = min(stop - start, CHUNK - position % CHUNK)
            begin, least = used, size
            for i in range(ends[n], ends[n + 1]):
                low = max(positions[rows[i]] - window + 1 - position, 0) if window > 0 else 0
                if low < size:
                    seen[used, 0], seen[used, 1] = rows[i], low
                    offsets[rows[i] + 1] += 1
                    used += 1
                    least = min(least, low)
            if used > begin:
                items[count, 0], items[count, 1], items[count, 2] = start, size, begin
                items[count, 3], items[count, 4] = used, least
                products += size * (used - begin)
                count += 1
            start, position = start + size, position + size
    offsets = np.cumsum(offsets)
    parts, filled = np.empty(used, np.int64), offsets.copy()
    for part in range(used):
        row = seen[part, 0]
        parts[filled[row]] = part
        filled[row] += 1
    return items[:count], seen[:used], offsets, parts, products
