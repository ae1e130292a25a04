"""The slot allocator against a set of free slots."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treille.cache.slots import KVMemory, OutOfSlots, SlotAllocator
from treille.errors import InternalError

TOTAL = 24
OPERATIONS = ["allocate", "allocate", "grow", "release", "part"]


def longest_run(free):
    """Length of the longest run of free slots."""
    best = run = 0
    for slot in range(TOTAL):
        run = run + 1 if slot in free else 0
        best = max(best, run)
    return best


def first_fit(free, count):
    """Where the first run of at least `count` free slots begins, None without one."""
    return next((s for s in range(TOTAL - count + 1) if all(s + i in free for i in range(count))), None)


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(steps=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(1, 9), st.integers(0, 99)), max_size=40))
def test_the_allocator_is_a_set_of_free_slots(steps):
    """Every run handed out was free, is the first that fits (else the longest), and comes back whole or in parts."""
    allocator, free, held = SlotAllocator(TOTAL), set(range(TOTAL)), []
    for kind, count, pick in steps:
        if kind == "allocate":
            fit, longest = first_fit(free, count), longest_run(free)
            if not longest:
                with pytest.raises(OutOfSlots):
                    allocator.allocate(count)
                continue
            start, stop = allocator.allocate(count)
            assert stop - start == min(count, longest)
            assert fit is None or start == fit
            assert set(range(start, stop)) <= free
            free -= set(range(start, stop))
            held.append((start, stop))
        elif held:
            start, stop = held.pop(pick % len(held))
            if kind == "grow":
                room = next((i for i in range(count) if stop + i not in free), count)
                assert allocator.grow(stop, count) == room
                free -= set(range(stop, stop + room))
                held.append((start, stop + room))
            else:
                cut = start + 1 + pick % (stop - start) if kind == "part" else stop
                allocator.release(start, cut)
                free |= set(range(start, cut))
                held += [(cut, stop)] if cut < stop else []
        assert allocator.free == len(free)
    for start, stop in held:
        allocator.release(start, stop)
    assert allocator.allocate(TOTAL) == (0, TOTAL)  # all runs were merged again


def test_at_least_so_many():
    """`least` refuses runs that are shorter."""
    allocator = SlotAllocator(10)
    allocator.allocate(10)
    allocator.release(0, 3)
    allocator.release(5, 9)
    with pytest.raises(OutOfSlots):
        allocator.allocate(6, least=5)
    assert allocator.allocate(6, least=4) == (5, 9)


@pytest.mark.parametrize("run", [(0, 4), (2, 3), (3, 6), (5, 7), (0, 10)])
def test_freeing_twice_is_an_internal_error(run):
    """A run that is free in part cannot be freed."""
    allocator = SlotAllocator(10)
    allocator.allocate(10)
    allocator.release(2, 6)
    with pytest.raises(InternalError, match="freed twice"):
        allocator.release(*run)


def test_memory_moves_and_poisons_whole_slots():
    """A move copies all layers, heads, keys and values of a run; poison is NaN in exactly the slots named."""
    memory = KVMemory(2, 3, 4, 10, torch.float32, torch.device("cpu"))
    memory.data.copy_(torch.arange(memory.data.numel()).view(memory.data.shape))
    before = memory.data.clone()
    memory.move(1, 6, 3)
    assert torch.equal(memory.data[..., 6:9, :], before[..., 1:4, :])
    assert torch.equal(memory.data[..., :6, :], before[..., :6, :])
    memory.poison(2, 5)
    assert memory.keys[1][2, 2:5].isnan().all()
    assert memory.data.isnan().sum() == 2 * 2 * 3 * 3 * 4
    assert KVMemory.bytes_per_slot(2, 3, 4, torch.float32) == memory.data[..., 0, :].numel() * 4
