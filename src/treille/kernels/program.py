"""A whole range of layers in one call: the kernels of `linear` and `attention`, one after another, without Python.

A program is a table of instructions; each names a prepared job and the buffers it reads and writes. Per forward only
the buffers, the rotary tables and the attention schedules change.
"""

from typing import Any

import numpy as np
from numba import njit

from treille.kernels import attention
from treille.kernels.attention import attend_rows
from treille.kernels.intrinsics import bits_float, load_int, store_int
from treille.kernels.linear import execute
from treille.kernels.team import CACHE

# Words of an instruction (int64).
KIND, FUNCTION, JOB, CHUNKS = range(4)  # a linear layer: its chunk function, job and number of chunks
SOURCE, TARGET, BASE = 4, 5, 6  # indices of buffers; BASE -1: none
SCALE = 7  # float32 bits, the factor of a residual
SCHEDULE, ROTARY = 8, 9  # attention: which schedule and which rotary table (-1: none)
LENGTH = 10
LINEAR, ATTEND = 0, 1

# Words of a schedule: address of a job whose first words are set, units of context, whether it is short.
SCHEDULE_WORDS = 3
# Words of a rotary table: addresses of cosine and sine, rotated pairs.
ROTARY_WORDS = 3

_WORD = 8


@njit(cache=CACHE)
def _attend(state: Any, steps: Any, job: Any, rows: Any, schedule: Any, rotary: Any, source: Any, target: Any) -> Any:
    """One layer's attention: the words that the forward decides are put into its job."""
    head = load_int(schedule)
    for word in range(attention.PAIRS):
        store_int(job + _WORD * word, load_int(head + _WORD * word))
    if rotary == 0:
        store_int(job + _WORD * attention.PAIRS, 0)
    else:
        store_int(job + _WORD * attention.COS, load_int(rotary))
        store_int(job + _WORD * attention.SIN, load_int(rotary + _WORD))
        store_int(job + _WORD * attention.PAIRS, load_int(rotary + 2 * _WORD))
    store_int(job + _WORD * attention.QKV, source)
    store_int(job + _WORD * attention.OUT, target)
    units, short = load_int(schedule + _WORD), load_int(schedule + 2 * _WORD) != 0
    return attend_rows(state, steps[0], steps[1], steps[2], job, rows, units, short)


@njit(
    ["int64(int64, UniTuple(int64, 3), int64[:,::1], int64[::1], int64[:,::1], int64[:,::1], int64, int64)"],
    cache=CACHE,
    nogil=True,
)
def run_program(
    state: Any, steps: Any, table: Any, buffers: Any, schedules: Any, rotaries: Any, rows: Any, scratch: Any
) -> Any:
    """The number of helpers awake after all instructions have run.

    Args:
        state: The state of the team.
        steps: Addresses of the attention's steps, from `attention.steps`.
        table: Instructions, [I, LENGTH].
        buffers: Addresses of float32 buffers, each large enough for R rows of what is written to it.
        schedules: [*, SCHEDULE_WORDS].
        rotaries: [*, ROTARY_WORDS].
        rows: R.
        scratch: Address of scratch memory for the linear jobs.
    """
    awake: Any = 0
    for i in range(table.shape[0]):
        job, source, target = table[i, JOB], buffers[table[i, SOURCE]], buffers[table[i, TARGET]]
        if table[i, KIND] == LINEAR:
            base: Any = np.int64(0) if table[i, BASE] < 0 else buffers[table[i, BASE]]
            scale: Any = bits_float(np.int32(table[i, SCALE]))
            found = execute(
                state, table[i, FUNCTION], job, table[i, CHUNKS], source, rows, target, base, scale, scratch
            )
        else:
            schedule = schedules[table[i, SCHEDULE] :].ctypes.data
            rotary = np.int64(0) if table[i, ROTARY] < 0 else np.int64(rotaries[table[i, ROTARY] :].ctypes.data)
            found = _attend(state, steps, job, rows, np.int64(schedule), rotary, source, target)
        awake = max(awake, found)
    return awake
