"""Strategies driven without an engine."""

import math

import pytest
import torch

from treille.errors import NoTokenLeft, ParameterError, StrategyError
from treille.requests import (
    Argmax,
    Call,
    Choice,
    Distribution,
    Forward,
    Gather,
    Hidden,
    LogProbs,
    Race,
    Sample,
    Score,
    Top,
    TopK,
)
from treille.sampling.chain import Chain
from treille.sampling.lexical import SuppressTokens
from treille.sampling.processors import Temperature
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.strategy import Hypothesis, complete
from treille.testing import TableModel, run_alone

MODEL = TableModel.markov([["1/2", "1/4", "1/4"], ["1/8", "3/8", "1/2"], ["0", "1/3", "2/3"]])


def ask(*wants, prompt=(0,), **arguments):
    """Answers to readouts of the prompt's last node."""

    def strategy(run):
        (answer,) = yield Forward((run.tip,), wants)
        return answer

    return run_alone(strategy, MODEL, prompt=prompt, **arguments).output


def test_every_readout():
    """Values by the table: lowest id on ties, best first, nothing of probability zero."""
    argmax, top, given, law = ask(Argmax(), TopK(2), LogProbs((2, 0)), Distribution())
    assert argmax == Choice(0, math.log(1 / 2), math.log(1 / 2))
    assert top == Top((0, 1), (math.log(1 / 2), math.log(1 / 4)), (math.log(1 / 2), math.log(1 / 4)))
    assert given == (math.log(1 / 4), math.log(1 / 2))
    assert torch.allclose(law.exp(), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64))
    (top,) = ask(TopK(5), prompt=(2,))
    assert top.tokens == (2, 1)


def test_readouts_after_processors_and_raw():
    """Probabilities are after the chain; raw values and a TopK that is not renormalised keep the model's own."""
    chain = Chain((SuppressTokens((0,)),))
    argmax, raw, plain, unnormalised, normalised = ask(
        Argmax(), LogProbs((1,), raw=True), LogProbs((1,)), TopK(1, renormalize=False), TopK(1), processors=chain
    )
    assert (argmax.token, argmax.logprob, argmax.raw_logprob) == (1, math.log(1 / 2), math.log(1 / 4))
    assert (raw, plain) == ((math.log(1 / 4),), (math.log(1 / 2),))
    assert unnormalised == Top((1,), (math.log(1 / 4),), (math.log(1 / 4),))
    assert normalised == Top((1,), (math.log(1 / 2),), (math.log(1 / 4),))


def test_tempered_rows_are_close_to_the_formula():
    """A processor that moves logits gives the softmax of what it returns."""
    (law,) = ask(Distribution(), processors=Chain((Temperature(0.5),)))
    assert law.exp().tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6], abs=1e-6)


def test_an_empty_row_is_an_empty_top_and_an_error_elsewhere():
    """A dead beam is one without continuations; a choice among no tokens is an error that the strategy may catch."""
    chain = Chain((SuppressTokens((0, 1, 2)),))
    assert ask(TopK(2), processors=chain) == (Top((), (), ()),)
    with pytest.raises(NoTokenLeft):
        ask(Argmax(), processors=chain)

    def careful(run):
        try:
            yield Forward((run.tip,), Argmax())
        except NoTokenLeft:
            return "caught"

    assert run_alone(careful, MODEL, processors=chain).output == "caught"


def test_hidden_states_are_refused():
    """A table has none, and the message says where to test instead."""
    with pytest.raises(ParameterError, match="small checkpoint"):
        ask(Hidden())


def test_two_models():
    """Draft and target are tables by name; an unknown name is refused."""
    draft = TableModel.markov([["0", "1", "0"]] * 3)

    def strategy(run, name="draft"):
        (a,) = yield Forward((run.tip,), Argmax())
        (b,) = yield Forward((run.tip,), Argmax(), model=name)
        return a.token, b.token

    done = run_alone(strategy, {"target": MODEL, "draft": draft})
    assert done.output == (0, 1)
    assert done.forwards == {"target": 1, "draft": 1}
    with pytest.raises(ParameterError, match="model='draft' has no table"):
        run_alone(strategy, MODEL)


def test_counts():
    """A prompt's rows are computed once, branches in lock-step share forwards, a node is computed once."""
    done = run_alone(sample(num_return_sequences=3), MODEL, prompt=(0, 1, 2), max_new_tokens=5)
    assert done.forwards == {"target": 5}
    assert done.rows == {"target": 3 + 3 * 4}
    assert len(done.texts) == 3


