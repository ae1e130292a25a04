"""CopySpec: what is copied, when a draft model steps in, and that the draft model keeps up with copies."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from driving import as_draft, host, run, text

import treille
from treille.drafters._ngrams import NgramIndex
from treille.drafters.base import Budget
from treille.drafters.copyspec import agreement, copyspec
from treille.errors import ParameterError
from treille.language_model import BUNDLED
from treille.strategies import sample
from treille.testing import TableModel, enumerate_outputs, run_alone

AMPLE = Budget(64, 64)


def proposal(drafter: copyspec, tokens: list[int], budget: Budget = AMPLE) -> list[int]:
    """The drafted chain of a drafter without a model."""
    asked = run(tokens)
    with pytest.raises(StopIteration) as stop:
        next(drafter.propose(asked, asked.tip, budget))
    tree = stop.value.value
    return tree.path(tree.size)


def test_the_first_place_is_copied_unless_told_otherwise():
    """Gamma tokens, no fewer; the text's own end is no match."""
    tokens = [1, 2, 3, 1, 2, 4, 1, 2]
    for pick, wanted in (("earliest", [3, 1, 2]), ("latest", [4, 1, 2])):
        drafter = copyspec(host(9), gamma=2, k=3, pick=pick)
        drafter.observe(text(*tokens))
        assert proposal(drafter, tokens) == wanted
    drafter = copyspec(host(9), gamma=3)
    drafter.observe(text(*tokens))
    assert proposal(drafter, tokens) == []


def test_gamma_does_not_shrink_with_what_is_left():
    """With two tokens left a gram of three is still looked up, and the copy is as long as the budget."""
    drafter = copyspec(host(9), gamma=3)
    drafter.observe(text(1, 2, 3, 4, 5, 1, 2, 3))
    assert proposal(drafter, [1, 2, 3, 4, 5, 1, 2, 3], Budget(64, 2)) == [4, 5]


class Colliding(tuple):
    """An n-gram whose hash is that of all others."""

    __slots__ = ()

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return tuple.__eq__(self, other)


def test_collisions_change_nothing():
    """With a constant hash the index still compares tokens, and finds the same."""

    class Worst(NgramIndex):
        def key(self, start, stop):
            return Colliding(super().key(start, stop))

    tokens = np.random.default_rng(3).integers(0, 3, 200)
    honest, worst = NgramIndex([3]), Worst([3])
    for stop in range(1, 201):
        for index in (honest, worst):
            index.extend(tokens[:stop], stop - 1)
        assert honest.continuation(5, latest=False) == worst.continuation(5, latest=False)


def test_the_draft_model_keeps_up_with_copies():
    """With the target as its own draft model every token that it drafts is accepted, also right after copies."""
    seen = []

    class Recording(copyspec):
        def observe(self, seen_now):
            if seen_now.tree is not None and seen_now.tree.size:
                copied = "draft" not in seen_now.tree.nodes[0].kv
                seen.append((copied, len(seen_now.accepted) == seen_now.tree.size))
            super().observe(seen_now)

    lm = treille.load(dtype="float32", draft_model=BUNDLED)  # two tokens are nearly as likely here
    prompt = "def first(a, b):\n    return a + b\n\ndef second(a, b):\n    return a"
    limits = {"max_new_tokens": 48, "min_new_tokens": 48}
    plain = lm.generate(prompt, **limits)
    drafted = lm.generate(prompt, governor=False, draft=as_draft(Recording, gamma=2, model="draft"), **limits)
    assert drafted.tokens == plain.tokens
    after_copies = [right for (before, _), (copied, right) in pairwise(seen) if before and not copied]
    assert after_copies
    assert all(right for copied, right in seen if not copied)


def test_a_copy_is_tried_before_the_model():
    """Where the last tokens stood before, the draft model is not asked."""
    table = {"target": TableModel.random(3, 1), "draft": TableModel.random(3, 2)}
    limits = {"prompt": (0, 0, 0), "max_new_tokens": 2}
    assert not run_alone(sample(), table, draft="copyspec:gamma=1,model=draft", **limits).forwards["draft"]
    assert run_alone(sample(), table, draft="copyspec:gamma=3,model=draft", **limits).forwards["draft"]


def test_the_reference_acceptance_wastes_copies():
    """Only tokens with p = 1 accepted, as the reference does: the same law, from more steps than by rule V2."""
    model = TableModel.markov([["1/10", "9/10", 0], [0, "1/10", "9/10"], ["9/10", 0, "1/10"]])
    limits = {"prompt": (0, 1, 2, 0), "max_new_tokens": 3}
    law = enumerate_outputs(
        sample(), model, draft="copyspec:gamma=1", key=lambda done: (done.text, done.run.drafts.steps), **limits
    )
    expected_steps = float(sum(steps * p for (_, steps), p in law.items()))
    assert expected_steps < 2.2  # and 3 where no probability is 1
    assert {text: model.probability(text, (0, 1, 2, 0)) for (text, _) in law} == {
        text: sum(p for (other, _), p in law.items() if other == text) for (text, _) in law
    }


def test_agreement_rises_with_gamma():
    """On a text in which `1` is followed by two different tokens, one token decides less than two."""
    words = [[5, 1, 2], [6, 1, 3]]
    order = np.random.default_rng(0).integers(0, 2, 200)
    tokens = [token for which in order for token in words[which]]
    assert agreement([tokens], 1) < agreement([tokens], 2)
    assert agreement([[1, 2, 1, 2, 1, 2]], 1) == 1
    assert agreement([[1, 2, 3]], 1) == 0


@pytest.mark.parametrize("wrong", [{"gamma": 0}, {"k": 0}, {"pick": "second"}, {"delta": 3}])
def test_refusals(wrong):
    """Also a length for a draft model that is not there."""
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        copyspec(host(), **wrong)
