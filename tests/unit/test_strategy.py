"""Runs, the registry and configured strategies."""

import pytest

import treille.strategies  # noqa: F401 - registers the strategies
from treille.errors import ParameterError
from treille.requests import Argmax, Choice, Sample
from treille.sampling.random import Random
from treille.strategies import beam, sample
from treille.strategy import Limits, Output, Registry, Run, complete, configured, registry, strategy
from treille.testing import Letters, TableModel, run_alone
from treille.tree import Node


def make_run(prompt=(0, 1), settled=None, codec=None, **limits):
    """A run over a prompt of its own."""
    return Run(
        Node.root(prompt),
        Random(0),
        Limits(**{"max_new_tokens": 4, **limits}),
        settled=settled,
        codec=codec or Letters(),
    )


def grow(run, *tokens):
    """A hypothesis with these tokens."""
    hypothesis = run.start
    for token in tokens:
        hypothesis = run.extend(hypothesis, Choice(token, -1.0, -2.0))
    return hypothesis


def test_a_text_ends_by_end_token_stop_string_or_length():
    """Each reason is recognised at the token that brings it, the end token before the others."""
    run = make_run(eos_token_ids=frozenset({3}), stop_strings=("bc",))
    assert grow(run, 1).finish_reason is None
    assert grow(run, 3).finish_reason == "eos"
    assert grow(run, 1, 2).finish_reason == "stop_string"
    assert grow(run, 0, 0, 0, 0).finish_reason == "length"
    assert grow(run, 0, 0, 0, 3).finish_reason == "eos"


def test_stop_strings_are_found_in_the_answer_only():
    """A match that needs prompt text does not stop (the prompt is "ab"); the text is cut before the first match."""
    run = make_run(stop_strings=("bc", "abc"))
    assert grow(run, 2).finish_reason is None
    assert run.text(grow(run, 2, 0, 1, 2).node) == "c"


def test_extend_adds_both_log_probabilities():
    """Log-probabilities under p and under the model are summed apart."""
    hypothesis = grow(make_run(), 1, 2)
    assert (hypothesis.logprob, hypothesis.raw_logprob, hypothesis.length) == (-2.0, -4.0, 4)


def test_settle_reports_what_all_nodes_share_and_only_growth():
    """The settled node is the common ancestor; nothing is reported twice, nor by a branch."""
    seen = []
    run = make_run(settled=seen.append)
    tip = run.tip.child(5)
    left, right = tip.child(6).child(7), tip.child(8)
    run.settle(left, right)
    run.settle(right, left)
    assert [node.path.tolist() for node in seen] == [[0, 1, 5]]
    run.settle(left)
    assert seen[-1] is left
    run.branch(0).settle(left.child(1))
    assert len(seen) == 2


def test_settle_stops_at_a_node_that_is_shared_as_a_whole():
    """A node of several tokens is settled only when all of them are shared."""
    seen = []
    run = make_run(settled=seen.append)
    run.settle(run.tip.extend([5, 6, 7]), run.tip.extend([5, 6, 8]))
    assert not seen


def test_branches_have_randomness_of_their_own():
    """Branches draw independently of each other and of their run, and choose as the run does."""
    run = Run(Node.root([0]), Random(3), Limits(4), do_sample=True)
    streams = {r.random.stream for r in (run, run.branch(0), run.branch(1), run.branch(0).branch(1))}
    assert len(streams) == 4
    assert isinstance(run.branch(0).choose, Sample)
    assert isinstance(make_run().choose, Argmax)


def test_texts_without_a_tokenizer_are_refused():
    """The message says what is missing."""
    run = Run(Node.root([0]), Random(0), Limits(4))
    with pytest.raises(ParameterError, match="no tokenizer"):
        run.text(run.tip)


def test_arguments_and_generation_parameters_are_told_apart():
    """What the function does not name is an option; options of the strategy itself go first."""
    given = beam(width=2, max_new_tokens=7)
    assert dict(given.arguments) == {"width": 2}
    assert dict(given.with_options({"max_new_tokens": 9, "temperature": 0.5}).options) == {
        "max_new_tokens": 7,
        "temperature": 0.5,
    }
    assert repr(given) == "beam(width=2, max_new_tokens=7)"


@pytest.mark.parametrize(("name", "value"), [("width", 2.5), ("width", True), ("length_penalty", "1"), ("width", "4")])
def test_a_wrong_type_is_refused_by_name(name, value):
    """Plain annotations are checked when the strategy is configured, also postponed ones."""
    with pytest.raises(ParameterError, match=f"beam\\({name}="):
        beam(**{name: value})


def test_whole_numbers_are_floats_where_floats_are_wanted():
    """`length_penalty=1` is 1.0."""
    assert beam(length_penalty=1).arguments["length_penalty"] == 1.0


def test_the_registry_knows_every_strategy_of_this_package():
    """Name, first line, paper or definition, exactness and cost are there."""
    names = {info.name for info in registry}
    assert names >= {"beam", "best_of_n", "diverse_beam", "first_finish", "greedy", "sample", "self_consistency"}
    for info in registry:
        assert info.summary
        assert info.exactness
        assert info.cost
    assert registry["sample"].do_sample
    assert list(registry["beam"].parameters) == ["width", "length_penalty", "early_stopping"]
    with pytest.raises(ParameterError, match=r"choose one of .*beam"):
        registry["beem"]


def test_a_registered_function_is_a_factory():
    """A new strategy is one decorated function; a missing argument is refused by name; names can be replaced."""

    def shout(run, count: int):
        hypothesis = yield from complete(run, run.start)
        return Output((hypothesis,) * count)

    before = list(registry)
    factory = strategy(exactness="none", cost="none")(shout)
    try:
        assert len(run_alone(factory(count=2), TableModel.random(3, 0)).texts) == 2
        with pytest.raises(ParameterError, match="needs a value for count"):
            configured(factory.info, {})
    finally:
        registry.__init__()
        for info in before:
            registry.add(info)
    assert "shout" not in {info.name for info in registry}


def test_registries_are_independent():
    """A fresh registry is empty, and a second entry of the same name replaces the first."""
    own = Registry()
    assert list(own) == []
    own.add(sample.info)
    own.add(sample.info)
    assert [info.name for info in own] == ["sample"]
