"""Early exit: the exit drafts with the target's own rows, and is not trusted."""

from dataclasses import replace

import pytest
from driving import TARGET, as_draft
from small_models import PROMPT, assert_plain_text, engine, host, start, text

from treille.draft_tree import Law, Trial
from treille.drafters import parse
from treille.drafters.base import Budget
from treille.drafters.early_exit import early_exit
from treille.errors import ParameterError
from treille.requests import Argmax, Forward, Layers, Probabilities
from treille.strategies import sample
from treille.strategy import Configured, Hypothesis, Output, StrategyInfo
from treille.testing import enumerate_outputs


def test_the_text_is_the_plain_text():
    """Greedy and with a seed, token for token, on a small model in debug mode."""
    assert_plain_text(engine(), "early_exit:layer=2,k=3")


def test_the_draft_is_what_the_exit_would_write():
    """A chain of the greedy tokens of the first layers, on the target's own context."""
    the_engine = engine()
    drafter = early_exit(host(the_engine), layer=3, k=4)
    seen = []

    def drafts(run):
        (choice,) = yield Forward((run.tip,), Argmax())
        node = run.tip.child(choice.token)
        tree = yield from drafter.propose(run, node, Budget(8, 8))
        at = node
        for drafted in tree.nodes[1:]:
            (pick,) = yield Forward((at,), Argmax(), layers=Layers(3), since=len(PROMPT))
            assert drafted.token == pick.token
            at = drafted
            seen.append(pick.token)
        return Output((Hypothesis(at),))

    info = StrategyInfo("drafts", drafts, "", "", "", do_sample=False)
    the_engine.run([the_engine.submit(Configured(info, {}, {}), start(the_engine))])
    assert 1 <= len(seen) <= 4


def test_a_draft_costs_only_its_own_rows():
    """The rows of a step: its root and its drafted tokens, at the exit and once more when they are verified."""
    the_engine = engine()
    run = start(the_engine, "early_exit:layer=2,k=3", seed=1, verification="rejection")
    job = the_engine.submit(sample(), run)
    the_engine.run([job])
    drafts = run.drafts
    assert job.stats.rows <= len(PROMPT) + 2 * (drafts.drafted + drafts.steps - 1)  # the first step drafts nothing


def test_threshold_ends_the_chain_after_an_unsure_token():
    """With a threshold of 1 every chain has one token; with 0 it goes on."""
    the_engine = engine()
    for threshold, longest in ((1, 1), (0, 3)):
        run = start(the_engine, f"early_exit:layer=2,k=3,threshold={threshold}")
        text(the_engine, run)
        assert len(run.drafts.tried) <= longest
        assert run.drafts.drafted > 0


@pytest.mark.parametrize("layer", [0, 6, 7, True, 2.5])
def test_layers_that_are_none_are_refused(layer):
    """The exit is after 1 … L - 1 layers."""
    with pytest.raises(ParameterError, match="from 1 to 5"):
        early_exit(host(engine()), layer=layer)


def test_a_target_without_access_to_layers_is_refused():
    """Before the first token, with the way out."""
    there = host(engine())
    with pytest.raises(ParameterError, match="another drafter"):
        parse("early_exit").open(replace(there, target=replace(there.target, layer_access=False)))


def test_a_wrong_law_would_show():
    """A mutant that reports the target's law for the exit's draws has another output law."""

    class Liar(early_exit):
        def propose(self, run, node, budget):
            tree = yield from super().propose(run, node, budget)
            laws = yield Forward(tree.nodes, Probabilities())
            for index, trials in enumerate(tree.trials):
                tree.trials[index] = [Trial(t.token, t.index, t.law and Law(laws[index])) for t in trials]
            return tree

    given = {"max_new_tokens": 4, "verification": "rejection"}
    plain = enumerate_outputs(sample(), TARGET, max_new_tokens=4)
    assert enumerate_outputs(sample(), TARGET, draft=as_draft(early_exit, layer=1), **given) == plain
    assert enumerate_outputs(sample(), TARGET, draft=as_draft(Liar, layer=1), **given) != plain
