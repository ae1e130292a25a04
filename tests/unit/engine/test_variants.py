"""Layers and views in the engine, against plain forwards of a decoder with the same layers and the same context."""

import numpy as np
import pytest
import torch
from tiny import decoder, engine, full_logits, submit

from treille.attention.plan import AttentionPlan, Block, Piece
from treille.cache.slots import KVMemory
from treille.engine.variant import held, variant_of, whole
from treille.errors import DecodingError, ParameterError, StrategyError
from treille.requests import Argmax, Attention, Distribution, Exits, Forward, Hidden, Layers, View
from treille.strategies import greedy
from treille.strategy import Configured, Hypothesis, Output, StrategyInfo
from treille.tree import Node

MODEL = decoder(layers=4)
PROMPT = [5, 9, 17, 33, 2, 8, 61, 70, 3, 3, 4, 8, 12, 44, 50, 51, 52, 9]
TAIL = [7, 8, 9]
FORK = 77
VARIANTS = [
    (Layers(2), None, 17),
    (Layers(2), None, 10),
    (Layers(3), None, 0),
    (Layers.without([1, 2]), None, 17),
    (Layers.without([1, 2]), None, 12),
    (Layers(None, frozenset([1]), frozenset([2])), None, 0),
    (None, View(((0, 3), (5, 8)), 12), 17),
    (None, View(((2, 3),), 17), 17),
    (None, View((), 0), 17),
    (Layers.without([1]), View(((0, 2),), 13), 15),
]


def strategy(function):
    """A plain generator function as a configured strategy."""
    return Configured(StrategyInfo(function.__name__, function, "", "", "", do_sample=False), {}, {})


def laws(tokens, since, layers, view):
    """Log-probabilities of the tokens from `since` on: what stands before is computed whole, the rest as a variant."""
    shape = MODEL.shape
    memory = KVMemory(shape.layers, shape.kv_heads, shape.head_dim, len(tokens), shape.dtype, shape.device)
    memory.poison(0, len(tokens))
    index, ids, count = torch.arange(len(tokens)), torch.tensor(tokens), len(tokens) - since
    if since:
        plan = AttentionPlan(index[:since], index[:since], (), (Block(0, since, None),))
        MODEL.forward(ids[:since], memory, plan)
    spans = [(0, since)] if view is None else [*view.spans, (view.start, since)]
    pieces = tuple(Piece(begin, end, begin, range(count)) for begin, end in spans if begin < end)
    plan = AttentionPlan(index[since:], index[since:], pieces, (Block(0, count, None),))
    hidden, _ = MODEL.forward_hidden(ids[since:], memory, plan, (), layers or Layers())
    return MODEL.logits(hidden).log_softmax(-1)


def reading(layers, view, since, *, prompt_first, checked):
    """A strategy that reads a forked draft as a variant, then its tip, then all of it as the whole model."""

    def reads(run):
        how = {"layers": layers, "view": view, "since": since}
        if prompt_first:
            yield Forward((run.tip,), Argmax())
        first = run.tip.child(TAIL[0])
        second, fork = first.child(TAIL[1]), first.child(FORK)
        drafted = yield Forward((run.tip, first, second, fork), Distribution(raw=True), **how)
        third = second.child(TAIL[2])
        (last,) = yield Forward((third,), Distribution(raw=True), **how)
        line, side = laws(PROMPT + TAIL, since, layers, view), laws([*PROMPT, TAIL[0], FORK], since, layers, view)
        at = len(PROMPT) - 1 - since
        wanted = [line[at], line[at + 1], line[at + 2], side[-1], line[at + 3]]
        torch.testing.assert_close([*drafted, last], wanted, atol=1e-4, rtol=1e-4)
        exact = yield Forward((run.tip, first, third), Distribution(raw=True))
        full = full_logits(MODEL, PROMPT + TAIL).log_softmax(-1)
        torch.testing.assert_close(exact, [full[len(PROMPT) + i] for i in (-1, 0, 2)], atol=1e-4, rtol=1e-4)
        assert all(set(node.kv) == {"target"} for node in (run.tip, first, second, third))
        checked.append(how)
        return Output((Hypothesis(third),))

    return reads


