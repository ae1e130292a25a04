"""Matchers and the states that share them: what is copied, what is rolled back, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from treille.constraints import Vocabulary, guidance, regex
from treille.constraints.binding import Binding
from treille.tree import Node

if TYPE_CHECKING:
    from treille.constraints.guidance import GuidanceConstraint, State

LETTERS = "abc"
EOS = 3
VOCABULARY = Vocabulary(tuple(letter.encode() for letter in LETTERS), frozenset({EOS}), 40)
SOURCE = regex("[ab]{0,12}c?")


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths at which lines were forked so far."""
    seen: list[int] = []
    fork = guidance._Line.fork

    def counted(line: guidance._Line, length: int) -> guidance._Line:
        seen.append(length)
        return fork(line, length)

    monkeypatch.setattr(guidance._Line, "fork", counted)
    return seen


def follow(constraint: GuidanceConstraint, state: State, text: str) -> list[State]:
    """The states after each letter of a text."""
    states = [state]
    for letter in text:
        after = constraint.advance(states[-1], LETTERS.index(letter))
        assert after is not None
        states.append(after)
    return states


def masks_of(constraint: GuidanceConstraint, states: list[State]) -> list[list[int]]:
    """The tokens that may follow each state."""
    out = np.empty((len(states), VOCABULARY.words), np.int32)
    constraint.masks(states, out)
    return [VOCABULARY.tokens_of(row).tolist() for row in out]


def test_a_text_is_copied_only_where_it_branches(forks: list[int]):
    """A chain, its masks in any order and a second try of the same token copy nothing; a second child does, once."""
    constraint = SOURCE.compile(VOCABULARY)
    states = follow(constraint, constraint.start(), "abab")
    assert masks_of(constraint, states) == [[0, 1, 2, EOS]] * 5
    assert follow(constraint, states[1], "b")[1] is states[2]
    assert not forks
    branch = follow(constraint, states[2], "bbc")
    assert forks == [2]
    order = [states[4], branch[3], states[0], branch[1], states[2], branch[3]]
    assert masks_of(constraint, order) == [[0, 1, 2, EOS], [EOS], *[[0, 1, 2, EOS]] * 3, [EOS]]
    assert forks == [2]
    assert [constraint.text(state) for state in (states[4], branch[3])] == [b"abab", b"abbbc"]


def test_what_nobody_holds_is_rolled_back(forks: list[int]):
    """A dropped branch leaves its line to the next one."""
    constraint = SOURCE.compile(VOCABULARY)
    first = follow(constraint, constraint.start(), "ab")
    del first[1:]
    assert masks_of(constraint, follow(constraint, first[0], "bac")) == [*[[0, 1, 2, EOS]] * 3, [EOS]]
    assert not forks


def test_a_mask_is_written_where_it_belongs_or_nowhere():
    """A matrix of another size, or one with gaps, would be written past its end."""
    constraint = SOURCE.compile(VOCABULARY)
    state = constraint.start()
    with pytest.raises(AssertionError):
        constraint.masks([state], np.empty((2, VOCABULARY.words), np.int32))
    with pytest.raises(TypeError, match="contiguous"):
        constraint.masks([state] * 2, np.empty((2, 2 * VOCABULARY.words), np.int32)[:, ::2])
    constraint.masks([], np.empty((0, VOCABULARY.words), np.int32))


def test_a_run_knows_what_it_refused_and_what_is_no_text():
    """Its masks leave out what led to a dead end, and allow nothing after a text that is not allowed."""
    constraint = SOURCE.compile(VOCABULARY)
    tip = Node.root([0])
    binding = Binding(SOURCE, constraint, tip)
    binding.refuse(tip, 1)
    nodes = [tip.child(2).child(0), tip, tip.child(2)]
    out = np.full((3, VOCABULARY.words), 5, np.int32)
    binding.masks(nodes, out)
    assert [VOCABULARY.tokens_of(row).tolist() for row in out] == [[], [0, 2, EOS], [EOS]]
    assert not binding.admits(tip, 1)
