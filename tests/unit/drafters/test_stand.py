"""STAND: n-gram laws, draws from them, and the wrong ways to draw."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from driving import TARGET, as_draft, host, run, top

from treille.draft_tree import DraftTree, Law
from treille.drafters._ngram_laws import Entry, Laws, likeliest, ordered
from treille.drafters.base import Budget, Observation
from treille.drafters.stand import stand
from treille.errors import ParameterError
from treille.requests import Probabilities
from treille.sampling.random import Random
from treille.strategies import sample
from treille.testing import TableModel, assert_lossless, describe_difference, enumerate_outputs, run_alone

AMPLE = Budget(80, 16)
SMALL = {"n_max": 1, "n_min": 1, "k": 3, "template": [[0], [1], [0, 0]]}
# Its law depends on the whole path, so what is remembered after one token is never the law itself.
UNLIKE = TableModel.random(3, 4)
LIMITS = {"max_new_tokens": 4, "budget": 400_000}


def test_laws_are_averaged():
    """{B .7, M .2, T .05}, then {B .3, M .6, S .05}: {B .5, M .4, T .025, S .025}; a third counts a third."""
    b, m, s, t = range(4)
    entry = Entry({b: Fraction(7, 10), m: Fraction(2, 10), t: Fraction(5, 100)})
    entry.add({b: Fraction(3, 10), m: Fraction(6, 10), s: Fraction(5, 100)}, 10)
    assert entry.weights == {b: Fraction(1, 2), m: Fraction(2, 5), s: Fraction(1, 40), t: Fraction(1, 40)}
    entry.add({t: Fraction(1)}, 2)
    assert entry.weights == {t: Fraction(2, 3) * Fraction(1, 40) + Fraction(1, 3), b: Fraction(1, 3)}
    assert list(entry.weights) == [t, b]
    assert entry.count == 3


def test_the_longest_known_context_is_used():
    """n-grams of four tokens go before three and two; a shorter text has shorter ones only."""
    laws = Laws((4, 3, 2), 10, 100, 4)
    laws.learn((1, 2, 3), {5: 0.5})
    assert set(laws.entries) == {(1, 2, 3), (2, 3)}
    laws.learn((0, 1, 2, 3), {6: 1.0})
    assert laws.find((0, 1, 2, 3)).weights == {6: 1.0}
    assert laws.find((9, 1, 2, 3)).weights == {6: 0.5, 5: 0.25}
    assert laws.find((9, 9, 9, 3)) is None


def test_the_oldest_n_grams_are_forgotten():
    """No more entries than allowed."""
    laws = Laws((1,), 10, 2, 4)
    for token in range(5):
        laws.learn((token,), {0: 1.0})
    assert set(laws.entries) == {(3,), (4,)}


def test_a_rank_beyond_the_entry_vanishes():
    """Two candidates fill two children, however many the template has, and no token stands twice under a node."""
    drafter = stand(host(10), n_max=1, n_min=1, template=80)
    drafter.table.learn((3,), {4: 0.5, 5: 0.25})
    drafter.table.learn((4,), {3: 1.0})
    process = run([3], do_sample=False)
    tree = drafter.lookup(process, process.tip, AMPLE)
    assert [tree.path(child) for child in tree.children(0)] == [[4], [5]]
    assert all(len(tree.children(index)) <= 2 for index in range(tree.size + 1))


def test_greedy_takes_the_likeliest_and_noise_the_targets_own():
    """Greedy: by probability. One uniform number: its draw goes first. Gumbel noise: by noisy logarithms."""
    entry = Entry({2: 0.5, 0: 0.3, 1: 0.2})
    process = run([3], do_sample=False)
    assert ordered(process, entry, 5, None) == [2, 0, 1]
    process = run([3])
    for position in range(50):
        first, *rest = ordered(process, entry, position, None)
        assert first == process.random.categorical([0.3, 0.2, 0.5], position, "sample")
        assert rest == [token for token in (2, 0, 1) if token != first]
    for position in range(50):
        noise = process.random.gumbel(position, "sample", 3)
        noisy = np.log([0.3, 0.2, 0.5]) + noise
        assert ordered(process, entry, position, noise) == np.argsort(-noisy).tolist()


def test_every_node_teaches_or_only_the_accepted_ones():
    """Rejected nodes too, unless every_node is off: then the root and the accepted path."""
    for every_node, learned in [(False, {(5,), (7,)}), (True, {(5,), (6,), (7,)})]:
        drafter = stand(host(10), n_max=1, n_min=1, every_node=every_node)
        tree = DraftTree(run([5]).tip)
        tree.add(0, 6)
        kept = tree.add(0, 7)
        readings = [top(1, 2), top(3), top(4)]
        drafter.observe(Observation(tree.nodes[kept].child(1).path, 1, tree, (kept,), readings))
        assert set(drafter.table.entries) == learned


def test_likeliest_tokens_of_either_reading():
    """The same law from the top k and from all probabilities."""
    p = np.array([0.1, 0.4, 0.0, 0.3, 0.2])
    assert likeliest(p, 3) == {1: 0.4, 3: 0.3, 4: 0.2}
    assert list(likeliest(p, 5)) == [1, 3, 4, 0]
    (reading,) = top(7, 3)
    assert likeliest(reading, 2) == pytest.approx({7: np.exp(-1), 3: np.exp(-2)})


@pytest.mark.parametrize("model", [TARGET, UNLIKE], ids=["cards", "unlike"])
@pytest.mark.parametrize("every_node", [False, True])
@pytest.mark.parametrize("verification", ["match", "rejection"])
def test_joint_law(model, every_node, verification):
    """Rules V2 (tokens drawn with the target's noise) and V4 (draws without replacement) over four tokens."""
    plain = enumerate_outputs(sample(), model, **LIMITS)
    draft = as_draft(stand, **SMALL, every_node=every_node)
    assert_lossless(sample(), plain, model, draft=draft, verification=verification, **LIMITS)


class as_if_independent(stand):
    """Mutant: drawn without replacement, verified as if with."""

    def _drawn(self, run, entry, position, draws):
        return ((token, Law(law.q, replacement=True)) for token, law in super()._drawn(run, entry, position, draws))


class noise_of_one_step(stand):
    """Mutant: the same noise in every step."""

    def _drawn(self, run, entry, position, draws):
        return super()._drawn(run, entry, 0, draws)


class another_law(stand):
    """Mutant: told a law that the candidates were not drawn from."""

    def _drawn(self, run, entry, position, draws):
        told = Law(np.array([Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]))
        return ((token, told) for token, _ in super()._drawn(run, entry, position, draws))


class argmax_as_drawn(stand):
    """Mutant: the likeliest token, verified as if it had been drawn."""

    def _drawn(self, run, entry, position, draws):
        _, told = next(super()._drawn(run, entry, position, draws))
        return iter([(max(entry.weights, key=entry.weights.get), told)])


@pytest.mark.parametrize("mutant", [as_if_independent, noise_of_one_step, another_law, argmax_as_drawn])
def test_wrong_draws_are_caught(mutant):
    """Every wrong way to draw or to tell the law changes the joint law of four tokens."""
    plain = enumerate_outputs(sample(), UNLIKE, **LIMITS)
    law = enumerate_outputs(sample(), UNLIKE, draft=as_draft(mutant, **SMALL), verification="rejection", **LIMITS)
    assert sum(law.values()) == 1
    assert describe_difference(law, plain)


def test_the_second_text_is_drafted_from_the_first():
    """On a peaked model, tables that a text filled let the next one be accepted more: tau grows."""
    rows = [[Fraction(9 if (a + 1) % 8 == b else 1, 16) for b in range(8)] for a in range(8)]
    peaked = TableModel.markov(rows)
    tau = []
    for n in (1, 4):
        counts = [
            run_alone(
                sample(num_return_sequences=n),
                peaked,
                max_new_tokens=24,
                random=Random(seed),
                draft="stand:template=16",
            ).run.drafts
            for seed in range(8)
        ]
        tau.append(sum(c.emitted for c in counts) / sum(c.steps for c in counts))
    assert tau[1] > tau[0] + 0.1


def test_rejection_asks_for_exact_probabilities():
    """Only a law that is told exactly may be drawn from."""
    drafter = stand(host(10))
    process = run([3], verification="rejection")
    drafter.lookup(process, process.tip, AMPLE)
    assert drafter.wants == (Probabilities(),)


@pytest.mark.parametrize("wrong", [{"n_min": 0}, {"n_max": 1, "n_min": 2}, {"k": 0}, {"entries": 0}, {"template": "x"}])
def test_wrong_values_are_refused(wrong):
    """Values that mean nothing are refused before the first token."""
    with pytest.raises(ParameterError):
        stand(host(), **wrong)