@pytest.mark.parametrize(
    ("seed", "budget", "slots", "cached"), [(None, 512, 4096, True), (1, 7, 150, True), (2, 512, 150, False)]
)
def test_a_variant_is_the_decoder_with_these_layers_and_this_context(seed, budget, slots, cached):
    """Alone or together, in chunks, after preemptions, from cached prefixes: the same law; whole rows stay exact.

    All variants run at once in debug mode: plans are checked, freed slots are NaN, accounts add up after every step.
    """
    the_engine = engine(MODEL, seed=seed, budget=budget, slots=slots, prefix_cache=cached)
    checked = []
    jobs = [
        submit(the_engine, strategy(reading(*variant, prompt_first=first, checked=checked)), PROMPT)
        for variant in VARIANTS
        for first in (False, True)
    ]
    the_engine.run(jobs)
    assert len(checked) == 2 * len(VARIANTS)
    if slots < 1000:
        assert sum(job.stats.preemptions for job in jobs)
    for job in jobs:
        job.output = None
    accounts = the_engine.runners["target"].store.accounts()
    assert accounts.protected == 0


def test_requests_with_the_same_layers_share_a_forward():
    """Also with different contexts and different views; and a view shares the whole model's forward."""
    passes = []

    class Passes:
        def __getattr__(self, name):
            return lambda *given: passes.append(given) if name == "before_forward" else None

    the_engine = engine(MODEL, instruments=(Passes(),))

    def once(layers, view, token):
        def reads(run):
            yield Forward((run.tip,), Argmax())
            node = run.tip.child(token)
            yield Forward(
                (node,), Argmax(), layers=layers, view=view, since=0 if layers is view is None else run.tip.length
            )
            return Output((Hypothesis(node),))

        return strategy(reads)

    view, cut = View(((0, 2),), 5), Layers.without([1])
    cases = [(None, None), (None, view), (cut, None), (cut, View((), 3)), (Layers(2), None)]
    jobs = [submit(the_engine, once(*case, 10 + i), PROMPT[: 10 + i]) for i, case in enumerate(cases)]
    the_engine.run(jobs)
    assert [rows for _, rows in passes] == [10 + 11 + 12 + 13 + 14, 2, 2, 1]
    assert [job.stats.forwards for job in jobs] == [2, 1, 1, 1, 1]


def test_rows_of_a_deeper_exit_serve_a_shallower_one():
    """Reading a path at exits 1, 3, 2, 3, 1 computes anew only what goes deeper, and reads each exit's law."""
    rows = []

    def reads(run):
        node = run.tip
        for token, stop in zip([7, 8, 9, 10, 11], [1, 3, 2, 3, 1], strict=True):
            node = node.child(token)
            before = the_engine.jobs[1].stats.rows
            (law,) = yield Forward((node,), Distribution(raw=True), layers=Layers(stop), since=len(PROMPT))
            rows.append(the_engine.jobs[1].stats.rows - before)
            expected = laws(node.path.tolist(), len(PROMPT), Layers(stop), None)[-1]
            torch.testing.assert_close(law, expected, atol=1e-4, rtol=1e-4)
        return Output((Hypothesis(node),))

    the_engine = engine(MODEL)
    the_engine.run([submit(the_engine, strategy(reads), PROMPT)])
    # The prompt whole and one row; that row again and one more, one; this one again and one more; one.
    assert rows == [len(PROMPT) + 1, 2, 1, 2, 1]


def test_exits_are_what_the_model_says_if_it_stops():
    """`Exits` of a whole forward = the most probable token of each early exit, with its log-probability."""
    found = []

    def reads(run):
        ((choices,),) = yield Forward((run.tip,), (Exits((1, 2, 4)),))
        for stop, choice in zip((1, 2, 4), choices, strict=True):
            law = laws(PROMPT, 0, Layers(stop), None)[-1]
            assert choice.token == int(law.argmax())
            assert choice.logprob == pytest.approx(float(law.max()), abs=1e-4)
            found.append(choice)
        return Output((Hypothesis(run.tip.child(1)),))

    the_engine = engine(MODEL)
    the_engine.run([submit(the_engine, strategy(reads), PROMPT)])
    assert len(found) == 3


def test_the_whole_model_is_no_variant():
    """All layers and no view: the plain forward, whatever `since` says about where its layers hold from."""
    node = Node.root([1, 2, 3])
    assert variant_of(Forward((node,), Argmax()), 4) is whole("target")
    assert variant_of(Forward((node,), Argmax(), layers=Layers(4)), 4) is whole("target")
    assert variant_of(Forward((node,), Argmax(), layers=Layers()), 4) is whole("target")
    a, b = (variant_of(Forward((node,), Argmax(), layers=Layers.without(s)), 4) for s in ([2, 1], [1, 2]))
    assert a == b
    assert held(node, a) == (None, 0)


