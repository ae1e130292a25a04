"""A loose constraint, whose masks allow too much, gives what the same constraint with exact masks gives."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import random_llama
import treille
from treille.constraints import choices, regex
from treille.constraints.base import count_accepted
from treille.engine.loose import _check_all
from treille.errors import DecodingError, NoTokenLeft
from treille.requests import Distribution, Forward, LogProbs, Probabilities, TopK
from treille.strategies import beam, greedy, sample
from treille.strategy import Output, strategy

PROMPT = "the cat"


@dataclass(frozen=True)
class Loose:
    """The texts of `inner`, under masks that allow everything that `wide` does."""

    inner: object
    wide: object
    trap: str = ""

    def compile(self, vocabulary, tokenization="any"):
        """Both constraints side by side."""
        return LooseConstraint(self.inner.compile(vocabulary), self.wide.compile(vocabulary), self.trap.encode())

    def prefixed(self, prefix):
        """No test needs it."""
        raise NotImplementedError

    def check(self, text):
        """Nothing."""

    def parse(self, text):
        """The text."""
        return text


class LooseConstraint:
    """States are pairs; nothing may follow a text that begins with the trap."""

    loose, unenforced = True, ()

    def __init__(self, inner, wide, trap):
        self.inner, self.wide, self.trap = inner, wide, trap
        self.vocabulary = inner.vocabulary

    def vague(self, state):
        """Everywhere."""
        return self.vocabulary.width

    def sure(self, state):
        """Nothing is known."""

    def essence(self, text):
        """Every text is its own."""
        return text

    def start(self):
        """The empty text."""
        return self.inner.start(), self.wide.start()

    def advance(self, state, token):
        """Both advance."""
        if self.trap and self.text(state) == self.trap:
            return None
        after = self.inner.advance(state[0], token)
        return None if after is None else (after, self.wide.advance(state[1], token))

    def accepted(self, state, tokens):
        """By advancing."""
        return count_accepted(self, state, tokens)

    def masks(self, states, out):
        """Those of the wide constraint, ends as the inner one has them."""
        self.wide.masks([wide for _, wide in states], out)
        for row, state in enumerate(states):
            out[row] &= ~self.vocabulary.eos_mask
            if self.is_final(state) and self.advance(state, min(self.vocabulary.eos)) is not None:
                out[row] |= self.vocabulary.eos_mask

    def forced(self, state):
        """Nothing is known to be forced."""
        return ()

    expected = forced

    def is_final(self, state):
        """Whether the inner one is, outside the trap."""
        return self.inner.is_final(state[0]) and not (self.trap and self.text(state) == self.trap)

    def closing(self, state, enough=0):
        """None is looked for."""

    def text(self, state):
        """The text of the inner one."""
        return self.inner.text(state[0])

    def refusal(self, state):
        """Says that it is the trap."""
        return "it is a trap"


EXACT = choices(["then", "the end", "cab", "cat", "0123"])
LOOSE = Loose(EXACT, regex("[a-z0-9 ]*"))


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A random model."""
    directory = tmp_path_factory.mktemp("model")
    random_llama.save(directory, sharpness=1.0)
    return treille.load(directory, debug=True)


@strategy(exactness="exact", cost="one forward")
def readings(run, found):
    """Takes every readout at a few nodes of a tree."""
    nodes = [run.tip, run.tip.child(found["ids"]["c"]), run.tip.child(found["ids"]["th"])]
    wants = (TopK(3), TopK(4, renormalize=False), LogProbs((1, 2, 19)), Distribution(), Probabilities())
    found["results"] = yield Forward(nodes, wants)
    return Output((run.start,))


def test_readouts_equal_those_of_exact_masks(lm):
    """TopK, LogProbs, Distribution and Probabilities are those of p renormalised over what `advance` allows."""
    results = []
    for constraint in (EXACT, LOOSE):
        ids = {piece: lm.encode(piece)[0] for piece in ("c", "th")}
        found = {"ids": ids}
        lm.generate(PROMPT, readings(found=found), constraint=constraint, max_new_tokens=12)
        results.append(found["results"])
    for exact, loose in zip(*results, strict=True):
        for mine, theirs in zip(loose[:2], exact[:2], strict=True):
            assert mine.tokens == theirs.tokens
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
            assert mine.raw_logprobs == pytest.approx(theirs.raw_logprobs, abs=1e-5)
        assert torch.allclose(loose[3].exp(), exact[3].exp(), atol=1e-6)
        assert np.allclose(loose[4], exact[4], atol=1e-6)


@pytest.mark.parametrize(
    ("allowed", "left"),
    [({1, 2, 3}, [1, 2]), ({0, 3}, [0]), ({3}, [3]), (set(), [])],
    ids=["two", "one", "rest", "none"],
)
def test_what_is_negligible_is_not_looked_at_unless_nothing_else_is_left(allowed, left):
    """Of .5, .3, .2 - 1e-9 and 1e-9 the last is dropped, refused or not, as long as another is allowed."""
    row = torch.tensor([0.5, 0.3, 0.2, 1e-9]).log()
    asked: list[int] = []

    def admits(token):
        asked.append(token)
        return token in allowed

    _check_all(row, admits, 1e-6)
    assert [token for token in range(4) if row[token] > -torch.inf] == left
    assert (3 in asked) == (not allowed & {0, 1, 2})


