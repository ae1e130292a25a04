"""Jacobi decoding: the window against a simulation of its own, one token after the other."""

from __future__ import annotations

import pytest
from driving import TARGET, host, run
from hypothesis import given
from hypothesis import strategies as st

from treille.drafters._windows import filler
from treille.drafters.base import Budget
from treille.drafters.jacobi import jacobi
from treille.errors import ParameterError
from treille.requests import Argmax, Choice, Sample
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.testing import TableModel, run_alone


def likeliest(model, path):
    """The lowest id among the most probable tokens."""
    law = model.law(path)
    return law.index(max(law))


def simulate(model, prompt, new, window):
    """Tokens emitted per step by greedy Jacobi decoding, from the definition."""
    text, guesses, emitted = list(prompt), [], []
    while (left := new - (len(text) - len(prompt))) > 0:
        width = min(window, left - 1)
        tokens = [guesses[i] if i < len(guesses) else filler(text, len(text) + i) for i in range(width)]
        picks = [likeliest(model, [*text, *tokens[:i]]) for i in range(width + 1)]
        kept = next((i for i in range(width) if tokens[i] != picks[i]), width)
        text += picks[: kept + 1]
        guesses = picks[kept + 1 :]
        emitted.append(kept + 1)
    return text[len(prompt) :], emitted


@pytest.mark.parametrize("window", [1, 2, 5])
def test_steps_are_those_of_the_definition(window):
    """The same text in the same number of forwards, on tables whose law depends on the whole path."""
    for seed in range(20):
        model = TableModel.random(3, seed)
        text, emitted = simulate(model, (0, 1, 2), 12, window)
        done = run_alone(greedy(), model, prompt=(0, 1, 2), max_new_tokens=12, draft=f"jacobi:window={window}")
        assert list(done.text) == text
        assert done.run.drafts.steps == len(emitted)


def test_a_law_of_the_position_alone_converges_in_one_step():
    """If no token depends on another, the picks of one step are the text: every later window is accepted whole."""
    model = TableModel(3, lambda path: [int(token == len(path) * 7 % 3) for token in range(3)])
    drafts = run_alone(greedy(), model, prompt=(0,), max_new_tokens=41, draft="jacobi:window=4").run.drafts
    # A window is rows 1 … 4 of the last one: what is rejected moves up, what is accepted is fresh again.
    assert drafts.emitted / drafts.steps > 1.9


@pytest.mark.parametrize("gumbel", [False, True])
def test_sampled_text_converges_as_well(gumbel):
    """With the target's own noise its picks are a function of the path, so windows are accepted in sampling too."""
    accepted = 0
    for seed in range(20):
        limits = {"max_new_tokens": 24, "random": Random(seed), "gumbel": gumbel}
        done = run_alone(sample(), TARGET, draft="jacobi:window=4", **limits)
        assert done.text == run_alone(sample(), TARGET, **limits).text
        accepted += done.run.drafts.accepted
    assert accepted > 20


def test_it_asks_for_what_the_run_asks():
    """The target's own pick under match; its likeliest token under rejection, where that is accepted most often."""
    for process, want in [
        (run([1, 2], do_sample=False), Argmax),
        (run([1, 2]), Sample),
        (run([1, 2], verification="rejection"), Argmax),
    ]:
        drafter = jacobi(host())
        drafter.lookup(process, process.tip, Budget(4, 4))
        assert isinstance(drafter.wants[0], want)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_window_is_within_the_budget(window, rows, depth):
    """A chain of as many tokens as the window, the rows and the depth allow."""
    process = run([1, 2, 0])
    tree = jacobi(host(), window=window).lookup(process, process.tip, Budget(rows, depth))
    assert tree.size == tree.depth == min(window, rows, depth)


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(0, 10_000))
def test_filler_is_of_the_text_and_no_end(tokens, position):
    """A token of the text, never an end token if there is any other."""
    token = filler(tokens, position, frozenset((3, 4)))
    assert token in tokens
    assert token not in (3, 4) or set(tokens) <= {3, 4}


def test_no_window_below_the_end():
    """A guessed end token is the last of its window, and what follows is guessed afresh."""
    process = run([1, 2, 0], ends=(2,))
    drafter = jacobi(host(), window=6)
    drafter._answers = [Choice(token, 0.0, 0.0) for token in (1, 2, 0, 1)]
    tree = drafter.lookup(process, process.tip, Budget(6, 6))
    assert tree.path(tree.size) == [1, 2]


def test_wrong_values_are_refused():
    """An empty window."""
    with pytest.raises(ParameterError, match="window"):
        jacobi(host(), window=0)