REFUSED = [
    ({"layers": Layers(5)}, "can stop after 1 to 4"),
    ({"layers": Layers(0)}, "can stop after 1 to 4"),
    ({"layers": Layers.without([4])}, "are 0 to 3"),
    ({"layers": Layers(2), "since": -1}, "since=-1"),
    ({"layers": Layers(2), "since": 18}, "since=18"),
    ({"view": View(((3, 2),), 5), "since": 6}, "ascend"),
    ({"view": View(((2, 6),), 5), "since": 6}, "ascend"),
    ({"view": View(((-1, 2),), 5), "since": 6}, "ascend"),
    ({"view": View((), 9), "since": 6}, "at most"),
    ({"since": 3}, "give one of them"),
    ({"want": Hidden((3,)), "layers": Layers(2)}, "stops after 2"),
    ({"want": Exits((3,)), "layers": Layers(2)}, "stops after 2"),
    ({"want": Attention((0,)), "view": View((), 3), "since": 3}, "whole model"),
    ({"want": Attention((0,)), "layers": Layers(2)}, "whole model"),
    ({"want": Exits((0,))}, "1 to 4"),
    ({"want": Exits(())}, "at least one"),
]


@pytest.mark.parametrize(("given", "reason"), REFUSED)
def test_what_cannot_be_run_is_refused(given, reason):
    """The strategy is told why, before anything joins a batch; others go on."""
    the_engine = engine(MODEL)

    def reads(run):
        yield Forward((run.tip,), **({"want": Argmax()} | given))

    bad = submit(the_engine, strategy(reads), PROMPT)
    good = submit(the_engine, greedy(), PROMPT, max_new_tokens=3)
    while not (bad.done and good.done):
        the_engine.step()
    with pytest.raises((ParameterError, StrategyError), match=reason):
        bad.result()
    assert good.result().candidates


def test_a_model_without_access_to_its_layers_is_refused():
    """What is run through `transformers` can have a view, but no fewer layers."""
    from dataclasses import replace

    from treille.engine.refusals import refusal

    the_engine = engine(decoder(layers=4))
    runner = the_engine.runners["target"]
    runner.decoder.shape = replace(runner.decoder.shape, layer_access=False)
    node = Node.root(np.array(PROMPT))
    for refused in (Forward((node,), Argmax(), layers=Layers(2)), Forward((node,), Exits((2,)))):
        assert "access to single layers" in str(refusal(refused, the_engine.runners))
    assert refusal(Forward((node,), Argmax(), view=View((), 3), since=3), the_engine.runners) is None


def test_scratch_gives_way_before_a_run_fails():
    """A run whose own scratch fills the memory loses it when it asks for exact rows; the text is never at stake."""

    def reads(run):
        yield Forward((run.tip,), Argmax())
        drafted = [run.tip.child(token) for token in range(20)]
        how = {"layers": Layers.without([1]), "since": len(PROMPT)}
        yield Forward(drafted, Argmax(), **how)
        other = [run.tip.child(token) for token in range(20, 40)]
        laws_of = yield Forward(other, Distribution(raw=True))
        assert not any(rows.alive for node in drafted for rows in node.kv.values())
        for node, law in zip(other, laws_of, strict=True):
            torch.testing.assert_close(
                law, full_logits(MODEL, node.path.tolist())[-1].log_softmax(-1), atol=1e-4, rtol=1e-4
            )
        return Output((Hypothesis(other[0]),))

    the_engine = engine(MODEL, slots=48)
    the_engine.run([submit(the_engine, strategy(reads), PROMPT)])


def test_a_draft_that_does_not_fit_fails_where_it_may():
    """With `may_fail` the nodes for which there is no memory have the error as their answer; otherwise it is raised."""
    answers = []

    def reads(run, may_fail):
        yield Forward((run.tip,), Argmax())
        drafted = [run.tip.child(token) for token in range(40)]
        how = {"layers": Layers(2), "since": len(PROMPT)}
        answers.extend((yield Forward(drafted, Argmax(), may_fail=may_fail, **how)))
        return Output((Hypothesis(drafted[0]),))

    the_engine = engine(MODEL, slots=48)
    the_engine.run([submit(the_engine, strategy(lambda run: reads(run, may_fail=True)), PROMPT)])
    kinds = [isinstance(answer, DecodingError) for answer in answers]
    assert any(kinds)
    assert not all(kinds)
    with pytest.raises(DecodingError, match="full"):
        the_engine.run([submit(the_engine, strategy(lambda run: reads(run, may_fail=False)), PROMPT)])