def test_gather_nests_and_keeps_order():
    """Outputs come in the order of the branches, also when one of them finishes at once."""

    def leaf(value, run, steps):
        node = run.tip
        for _ in range(steps):
            (choice,) = yield Forward((node,), Argmax())
            node = node.child(choice.token)
        return value

    def inner(run):
        return (yield Gather(leaf("a", run, 3), leaf("b", run, 0)))

    def outer(run):
        return (yield Gather(inner(run), leaf("c", run, 1)))

    done = run_alone(outer, MODEL)
    assert done.output == [["a", "b"], "c"]
    assert done.forwards == {"target": 3}


class Recorder:
    """Branches of given lengths that record how far they came and that they were closed."""

    def __init__(self):
        self.steps, self.closed = {}, set()

    def branch(self, run, name, length):
        """A branch whose text ends after `length` tokens."""
        node = run.tip
        self.steps[name] = 0
        try:
            for _ in range(length):
                yield Forward((node,), Argmax())
                self.steps[name] += 1
                node = node.child(0)
            return Hypothesis(node)
        finally:
            self.closed.add(name)


def test_race_returns_the_shortest_and_closes_the_others_in_time():
    """The shortest wins; a branch goes no further than its text could still win, and all are closed."""
    record = Recorder()

    def strategy(run):
        return (yield Race(*[record.branch(run, name, length) for name, length in zip("xyz", (9, 3, 3), strict=True)]))

    index, hypothesis = run_alone(strategy, MODEL).output
    assert (index, hypothesis.length) == (1, 1 + 3)
    assert record.steps == {"x": 3, "y": 3, "z": 3}
    assert record.closed == {"x", "y", "z"}


def test_everything_is_closed_when_a_branch_fails():
    """Branches, also those that never started, are closed, and the error arrives."""
    record = Recorder()

    def failing(run):
        yield Forward((run.tip,), Argmax())
        raise ZeroDivisionError

    def strategy(run):
        yield Gather(record.branch(run, "x", 5), failing(run), record.branch(run, "y", 5))

    with pytest.raises(ZeroDivisionError):
        run_alone(strategy, MODEL)
    assert record.closed == {"x", "y"}


def test_score_is_batched_and_counted():
    """Branches that wait for the same scorer share one call, in order."""
    calls = []

    def scorer(texts):
        calls.append([text.tokens for text in texts])
        return [float(sum(text.tokens)) for text in texts]

    def leaf(run, token):
        values = yield Score(scorer, [run.tip.child(token), run.tip.child(0)])
        return values

    def strategy(run):
        return (yield Gather(leaf(run, 1), leaf(run, 2)))

    done = run_alone(strategy, MODEL)
    assert done.output == [[1.0, 0.0], [2.0, 0.0]]
    assert calls == [[(1,), (0,), (2,), (0,)]]
    assert (done.scorer_calls, done.scored) == (1, 4)


def test_call_returns_values_and_raises_in_the_strategy():
    """A function's value is sent, its exception thrown where the strategy can catch it."""

    def strategy(run):
        assert run.limits.max_new_tokens == 4
        found = yield Call(max, 3, 5)
        try:
            yield Call(int, "x")
        except ValueError:
            return found

    assert run_alone(strategy, MODEL).output == 5


def test_what_is_not_a_request_is_refused():
    """The message shows what was yielded."""

    def strategy(run):
        yield run.limits

    with pytest.raises(StrategyError, match="not a request"):
        run_alone(strategy, MODEL)


def test_options_of_the_strategy_and_of_the_call():
    """A strategy's own limits go first; options that need an engine are refused."""
    assert len(run_alone(greedy(max_new_tokens=2), MODEL, max_new_tokens=9).text) == 2
    with pytest.raises(ParameterError, match="temperature"):
        run_alone(sample(temperature=0.5), MODEL)


def test_do_sample_is_the_strategys_by_default():
    """A plain generator function is greedy unless told otherwise."""

    def strategy(run):
        return (yield from complete(run, run.start))

    assert run_alone(strategy, MODEL).text == run_alone(greedy(), MODEL).text
    drawn = {run_alone(strategy, MODEL, do_sample=True, random=Random(seed)).text for seed in range(20)}
    assert len(drawn) > 5


def test_sample_readout_uses_its_own_stream():
    """The draw is keyed by the readout's randomness, so equal streams agree and others do not."""
    draws = [ask(Sample(Random(0, (i,))), Sample(Random(0, (i,)))) for i in range(30)]
    assert all(a == b for a, b in draws)
    assert len({a.token for a, _ in draws}) == 3
