"""A team of threads that shares one kernel: fork and join without locks, in about a microsecond.

A forward of a small model is some hundred short parallel regions, so the cost of a region decides. Work is cut into
chunks that threads claim one by one; the calling thread claims too and needs nobody's help, so a helper that sleeps or
was descheduled costs speed and never progress. Helpers wait for the next region with `sched_yield` (other threads,
torch's among them, come first) and go to sleep when none came for `PATIENCE` rounds.
"""

import atexit
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import cfunc, njit, types
from numba.core.errors import NumbaError

from treille.kernels.intrinsics import call_chunk, fetch_add, load_int, store_int

PATIENCE = 4000  # rounds of sched_yield before a helper sleeps: one to two milliseconds
_SPINS = 100  # loads between two calls of sched_yield

# The team's memory, int64, one cache line (64 bytes) per word that threads write.
# TICKET: generation << 40 | chunks << 20 | next chunk, in one word: a claim is one fetch_add, and a late helper can
# neither claim a chunk twice nor mistake one job for another.
_TICKET, _DONE, _FUNCTION, _JOB, _AWAKE, _STOP = (64 * line for line in range(6))
_WORDS = 48
_FIELD = 20
_MASK = (1 << _FIELD) - 1
MAX_CHUNKS = _MASK // 2  # helpers may add to the next chunk a few times after the last one

_sched_yield = types.ExternalFunction("sched_yield", types.int32())


def _probe() -> None:
    """Nothing; numba is asked whether it could cache it."""


def _cacheable() -> bool:
    """Whether numba finds a writable folder for compiled code (this one, or the user's cache)."""
    try:
        njit(cache=True)(_probe)
    except (RuntimeError, NumbaError):
        return False
    return True


CACHE = _cacheable()


@cache
def _compile(function: Callable[[int, int], None], fastmath: frozenset[str]) -> Any:
    signature = types.void(types.int64, types.int64)
    return cfunc(signature, cache=CACHE, fastmath=set(fastmath) or False)(function)


def compile_chunk(function: Callable[[int, int], None], fastmath: frozenset[str] = frozenset()) -> int:
    """The address of `function(chunk, job)`, compiled for `fork_join`; the code is kept as long as the process."""
    return int(_compile(function, fastmath).address)


@njit(cache=CACHE)
def _claim_all(state: int) -> None:
    """Claims and runs chunks of the present job until none is left."""
    while True:
        ticket = load_int(state + _TICKET)
        if ticket & _MASK >= (ticket >> _FIELD) & _MASK:
            return
        ticket = fetch_add(state + _TICKET, 1)
        chunk = ticket & _MASK
        if chunk >= (ticket >> _FIELD) & _MASK:
            return
        # A claimed chunk keeps its job alive: the caller leaves only when every chunk is done.
        call_chunk(load_int(state + _FUNCTION), chunk, load_int(state + _JOB))
        fetch_add(state + _DONE, 1)


@njit(cache=CACHE)
def fork_join(state: int, function: int, job: int, chunks: int) -> int:
    """The number of helpers that are awake, after `function(chunk, job)` has run once for every chunk < chunks.

    Only one thread may be inside per team (`Team.lock`).
    """
    if load_int(state + _AWAKE) == 0:
        for chunk in range(chunks):
            call_chunk(function, chunk, job)
        return 0
    store_int(state + _FUNCTION, function)
    store_int(state + _JOB, job)
    store_int(state + _DONE, 0)
    generation = (load_int(state + _TICKET) >> (2 * _FIELD)) + 1
    store_int(state + _TICKET, ((generation & _MASK) << (2 * _FIELD)) | (chunks << _FIELD))
    _claim_all(state)
    spins = 0
    while load_int(state + _DONE) != chunks:
        spins += 1
        if spins % (10 * _SPINS) == 0:
            _sched_yield()
    awake: int = load_int(state + _AWAKE)
    return awake


@njit(cache=CACHE, nogil=True)
def _help(state: int, patience: int) -> None:
    """Runs chunks of whatever jobs come, until none came for `patience` rounds."""
    fetch_add(state + _AWAKE, 1)
    idle = 0
    while idle < patience and load_int(state + _STOP) == 0:
        seen = load_int(state + _TICKET)
        if seen & _MASK < (seen >> _FIELD) & _MASK:
            _claim_all(state)
            idle = 0
            continue
        spins = 0
        while spins < _SPINS and load_int(state + _TICKET) == seen:
            spins += 1
        if spins == _SPINS:
            idle += 1
            _sched_yield()
    fetch_add(state + _AWAKE, -1)


class Team:
    """The calling thread and `threads - 1` helpers.

    `lock` is held around every region: an engine may be driven by any thread of a server, one at a time. `scratch` is
    the address of `floats` float32 that the region which holds the lock may use.
    """

    def __init__(self, threads: int) -> None:
        self.helpers = threads - 1
        self.lock = threading.Lock()
        self._words: npt.NDArray[np.int64] = np.zeros(_WORDS + 8, np.int64)
        self.state = (self._words.ctypes.data + 63) // 64 * 64
        self._stop = (self.state - self._words.ctypes.data + _STOP) // 8
        self.floats = 0
        self._scratch: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        self.scratch = self._scratch.ctypes.data
        self._bell = threading.Event()
        self._threads: list[threading.Thread] = []

    def reserve(self, floats: int) -> None:
        """Guarantees room for at least `floats` float32 at `scratch`; the caller holds the lock."""
        if self.floats < floats:
            self._scratch = np.zeros(floats, np.float32)
            self.scratch, self.floats = self._scratch.ctypes.data, floats

    def ring(self, awake: int) -> None:
        """Wakes (at first: starts) the helpers unless all are `awake`; the regions after this one have them."""
        if awake >= self.helpers:
            return
        while len(self._threads) < self.helpers:
            helper = threading.Thread(target=self._serve, name="treille-kernel", daemon=True)
            self._threads.append(helper)
            helper.start()
        self._bell.set()

    def close(self) -> None:
        """Ends the helpers; regions run on the calling thread alone from here on."""
        self._words[self._stop] = 1
        self._bell.set()
        for helper in self._threads:
            helper.join(timeout=1.0)

    def forget_helpers(self) -> None:
        """Makes the team usable in a forked child, where no helper lives; new ones start when they are needed."""
        self.lock = threading.Lock()
        self._bell = threading.Event()
        self._threads.clear()
        self._words[:] = 0

    def _serve(self) -> None:
        while not self._words[self._stop]:
            self._bell.wait()
            self._bell.clear()
            _help(self.state, PATIENCE)


@cache
def shared_team() -> Team:
    """The process's team; its size is `torch.get_num_threads()` when it is first asked for."""
    team = Team(torch.get_num_threads())
    atexit.register(team.close)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=team.forget_helpers)
    return team
