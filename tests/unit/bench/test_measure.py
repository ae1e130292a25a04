"""Timing: sides alternate, the first round does not count, ratios are taken within a round."""

import pytest
import torch

from treille.bench.measure import Summary, alternate, best_threads, ratios, timed


def test_sides_alternate_and_the_first_round_warms_up():
    """Every round runs every side once and begins with another one; only the rounds after the first count."""
    order: list[str] = []
    clock = iter(range(100))
    sides = {name: lambda: float(next(clock)) for name in "ab"}
    assert alternate(sides, 3, order.append) == {"a": [3.0, 4.0, 7.0], "b": [2.0, 5.0, 6.0]}
    assert "".join(order) == "abbaabba"


def test_ratios_are_taken_within_rounds():
    """A round in which the machine was slow for both sides leaves the ratio as it is."""
    assert ratios([2.0, 20.0, 9.0], [1.0, 10.0, 3.0]) == Summary(2.0, 2.0, 3.0)


def test_a_timed_side_has_its_threads_and_gives_them_back():
    """`timed` sets the threads of torch for the call only."""
    seen: list[int] = []
    known = torch.get_num_threads()
    assert timed(lambda: seen.append(torch.get_num_threads()), torch.device("cpu"), known + 1)() >= 0
    assert seen == [known + 1]
    assert torch.get_num_threads() == known


@pytest.mark.parametrize("faster", [1, 2])
def test_the_better_number_of_threads_is_found(faster, monkeypatch):
    """`best_threads` returns the number of threads with which the call took less time."""
    now = [0.0]
    monkeypatch.setattr("treille.bench.measure.time.perf_counter", lambda: now[0])

    def call() -> None:
        now[0] += 1.0 if torch.get_num_threads() == faster else 3.0

    known = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert best_threads(call, torch.device("cpu")) == faster
    finally:
        torch.set_num_threads(known)
