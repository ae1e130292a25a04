"""SWIFT: which sub-layers are left out, how the search goes on, and that rows of a draft leave no trace."""

import itertools

import pytest
import torch
from small_models import assert_plain_text, engine, host, start, text

from treille.drafters._skip_search import SkipSearch, as_layers
from treille.drafters.base import Budget
from treille.drafters.swift import swift
from treille.errors import ParameterError
from treille.requests import Argmax, Forward, Layers
from treille.strategy import Configured, Hypothesis, Output, StrategyInfo


def search(layers=8, ratio=0.5, **given):
    """A search with small bounds."""
    bounds = {"target": 0.95, "bayes_every": 3, "patience": 50, "most": 60} | given
    return SkipSearch(layers, ratio, **bounds)


def strategy(function):
    """A plain generator function as a configured strategy."""
    return Configured(StrategyInfo(function.__name__, function, "", "", "", do_sample=False), {}, {})


def test_the_search_starts_with_every_second_layer():
    """Layers 1, 3, 5 …, attention and MLP alike; the first and the last layer stay."""
    assert as_layers(search(8).propose(), 8) == Layers.without([1, 3, 5])
    assert as_layers(search(7).propose(), 7) == Layers.without([1, 3, 5])
    assert as_layers(search(3).propose(), 3) == Layers.without([1])


def test_proposals_have_the_wanted_size():
    """floor(2 (L - 2) ratio) sub-layers, none of the first or the last layer, random or of the Gaussian process."""
    found = search(8, 0.45)
    found.report(found.propose(), 0.1)
    for _ in range(30):
        skipped = found.propose()
        assert len(set(skipped)) == 5
        layers = as_layers(skipped, 8)
        assert len(layers.skip_attention) + len(layers.skip_mlp) == 5
        assert not {0, 7} & (layers.skip_attention | layers.skip_mlp)
        found.report(skipped, 0.0)


def test_the_best_set_is_kept_and_the_search_ends():
    """A better score is adopted; above the target, or after too long without progress, nothing more is tried."""
    found = search(patience=4, target=0.9)
    first = found.propose()
    found.report(first, 0.3)
    better = found.propose()
    found.report(better, 0.5)
    assert (found.best, found.score) == (better, 0.5)
    for _ in range(3):
        found.report(found.propose(), 0.4)
        assert not found.done
    found.report(found.propose(), 0.4)
    assert found.done
    assert found.best == better
    good = search(target=0.9)
    good.report(good.propose(), 0.95)
    assert good.done
    short = search(most=2)
    short.report(short.propose(), 0.1)
    short.report(short.propose(), 0.1)
    assert short.done


def test_the_gaussian_process_finds_a_good_set_sooner():
    """On a score that is additive in the sub-layers its proposals are better than random ones on average."""
    weights = torch.linspace(0, 1, 12, dtype=torch.float64)

    def score(skipped):
        return float(1 - weights[list(skipped)].mean())

    found = search(8, 0.5, bayes_every=2, target=2.0, patience=1000, most=1000)
    of = {True: [], False: []}
    for turn in range(1, 81):
        skipped = found.propose()
        found.report(skipped, score(skipped))
        if turn > 20:
            of[turn % 2 == 0].append(score(skipped))
    assert sum(of[True]) / len(of[True]) > sum(of[False]) / len(of[False]) + 0.1


def test_the_text_is_the_plain_text():
    """Greedy and with a seed, token for token, while sets are searched, on a small model in debug mode."""
    assert_plain_text(engine(), "swift:k=4,window=6,threshold=0.2,bayes_every=3")


def test_with_an_empty_set_every_draft_is_accepted():
    """Nothing left out: the drafter is the target."""
    the_engine = engine()
    drafter = swift(host(the_engine), ratio=0.0, k=3, width=1, threshold=0, proposals=0)
    drafter.search.best = ()
    run = start(the_engine, drafter)
    text(the_engine, run)
    assert run.drafts.accepted == run.drafts.drafted > 0


def test_drafting_leaves_the_targets_rows_alone():
    """Drafts and scores write no slot that the text holds, and are gone when the draft is."""
    the_engine = engine()
    drafter = swift(host(the_engine), window=4, threshold=0)
    store = the_engine.runners["target"].store

    def rows_of(node):
        slots = [range(s.start, s.start + stop) for s, stop in node.kv["target"].segment.pieces(node.kv["target"].stop)]
        return store.memory.data[:, :, :, list(itertools.chain(*slots))].clone()

    def drafts(run):
        node = run.tip
        for _ in range(8):
            (choice,) = yield Forward((node,), Argmax())
            last, node = node, node.child(choice.token)
        before, held = rows_of(last), store.accounts().protected
        tree = yield from drafter.propose(run, node, Budget(30, 10))
        assert tree.size > 3
        assert torch.equal(rows_of(last), before)
        assert drafter.search.score >= 0
        assert store.accounts().protected > held
        node.kv.clear()
        del tree
        assert store.accounts().protected == held
        return Output((Hypothesis(node),))

    the_engine.run([the_engine.submit(strategy(drafts), start(the_engine))])


def test_siblings_are_leaves_and_grow_with_doubt():
    """A chain of best tokens; beside each at most `width` - 1 others, more where the confidence is low."""
    the_engine = engine()
    drafter = swift(host(the_engine), k=3, width=10, threshold=0, proposals=0)

    def drafts(run):
        (choice,) = yield Forward((run.tip,), Argmax())
        tree = yield from drafter.propose(run, run.tip.child(choice.token), Budget(64, 10))
        level = [tree.children(0)]
        while tree.children(level[-1][0]):
            assert len(level[-1]) in (3, 5, 8, 10)
            assert not any(tree.children(leaf) for leaf in level[-1][1:])
            level.append(tree.children(level[-1][0]))
        assert len(level) <= 3
        return Output((Hypothesis(run.tip.child(choice.token)),))

    the_engine.run([the_engine.submit(strategy(drafts), start(the_engine))])


def test_the_set_is_kept_for_later_runs():
    """The memory of the host holds the search, for the same parameters; with rejection every run has its own."""
    the_engine = engine()
    there = host(the_engine)

    def searched(verification="match", **given):
        drafter = swift(there, threshold=0, **given)
        text(the_engine, start(the_engine, drafter, seed=1, verification=verification))
        return drafter.search

    assert searched() is searched()
    assert searched(ratio=0.2) is not searched()
    assert searched("rejection") is not searched()
    assert searched("rejection") is not searched("rejection")


@pytest.mark.parametrize("given", [{"ratio": 1.0}, {"ratio": -0.1}, {"k": 0}, {"window": 0}, {"bayes_every": 1}])
def test_wrong_values_are_refused(given):
    """Each names the value."""
    with pytest.raises(ParameterError, match=next(iter(given))):
        swift(host(engine()), **given)


def test_a_model_of_two_layers_is_refused():
    """The first and the last layer stay, so three are needed."""
    with pytest.raises(ParameterError, match="3 are needed"):
        swift(host(engine(2)))