@pytest.mark.parametrize("draft", [None, "prompt_lookup"])
def test_texts_equal_those_of_exact_masks(lm, draft):
    """Greedy texts, Gumbel samples and beams are the same, token for token, with their log-probabilities."""
    for kind, options in ((greedy(), {}), (sample(), {"noise": "gumbel", "seed": 3}), (beam(width=4), {})):
        if draft and kind.info.name == "beam":
            continue
        exact = lm.generate(PROMPT, kind, constraint=EXACT, max_new_tokens=12, draft=draft, **options)
        loose = lm.generate(PROMPT, kind, constraint=LOOSE, max_new_tokens=12, draft=draft, **options)
        assert [c.tokens for c in loose.candidates] == [c.tokens for c in exact.candidates]
        assert loose.raw_logprob == pytest.approx(exact.raw_logprob, abs=1e-3)
        assert loose.finish_reason in ("eos", "constraint")


def test_uniform_draws_have_the_masked_law(lm):
    """Drawing again after a refusal gives p renormalised over what is allowed: χ² of 150 first tokens."""
    found = {"ids": {piece: lm.encode(piece)[0] for piece in ("c", "th")}}
    lm.generate(PROMPT, readings(found=found), constraint=EXACT, max_new_tokens=12)
    law = found["results"][0][4]
    each = [sample(seed=i) for i in range(150)]
    out = lm.generate([PROMPT] * 150, each, constraint=LOOSE, max_new_tokens=1, close=False)
    counts = Counter(generation.tokens[0] for generation in out)
    expected = {int(token): 150 * law[token] for token in np.flatnonzero(law) if law[token] > 0.0}
    assert counts.keys() <= expected.keys()
    statistic = sum((counts[token] - mean) ** 2 / mean for token, mean in expected.items())
    assert statistic < 4 * len(expected) + 20  # far in the tail for so few degrees of freedom


def test_a_dead_end_is_left_by_taking_tokens_back(lm):
    """Where nothing may follow, tokens are taken back; the text is one outside the trap."""
    plain = lm.generate(PROMPT, greedy(), constraint=EXACT, max_new_tokens=12).text
    trapped = Loose(EXACT, regex("[a-z0-9 ]*"), trap=plain[:2])
    out = lm.generate(PROMPT, greedy(), constraint=trapped, max_new_tokens=12)
    assert out.text in {"then", "the end", "cab", "cat", "0123"}
    assert out.text != plain or out.stats.drafts.backtracked
    assert out.stats.drafts.backtracked >= 1
    assert json.dumps(out.to_dict())


def test_a_dead_end_without_a_way_back_says_where(lm):
    """If every way leads to the trap, the error names the text, the reason and the constraint."""
    hopeless = Loose(choices(["cat"]), regex("[a-z]*"), trap="ca")
    with pytest.raises(NoTokenLeft, match=r"no token may follow .* \(it is a trap\); loosen"):
        lm.generate(PROMPT, greedy(), constraint=hopeless, max_new_tokens=12)


def test_others_of_the_batch_go_on(lm):
    """A dead end fails its own prompt only."""
    hopeless = Loose(choices(["cat"]), regex("[a-z]*"), trap="ca")
    with pytest.raises(treille.errors.BatchError) as error:
        lm.generate([PROMPT] * 2, [greedy(constraint=hopeless), greedy(constraint=EXACT)], max_new_tokens=12)
    failed, other = error.value.results
    assert isinstance(failed, NoTokenLeft)
    assert other.tokens == lm.generate(PROMPT, greedy(), constraint=EXACT, max_new_tokens=12).tokens


@dataclass(frozen=True)
class Failing(Loose):
    """A recognizer that gives up: when a mask is asked for, or when a token is checked."""

    at: str = "masks"

    def compile(self, vocabulary, tokenization="any"):
        """The constraint of `Loose`, one method of which raises after the first token."""
        constraint = super().compile(vocabulary)
        works = getattr(constraint, self.at)

        def gives_up(states, *rest):
            first = states[0] if self.at == "masks" else states
            if constraint.text(first):
                raise DecodingError("the recognizer gave up")
            return works(states, *rest)

        setattr(constraint, self.at, gives_up)
        return constraint


@pytest.mark.parametrize("at", ["masks", "accepted"])
def test_a_recognizer_that_gives_up_fails_its_own_prompt_only(lm, at):
    """Its error reaches the run that has the constraint; the others of the same forward have their plain texts."""
    failing = Failing(EXACT, regex("[a-z0-9 ]*"), at=at)
    strategies = [greedy(constraint=failing, close=False), greedy(), greedy(constraint=EXACT)]
    with pytest.raises(treille.errors.BatchError) as error:
        lm.generate([PROMPT] * 3, strategies, max_new_tokens=12)
    failed, plain, exact = error.value.results
    assert isinstance(failed, DecodingError)
    assert "gave up" in str(failed)
    assert plain.tokens == lm.generate(PROMPT, greedy(), max_new_tokens=12).tokens
    assert exact.tokens == lm.generate(PROMPT, greedy(), constraint=EXACT, max_new_tokens=12).tokens
