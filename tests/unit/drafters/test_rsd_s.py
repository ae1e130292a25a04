"""RSD-S; that it is exact for any arrival times is in tests/laws."""

from collections import Counter

import numpy as np
import pytest
from draft_tables import DRAFT, MODELS, paths, proposed

from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.strategy import advance
from treille.testing import run_alone


def by_the_paper(generator, width, depth):
    """Sorted paths of each level by the formulas of the paper: Gumbel scores, conditioned on their maximum."""
    q = np.log(np.array([DRAFT.law([state]) for state in range(3)], float))
    beam, levels = [((0,), 0.0, 0.0)], []
    for _ in range(depth):
        pool = []
        for path, phi, psi in beam:
            own = phi + q[path[-1]]
            scores = own + generator.gumbel(size=3)
            highest = scores.max()
            with np.errstate(divide="ignore"):
                v = psi - scores + np.log1p(-np.exp(scores - highest))
            conditioned = psi - np.maximum(0, v) - np.log1p(np.exp(-np.abs(v)))
            pool += [((*path, token), own[token], conditioned[token]) for token in range(3)]
        beam = sorted(pool, key=lambda entry: -entry[2])[:width]
        levels.append(tuple(sorted("".join("abc"[t] for t in path[1:]) for path, _, _ in beam)))
    return tuple(levels)


def test_the_race_is_the_papers_stochastic_beam_search():
    """The law of the tree's nodes is that of conditioned Gumbel scores: 2,000 trees each, 5 sigma for every cell."""
    runs, generator = 2000, np.random.default_rng(0)
    wanted = Counter(by_the_paper(generator, 2, 2) for _ in range(runs))
    found = Counter()
    for seed in range(runs):
        tree, _ = proposed("rsd_s:width=2,depth=2", do_sample=True, verification="rejection", random=Random(seed))
        names = paths(tree)
        found[tuple(tuple(sorted(n for n in names if len(n) == level)) for level in (1, 2))] += 1
    for cell in {*wanted, *found}:
        a, b = wanted[cell], found[cell]
        assert abs(a - b) < 5 * max(a + b, 4) ** 0.5, cell


def test_emitted_tokens_of_a_step():
    """On the cards' tables, from state 0, with W = 2 and L = 2, a step emits 2.398 tokens; 500 steps, 4 sigma."""

    def one_step(run):
        return (yield from advance(run, run.start))

    lengths = []
    for seed in range(500):
        done = run_alone(
            one_step, MODELS, draft="rsd_s:width=2,depth=2", verification="rejection", do_sample=True,
            random=Random(seed), max_new_tokens=20,
        )  # fmt: skip
        lengths.append(done.output.length - 1)
    assert np.mean(lengths) == pytest.approx(2.398, abs=4 * np.std(lengths) / 500**0.5)


def test_greedy_is_a_beam_search():
    """Without drawing: the most probable paths of every level."""
    tree, done = proposed("rsd_s:width=2,depth=3")
    q = [[float(p) for p in DRAFT.law([state])] for state in range(3)]
    beam, wanted = [("a", 1.0)], []
    for _ in range(3):
        pool = [(path + "abc"[t], p * q["abc".index(path[-1])][t]) for path, p in beam for t in range(3)]
        beam = sorted(pool, key=lambda entry: -entry[1])[:2]
        wanted += sorted(path[1:] for path, _ in beam)
    names = paths(tree)
    assert sorted(names) == sorted(wanted)
    assert done.forwards["draft"] == 3


def test_refusals():
    """At least one token per level, at least one level."""
    with pytest.raises(ParameterError, match="width=0"):
        proposed("rsd_s:width=0")
    with pytest.raises(ParameterError, match="depth=0"):
        proposed("rsd_s:depth=0")
