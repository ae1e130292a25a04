"""Verification over several steps: state that is carried from step to step, and mistakes that one step cannot show.

The tables are those of the method cards. Every wrong variant is a drafter or a verification with one plausible mistake,
and enumeration finds its law to differ.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from treille.draft_tree import DraftTree, Law
from treille.drafters import ConfiguredDrafter, speculation
from treille.drafters._siblings import Draws, TreeDrafter
from treille.drafters.base import DrafterInfo
from treille.drafters.draft_model import draft_model
from treille.drafters.dyspec import dyspec
from treille.drafters.pearl import pearl
from treille.drafters.rsd_c import rsd_c
from treille.drafters.rsd_s import rsd_s
from treille.drafters.specdec_pp import specdec_pp
from treille.drafters.specinfer import specinfer
from treille.requests import Choice, Forward, Probabilities
from treille.sampling import verify
from treille.sampling.presets import build_chain
from treille.strategies import sample
from treille.testing import TableModel, enumerate_outputs
from treille.testing import enumerate as enumeration

TARGET = TableModel.markov([["1/2", "3/10", "1/5"], ["1/5", "1/2", "3/10"], ["1/10", "3/10", "3/5"]])
DRAFT = TableModel.markov([["1/5", "1/2", "3/10"], ["2/5", "3/10", "3/10"], ["3/10", "2/5", "3/10"]])
MIDDLE = TableModel.markov([["2/5", "1/5", "2/5"], ["3/10", "1/2", "1/5"], ["1/5", "1/5", "3/5"]])
MODELS = {"target": TARGET, "draft": DRAFT, "middle": MIDDLE}
# A residual of more than one token, without which some mistakes have no effect.
WIDE = {
    "target": TableModel.markov([["2/5", "3/10", "1/5", "1/10"]] * 4),
    "draft": TableModel.markov([["1/10", "1/5", "3/10", "2/5"]] * 4),
}


def law(kind, verification="rejection", *, tokens=3, processors=None, models=MODELS, **arguments):
    """The exact law of texts drafted by a class that need not be registered."""
    kind.info = DrafterInfo(kind.__name__, kind, "", "", "")
    draft = ConfiguredDrafter(kind.info, arguments)
    return enumerate_outputs(
        sample(), models, draft=draft, verification=verification, max_new_tokens=tokens, processors=processors
    )


def plain(*, tokens=3, processors=None, models=MODELS):
    """The exact law of plain sampling."""
    return enumerate_outputs(sample(), models["target"], max_new_tokens=tokens, processors=processors)


def total_variation(found, wanted):
    """Half the sum of the differences."""
    return sum(abs(found.get(text, 0) - wanted.get(text, 0)) for text in {**found, **wanted}) / 2


# --- right ones whose freedom is in what they may look at -------------------------------------------------------------


class two_points(enumeration.ScriptedRandom):
    """Continuous noise has two values: what does not depend on its law can be enumerated."""

    def uniform(self, position, purpose, draw=0):
        """One quarter or three quarters."""
        half = Fraction(1, 2)
        return (0.25, 0.75)[self._script.choose((half, half), (self.stream, position, purpose, draw))]


class first_step_only(rsd_s):
    """Leaves the later steps plain."""

    def propose(self, run, node, budget):
        """A tree under the prompt."""
        if node is run.tip:
            return (yield from super().propose(run, node, budget))
        return DraftTree(node)


def test_stochastic_beam_search_is_exact_for_any_arrival_times(monkeypatch):
    """RSD-S: which nodes get how many children may depend on scores in any way, because these precede the tokens."""
    monkeypatch.setattr(enumeration, "ScriptedRandom", two_points)
    assert law(first_step_only, width=2, depth=2) == plain()


def test_any_rule_to_stop_is_exact():
    """SpecDec++: the length may depend on everything drafted so far."""

    class whimsical(specdec_pp):
        def acceptance(self, q):
            """No estimate at all."""
            return float(q[0] * 3 % 1)

    assert law(whimsical, threshold=0.4, least=1, most=2) == plain()


def test_two_levels_are_exact():
    """A draft that is itself verified, by rejection against a middle model, has the middle model's law."""
    assert law(hierarchy) == plain()


def test_a_branch_of_a_tree_may_depend_on_its_tokens():
    """DySpec: whether a sibling or a token below is drawn next depends on the tokens before, not on that one."""
    assert law(dyspec, rows=3, form="heap", tokens=2) == plain(tokens=2)


