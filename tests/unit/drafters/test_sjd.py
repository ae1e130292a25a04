"""Speculative Jacobi decoding: the law of windows drawn from the last step's laws, and of the wrong windows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from driving import TARGET, as_draft, host, run

from treille.draft_tree import DraftTree, Law
from treille.drafters._windows import chain
from treille.drafters.base import Budget, Observation
from treille.drafters.sjd import sjd
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.testing import TableModel, assert_lossless, describe_difference, enumerate_outputs, run_alone

UNLIKE = TableModel.random(3, 4)
LIMITS = {"max_new_tokens": 4, "budget": 100_000}


@pytest.mark.parametrize("model", [TARGET, UNLIKE], ids=["cards", "unlike"])
@pytest.mark.parametrize("window", [2, 3])
def test_joint_law(model, window):
    """Rule V3 with the laws of the last step: the joint law of four tokens, over several steps, is exact."""
    plain = enumerate_outputs(sample(), model, **LIMITS)
    law = assert_lossless(sample(), plain, model, draft=f"sjd:window={window}", verification="rejection", **LIMITS)
    assert len(law) == 3**4


def test_windows_are_drawn():
    """Enumeration takes different draws, so their law is really tried: some are accepted, some rejected."""
    counts = [
        run_alone(
            sample(), UNLIKE, random=Random(seed), max_new_tokens=24, draft="sjd:window=3", verification="rejection"
        ).run.drafts
        for seed in range(10)
    ]
    assert 20 < sum(c.accepted for c in counts) < sum(c.drafted for c in counts)


def test_the_window_is_drawn_from_the_laws_beyond_the_new_text():
    """After one accepted token of three, the law below the second one stands where the next window begins."""
    drafter = sjd(host(), window=3)
    process = run([0, 1], verification="rejection")
    tree = drafter.lookup(process, process.tip, Budget(8, 8))
    assert tree.size == 3
    assert not tree.sampled  # nothing is known of any position yet
    laws = [np.roll([0.7, 0.2, 0.1], depth) for depth in range(4)]
    node = tree.nodes[1].child(0)
    drafter.observe(Observation(node.path, 2, tree, (1,), [(law,) for law in laws]))
    tree = drafter.lookup(process, node, Budget(8, 8))
    told = [tree.trials[index][0].law for index in range(3)]
    assert told[0] is not None
    assert told[0].q is laws[2]
    assert told[1] is not None
    assert told[1].q is laws[3]
    assert told[2] is None


class carry_old(sjd):
    """Mutant: rejected tokens stay, and are told to come from the new laws."""

    _old: list[int] = []  # noqa: RUF012

    def _guess(self, run, answer, position, at):
        """The old token while there is one."""
        if at < len(self._old):
            return self._old[at], Law(answer)
        return super()._guess(run, answer, position, at)

    def observe(self, seen):
        """Keep the tokens after the rejected one."""
        self._old = self._drafted[len(seen.accepted) + 1 :] if seen.tree is not None else []
        super().observe(seen)


class one_noise(sjd):
    """Mutant: every place of the window is drawn with the same noise."""

    def _guess(self, run, answer, position, at):
        return super()._guess(run, answer, position, 0)


class noise_of_one_step(sjd):
    """Mutant: the same noise in every step."""

    def _guess(self, run, answer, position, at):
        return super()._guess(run, answer, 0, at)


@pytest.mark.parametrize("wrong", [carry_old, one_noise, noise_of_one_step])
def test_wrong_windows_are_caught(wrong):
    """Old tokens with new laws, or noise that is shared within a window or between steps, change the joint law."""
    plain = enumerate_outputs(sample(), UNLIKE, **LIMITS)
    law = enumerate_outputs(sample(), UNLIKE, draft=as_draft(wrong, window=3), verification="rejection", **LIMITS)
    assert sum(law.values()) == 1
    assert describe_difference(law, plain)


def test_carried_draws_are_accepted_more_often_than_chosen_ones():
    """A draw told with its law is accepted with Σ min(p, q); the same tokens as chosen ones with Σ pq only."""

    class chosen(sjd):
        """Carried draws that are told as chosen."""

        def _guess(self, run, answer, position, at):
            return super()._guess(run, answer, position, at)[0], None

    taken = []
    for draft in ("sjd:window=4", as_draft(chosen, window=4)):
        drafts = [
            run_alone(
                sample(), TARGET, random=Random(seed), max_new_tokens=40, draft=draft, verification="rejection"
            ).run.drafts
            for seed in range(12)
        ]
        taken.append(sum(d.emitted for d in drafts) / sum(d.steps for d in drafts))
    assert taken[0] > taken[1] + 0.1


def test_greedy_and_matched_texts_are_jacobis():
    """Without rejection the window is a Jacobi window: the same steps."""
    for seed in range(5):
        model = TableModel.random(3, seed)
        for strategy in (greedy(), sample()):
            limits = {"random": Random(seed), "max_new_tokens": 16}
            ours = run_alone(strategy, model, draft="sjd:window=4", **limits)
            jacobis = run_alone(strategy, model, draft="jacobi:window=4", **limits)
            assert ours.text == jacobis.text
            assert ours.run.drafts.steps == jacobis.run.drafts.steps


def test_chain_stops_where_the_tree_does():
    """The part of a window that another drafter's budget left in the tree."""
    tree = DraftTree(run([0]).tip)
    tree.add_chain([1, 2])
    assert chain(tree, [1, 2, 0]) == [1, 2]
    assert chain(tree, [2]) == []


def test_peaked_model_takes_fewer_passes():
    """On a peaked table a window of drawn tokens saves forwards at temperature 1."""
    rows = [[Fraction(15 if (a + 1) % 3 == b else 1, 17) for b in range(3)] for a in range(3)]
    peaked = TableModel.markov(rows)
    drafts = [
        run_alone(
            sample(), peaked, random=Random(seed), max_new_tokens=48, draft="sjd:window=8", verification="rejection"
        ).run.drafts
        for seed in range(5)
    ]
    assert sum(d.emitted for d in drafts) / sum(d.steps for d in drafts) > 1.15
