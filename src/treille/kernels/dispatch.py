"""When the CPU kernels are used, and the machine's memory bandwidth to judge them by."""

import os
import sys
import time
from functools import cache

import numpy as np
import torch
from numba import carray, njit  # type: ignore[attr-defined]

from treille.kernels.elementwise import FASTMATH
from treille.kernels.intrinsics import floats_at, load_int, store_float
from treille.kernels.team import CACHE, compile_chunk, fork_join, shared_team

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_EVERY_ROW = 1 << 30
_SUM_CHUNK = 1 << 18  # float32 per chunk: 1 MiB


def _sum_chunk(chunk: int, job: int) -> None:
    """Sums one chunk of the float32 at job[0] into job[1][chunk]."""
    values = carray(floats_at(load_int(job) + 4 * chunk * _SUM_CHUNK), _SUM_CHUNK)
    total = np.float32(0)
    for i in range(_SUM_CHUNK):
        total += values[i]
    store_float(load_int(job + 8) + 4 * chunk, total)


@njit(cache=CACHE, nogil=True)
def _run(state: int, function: int, job: int, chunks: int) -> int:
    return fork_join(state, function, job, chunks)


def most_rows(dtype: torch.dtype) -> int:
    """The number of rows up to which the kernels beat torch's product for CPU weights of `dtype`; 0: never.

    Measured on Zen 3 (AVX2) with all matrices of the SmolLM2-135M shape, processor time of one thread, torch 2.13,
    time of torch / time of the kernels:

    ======== ===== ===== ===== ===== ===== ===== ===== =====
    rows         1     2     4     8    16    32    64   256
    ======== ===== ===== ===== ===== ===== ===== ===== =====
    bfloat16   1.8   3.2   4.9   6.0   6.6   6.8     -   6.7
    float16    1.2   2.3   4.0   5.4     -   6.3   7.2     -
    float32    1.1   2.0   1.7   1.5   1.2   1.2   0.9   0.8
    ======== ===== ===== ===== ===== ===== ===== ===== =====

    Where torch has 512-bit vectors its 16-bit products of many rows are another matter, not measured here: the kernels
    then serve small row counts only.
    """
    if os.name != "posix" or sys.byteorder != "little" or dtype not in DTYPES:
        return 0
    if dtype == torch.float32 or "AVX512" in torch.backends.cpu.get_cpu_capability():
        return 32
    return _EVERY_ROW


@cache
def memory_bandwidth(megabytes: int = 256, repeats: int = 7) -> float:
    """The best rate, in GB/s, at which the team's threads together read `megabytes` that no cache holds."""
    function = compile_chunk(_sum_chunk, fastmath=FASTMATH)
    data = np.ones(megabytes << 18, np.float32)
    sums = np.zeros(data.size // _SUM_CHUNK, np.float32)
    job = np.array([data.ctypes.data, sums.ctypes.data], np.int64)
    team = shared_team()
    best = float("inf")
    for _ in range(repeats + 1):  # the first wakes the helpers
        with team.lock:
            start = time.perf_counter()
            awake = _run(team.state, function, job.ctypes.data, sums.size)
            best = min(best, time.perf_counter() - start)
        team.ring(awake)
    return data.nbytes / best / 1e9