def test_drafting_ahead_is_exact_at_every_length():
    """PEARL: the joint law for every remainder of the text's length by k: no unverified token is left at the end."""
    for tokens in (1, 2, 3):
        assert law(pearl, k=3, tokens=tokens) == plain(tokens=tokens)


# --- wrong drafters ---------------------------------------------------------------------------------------------------


class noise_of_the_first_step(rsd_c):
    """Draws its proposals with the same noise in every step."""

    def source(self, run, node, *, chosen=False):
        """Noise keyed by the prompt's length."""
        return replace(super().source(run, node, chosen=chosen), draws=Draws(run.random, run.tip.length))


class siblings_reversed(rsd_c):
    """Has its siblings verified in another order than they were drawn in."""

    def propose(self, run, node, budget):
        """Trials reversed."""
        tree = yield from super().propose(run, node, budget)
        for trials in tree.trials:
            trials.reverse()
        return tree


class siblings_sorted_by_probability(rsd_c):
    """Verifies the most probable draw first."""

    def propose(self, run, node, budget):
        """Trials sorted."""
        tree = yield from super().propose(run, node, budget)
        for trials in tree.trials:
            trials.sort(key=lambda trial: -trial.law.q[trial.token])
        return tree


class pruned_by_probability(rsd_c):
    """Drops the less probable of two draws: a beam by likelihood instead of by perturbed score."""

    def propose(self, run, node, budget):
        """One of two."""
        tree = yield from super().propose(run, node, budget)
        kept = DraftTree(node)
        if tree.trials[0]:
            best = max(tree.trials[0], key=lambda trial: trial.law.q[trial.token])
            kept.add(0, best.token, best.law)
        return kept


class only_the_probable(dyspec):
    """Keeps a draw only if its own probability is high."""

    def propose(self, run, node, budget):
        """Those above .3."""
        tree = yield from super().propose(run, node, budget)
        kept = DraftTree(node)
        for trial in tree.trials[0]:
            if trial.law.q[trial.token] > Fraction(3, 10):
                kept.add(0, trial.token, trial.law)
        return kept


class duplicates_dropped(specinfer):
    """Tries a token that was drawn twice only once."""

    def propose(self, run, node, budget):
        """Distinct trials."""
        tree = yield from super().propose(run, node, budget)
        for index, trials in enumerate(tree.trials):
            tree.trials[index] = list({trial.token: trial for trial in reversed(trials)}.values())[::-1]
        return tree


class argmax_called_drawn(TreeDrafter):
    """Drafts the argmax of q, and says that it was drawn from q."""

    def __init__(self, host):
        super().__init__(host, "draft")

    def propose(self, run, node, budget):
        """One token."""
        tree = DraftTree(node)
        if budget.rows:
            ((q,),) = yield Forward((node,), (Probabilities(),), model=self.model)
            tree.add(0, int(np.argmax(q)), Law(q))
        return tree


class law_before_truncation(argmax_called_drawn):
    """Draws from the truncated law of the draft, and reports the whole one."""

    def propose(self, run, node, budget):
        """One token."""
        tree = DraftTree(node)
        if budget.rows:
            ((q, raw),) = yield Forward((node,), (Probabilities(), Probabilities(raw=True)), model=self.model)
            tree.add(0, run.random.categorical(tuple(q), node.length, "draft"), Law(raw))
        return tree


class fresh_draw_after_a_mismatch(draft_model):
    """Where the target's pick was not drafted, picks again."""

    def verify(self, run, tree, wants):
        """The target's picks, some of them replaced."""
        results = yield from super().verify(run, tree, wants)
        for index, node in enumerate(tree.nodes):
            if tree.child(index, results[index][0].token) is None and tree.children(index):
                p = TARGET.law(node.path.tolist())
                token = run.random.categorical(p, node.length, "fresh")
                results[index] = (Choice(token, 0.0, 0.0),)
        return results


class bonus_of_the_raw_law(draft_model):
    """Draws the token after the last drafted one from the softmax before the processors."""

    def verify(self, run, tree, wants):
        """The target's laws, the last one replaced."""
        results = yield from super().verify(run, tree, wants)
        p, raw = results[-1]
        results[-1] = (raw if tree.size else p, raw)
        return results


class hierarchy(TreeDrafter):
    """A chain of two levels: drafts of a small model, verified against a middle one; its law is the middle's."""

    redraw = False
    """After a rejection, draw from the middle's law instead of the residual: TriForce's reference code."""

    def __init__(self, host):
        super().__init__(host, "draft")

    def propose(self, run, node, budget):
        """One token."""
        tree = DraftTree(node)
        if not budget.rows:
            return tree
        ((q,),) = yield Forward((node,), (Probabilities(),), model="draft")
        ((middle,),) = yield Forward((node,), (Probabilities(),), model="middle")
        token = run.random.categorical(tuple(q), node.length, "small")
        if not run.random.bernoulli(verify.chance(middle, q, token), node.length, "small accept"):
            left = middle if self.redraw else verify.residual(middle, q, token)
            token = run.random.categorical(tuple(left), node.length, "small residual")
        tree.add(0, token, Law(middle))
        return tree


class redrawn_in_the_middle(hierarchy):
    """The middle level breaks its law."""

    redraw = True


WRONG = {
    noise_of_the_first_step: {"widths": [2]},
    siblings_reversed: {"widths": [2]},
    siblings_sorted_by_probability: {"widths": [2]},
    pruned_by_probability: {"widths": [2]},
    only_the_probable: {"rows": 2},
    duplicates_dropped: {"widths": [2]},
    argmax_called_drawn: {},
    redrawn_in_the_middle: {},
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda kind: kind.__name__)
def test_wrong_drafters_are_caught(wrong):
    """A law tag that is not the law of the draw changes the joint law."""
    tokens, models = (2, WIDE) if wrong is duplicates_dropped else (3, MODELS)
    found = law(wrong, tokens=tokens, models=models, **WRONG[wrong])
    assert total_variation(found, plain(tokens=tokens, models=models)) > 1e-3


def test_a_fresh_draw_after_a_mismatch_is_caught():
    """Sample and match is exact because the draw that did not match is emitted."""
    assert total_variation(law(fresh_draw_after_a_mismatch, "match", k=1), plain()) > 1e-3


@pytest.mark.parametrize("wrong", [law_before_truncation, bonus_of_the_raw_law], ids=lambda kind: kind.__name__)
def test_laws_before_the_processors_are_caught(wrong):
    """Every law is taken after the processors: the draft's in the ratio, the target's at the last node."""
    chain = build_chain({"top_k": 2}, eos_ids=[], max_length=16, max_new_tokens=3)
    arguments = {"k": 1} if wrong is bonus_of_the_raw_law else {}
    assert total_variation(law(wrong, processors=chain, **arguments), plain(processors=chain)) > 1e-3


def test_noise_reuse_is_exact_in_its_first_step():
    """Reused noise shows in the second step only: a test of one step misses it."""
    assert law(noise_of_the_first_step, widths=[2], tokens=1) == plain(tokens=1)


# --- wrong verification -----------------------------------------------------------------------------------------------


class _same_position:
    """Noise that is the same in every step."""

    def __init__(self, random):
        self._random = random

    def bernoulli(self, p, position, purpose, draw=0):
        """Keyed by the draw alone."""
        return self._random.bernoulli(p, 0, purpose, draw)

    def categorical(self, weights, position, purpose, draw=0):
        """As it should be."""
        return self._random.categorical(weights, position, purpose, draw)


def accept_noise_reused(monkeypatch):
    """Decides to accept with the same noise in every step."""
    monkeypatch.setattr(speculation, "reject", lambda tree, p, random: verify.reject(tree, p, _same_position(random)))


def without_renormalising(monkeypatch):
    """Leaves the law without its earlier siblings unnormalised."""

    def zeroed(q, token):
        left = q.copy()
        left[token] = Fraction(0)
        return left

    monkeypatch.setattr(verify, "without", zeroed)


def residual_is_the_target(monkeypatch):
    """Draws from p after a rejection."""
    monkeypatch.setattr(verify, "residual", lambda p, d, token: p)


def accepted_if_likelier(monkeypatch):
    """Accepts where p(x) >= q(x), without a draw."""
    monkeypatch.setattr(verify, "chance", lambda p, d, token: Fraction(p[token] >= d[token]))


@pytest.mark.parametrize(
    "wrong",
    [
        accept_noise_reused,
        without_renormalising,
        residual_is_the_target,
        accepted_if_likelier,
    ],
    ids=lambda function: function.__name__,
)
def test_wrong_verification_is_caught(wrong, monkeypatch):
    """Each mistake changes the joint law of a right drafter."""
    tokens, models = (2, WIDE) if wrong is without_renormalising else (3, MODELS)
    wanted = plain(tokens=tokens, models=models)
    assert law(rsd_c, widths=[2], tokens=tokens, models=models) == wanted
    wrong(monkeypatch)
    assert total_variation(law(rsd_c, widths=[2], tokens=tokens, models=models), wanted) > 1e-3
