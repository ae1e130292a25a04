"""The engine against plain loops: what is computed, what is independent of what, what is freed, what fails alone."""

import gc
import random
import threading
import time

import pytest
import tiny
import torch

from treille.attention import merged
from treille.engine.instruments import Instrument
from treille.errors import CapacityError, DecodingError, NoTokenLeft, ParameterError, StrategyError
from treille.requests import Argmax, Attention, Call, Distribution, Forward, Gather, Hidden, LogProbs, Race, Score, TopK
from treille.sampling.presets import build_chain
from treille.strategies import beam, best_of_n, diverse_beam, first_finish, greedy, sample, self_consistency
from treille.strategy import Configured, Hypothesis, Output, StrategyInfo, complete

MODEL = tiny.decoder()


def adhoc(function, *, do_sample=False):
    """A generator function as an unregistered strategy."""
    return Configured(StrategyInfo(function.__name__, function, "", "", "", do_sample), {}, {})


def prompts(count, seed=0, longest=40):
    """Random prompts of different lengths, some sharing a prefix."""
    draw = random.Random(seed)
    shared = [draw.randrange(90) for _ in range(longest)]
    return [
        shared[: draw.randrange(longest)] + [draw.randrange(90) for _ in range(draw.randrange(1, 8))]
        for _ in range(count)
    ]


STRATEGIES = [
    greedy(), sample(), beam(width=3), diverse_beam(width=4, groups=2), best_of_n(n=3), first_finish(n=3),
    beam(width=4, early_stopping="never"), self_consistency(n=3, extract=lambda text: text or "none"),
]  # fmt: skip


class Letters:
    """A codec: every token is one character."""

    def decode(self, ids):
        """The characters of `ids`."""
        return "".join(chr(33 + i) for i in ids)


def decode_all(engine, jobs):
    """Outputs of all jobs as plain tuples."""
    return [
        [(tuple(c.node.path.tolist()), round(c.logprob, 3), c.finish_reason) for c in out.candidates]
        for out in engine.run(jobs)
    ]


def alone(strategy, prompt, **more):
    """Output of one strategy in an engine of its own."""
    engine = tiny.engine(MODEL, **more)
    return decode_all(engine, [tiny.submit(engine, strategy, prompt, seed=7, codec=Letters())])[0]


@pytest.mark.parametrize("budget", [1, 5, 512])
def test_greedy_is_the_plain_loop(budget):
    """Greedy text equals recomputing the whole text for every token, whatever the chunk size."""
    engine = tiny.engine(MODEL, budget=budget)
    texts = prompts(6)
    outputs = engine.run([tiny.submit(engine, greedy(), p) for p in texts])
    for prompt, output in zip(texts, outputs, strict=True):
        assert tiny.texts(output, len(prompt)) == [tiny.plain_greedy(MODEL, prompt)]


@pytest.mark.parametrize(("seed", "budget", "cache"), [(1, 512, False), (2, 7, True), (3, 33, True), (4, 2, False)])
def test_results_do_not_depend_on_batch_mates_order_or_chunks(seed, budget, cache):
    """Each strategy gives the same text alone as among others: any order, any budget, with and without prefix cache."""
    texts = prompts(len(STRATEGIES), seed)
    expected = [alone(s, p) for s, p in zip(STRATEGIES, texts, strict=True)]
    engine = tiny.engine(MODEL, budget=budget, seed=seed, prefix_cache=cache)
    for _ in range(2):  # the second time with a warm prefix cache
        jobs = [tiny.submit(engine, s, p, seed=7, codec=Letters()) for s, p in zip(STRATEGIES, texts, strict=True)]
        assert decode_all(engine, jobs) == expected


def test_best_of_16_computes_and_stores_its_prompt_once():
    """A 1,000-token prompt of 16 samples is computed in 1,000 rows, and its slots are held once."""
    prompt = [i * 7 % 90 for i in range(1000)]
    engine = tiny.engine(tiny.decoder(context=1024, attend=merged.attend))
    job = tiny.submit(engine, best_of_n(n=16), prompt, max_new_tokens=8)
    protected = []
    while not job.done:
        engine.step()
        protected.append(engine.runners["target"].store.accounts().protected)
    assert job.stats.prompt_rows == len(prompt)
    assert job.stats.rows <= len(prompt) + 16 * 8
    assert max(protected) <= len(prompt) + 16 * 8
    assert job.stats.generated >= 16


def test_a_prompt_seen_before_is_not_computed_again():
    """The prefix cache saves all whole blocks of a repeated prompt, and a follow-up reuses the answer's rows too."""
    engine = tiny.engine(MODEL, prefix_cache=True)
    prompt = list(range(70))
    first = tiny.submit(engine, greedy(), prompt, max_new_tokens=30)
    text = tiny.texts(engine.run([first])[0], 0)[0]
    again = tiny.submit(engine, greedy(), prompt, max_new_tokens=30)
    assert tiny.texts(engine.run([again])[0], 0)[0] == text
    assert again.stats.cached_rows == 64
    assert again.stats.prompt_rows == 6
    follow = tiny.submit(engine, greedy(), [*text, 3, 4], max_new_tokens=4)
    output = engine.run([follow])[0]
    assert follow.stats.cached_rows == (len(text) - 1) // 16 * 16
    assert tiny.texts(output, len(text) + 2)[0] == tiny.plain_greedy(MODEL, [*text, 3, 4], 4)


def test_everything_is_free_at_the_end():
    """When the cache is cleared, every slot is free, also after errors and cancellation, without a collector."""
    gc.disable()  # what is unreachable must be free at once
    engine = tiny.engine(MODEL, prefix_cache=True, budget=16)
    store, prefix = engine.runners["target"].store, engine.runners["target"].prefix
    jobs = [tiny.submit(engine, s, p, codec=Letters()) for s, p in zip(STRATEGIES, prompts(8), strict=True)]
    for _ in range(4):
        engine.step()
    engine.cancel(jobs[2])
    assert jobs[2].done
    del jobs
    engine.run(list(engine.jobs.values()))
    gc.enable()
    assert store.accounts().protected == 0
    prefix.clear()
    assert store.accounts().free == store.accounts().total


def test_preemption_recomputes_and_changes_nothing():
    """With memory for a fraction of the batch, jobs lose their rows and are recomputed, with the same texts."""
    texts = [list(range(i, i + 60)) for i in range(6)]
    expected = [alone(sample(), p) for p in texts]
    engine = tiny.engine(MODEL, slots=256, budget=32)
    jobs = [tiny.submit(engine, sample(), p, seed=7, codec=Letters()) for p in texts]
    assert decode_all(engine, jobs) == expected
    assert sum(job.stats.preemptions for job in jobs) > 0


def test_what_can_never_fit_is_refused_at_the_door():
    """A prompt longer than the KV memory is refused before anything runs; a tree too wide fails alone."""
    engine = tiny.engine(MODEL, slots=64)
    with pytest.raises(CapacityError, match="kv_slots"):
        tiny.submit(engine, greedy(), list(range(60)))
    wide = tiny.submit(engine, best_of_n(n=30), list(range(20)), max_new_tokens=30)
    other = tiny.submit(engine, greedy(), [1, 2, 3], max_new_tokens=3)
    while not (wide.done and other.done):
        engine.step()
    assert isinstance(wide.error, DecodingError)
    assert tiny.texts(other.output, 3) == [tiny.plain_greedy(MODEL, [1, 2, 3], 3)]


def test_one_failure_never_hurts_the_batch():
    """A strategy, a scorer, a call and a processor that raise end their own run only."""

    def broken(run):
        yield Forward([run.tip], Argmax())
        raise RuntimeError("own fault")

    def bad_scorer(_texts):
        raise RuntimeError("scorer fault")

    def bad_call(run):
        yield Call(int, "x")
        return Output((run.start,))

    def not_a_request(run):
        yield "forward please"
        return Output((run.start,))

    def raising(path, _logits):
        raise RuntimeError(f"processor fault at {len(path)}")

    engine = tiny.engine(MODEL)
    good = tiny.submit(engine, greedy(), [1, 2, 3])
    jobs = [
        tiny.submit(engine, adhoc(broken), [5]),
        tiny.submit(engine, best_of_n(n=2, scorer=bad_scorer), [5, 6], codec=Letters()),
        tiny.submit(engine, adhoc(bad_call), [5]),
        tiny.submit(engine, adhoc(not_a_request), [5]),
        tiny.submit(engine, greedy(), [5], build_chain({"logits_processor": [raising]})),
        tiny.submit(engine, greedy(), [5], build_chain({"suppress_tokens": list(range(tiny.VOCABULARY))})),
    ]
    while not (good.done and all(job.done for job in jobs)):
        engine.step()
    kinds = [RuntimeError, RuntimeError, ValueError, StrategyError, DecodingError, NoTokenLeft]
    assert [type(job.error) for job in jobs] == kinds
    assert tiny.texts(good.output, 3) == [tiny.plain_greedy(MODEL, [1, 2, 3])]


def test_a_strategy_can_catch_what_its_branch_raised():
    """A branch's exception reaches the strategy that gathered it, after its siblings were closed."""
    closed = []

    def sibling(run):
        try:
            return (yield from complete(run, run.start))
        finally:
            closed.append(True)

    def fails(run):
        yield Forward([run.tip], Argmax())
        raise ArithmeticError

    def parent(run):
        try:
            yield Gather(sibling(run.branch(0)), fails(run.branch(1)))
        except ArithmeticError:
            return Output(((yield from complete(run, run.start)),))

    engine = tiny.engine(MODEL)
    output = engine.run([tiny.submit(engine, adhoc(parent), [1, 2, 3])])[0]
    assert closed == [True]
    assert tiny.texts(output, 3) == [tiny.plain_greedy(MODEL, [1, 2, 3])]


def test_readouts_describe_the_distribution_after_the_nodes_own_path():
    """Each readout of a tree of nodes equals the plain forward over that node's path."""
    asked = {}

    def reader(run):
        a = run.tip.child(8)
        b, c = a.child(9), a.child(10).child(11)
        wants = (Argmax(), TopK(5), LogProbs((1, 2)), Distribution(), Hidden((0, 1, 2, -1)), LogProbs((3,), raw=True))
        asked["nodes"] = [run.tip, a, b, c]
        asked["results"] = yield Forward(asked["nodes"], wants)
        asked["again"] = yield Forward([a, c], Distribution())
        return Output((Hypothesis(c),))

    engine = tiny.engine(MODEL)
    engine.run([tiny.submit(engine, adhoc(reader), [4, 5, 6])])
    for node, (best, top, two, logp, hidden, raw) in zip(asked["nodes"], asked["results"], strict=True):
        expected = torch.log_softmax(tiny.full_logits(MODEL, node.path.tolist())[-1], -1)
        torch.testing.assert_close(logp, expected, atol=1e-4, rtol=0)
        order = expected.argsort(descending=True)[:5].tolist()
        assert best.token == order[0]
        assert list(top.tokens) == order
        assert two == pytest.approx(expected[[1, 2]].tolist(), abs=1e-4)
        assert raw == pytest.approx(expected[[3]].tolist(), abs=1e-4)
        assert hidden.shape == (4, 32)
        torch.testing.assert_close(torch.log_softmax(MODEL.logits(hidden[-1:]), -1)[0], expected, atol=1e-4, rtol=0)
    for node, logp in zip([asked["nodes"][1], asked["nodes"][3]], asked["again"], strict=True):
        expected = torch.log_softmax(tiny.full_logits(MODEL, node.path.tolist())[-1], -1)
        torch.testing.assert_close(logp, expected, atol=1e-4, rtol=0)


def test_attention_is_that_of_the_nodes_own_path():
    """Attention weights of nodes of a tree are those of a fresh run over that path alone, and sum to one."""
    asked = {}

    def reader(run):
        a = run.tip.child(8)
        asked["nodes"] = [a, a.child(9), a.child(10).child(11)]
        asked["weights"] = yield Forward(asked["nodes"], Attention((0, 1)))
        return Output((Hypothesis(a),))

    def alone(run):
        (asked["alone"],) = yield Forward([run.tip], Attention((0, 1)))
        return Output((run.start,))

    engine = tiny.engine(MODEL, budget=3)
    engine.run([tiny.submit(engine, adhoc(reader), [4, 5, 6])])
    for node, weights in zip(asked["nodes"], asked["weights"], strict=True):
        assert weights.shape == (2, 4, node.length)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
        engine.run([tiny.submit(engine, adhoc(alone), node.path.tolist())])
        torch.testing.assert_close(weights, asked["alone"], atol=1e-5, rtol=0)


def test_processors_see_each_nodes_own_path():
    """Repetition penalties along two branches of one tree are computed from the branch's own tokens."""
    chain = build_chain({"repetition_penalty": 3.0})
    got = {}

    def reader(run):
        got["nodes"] = [run.tip.child(8), run.tip.child(9).child(9)]
        got["logp"] = yield Forward(got["nodes"], Distribution())
        return Output((Hypothesis(got["nodes"][0]),))

    engine = tiny.engine(MODEL)
    engine.run([tiny.submit(engine, adhoc(reader), [4, 5], chain)])
    for node, logp in zip(got["nodes"], got["logp"], strict=True):
        logits = tiny.full_logits(MODEL, node.path.tolist())[-1]
        seen = sorted(set(node.path.tolist()))
        logits[seen] = torch.where(logits[seen] < 0, logits[seen] * 3, logits[seen] / 3)
        torch.testing.assert_close(logp, torch.log_softmax(logits, -1), atol=1e-4, rtol=0)


def test_a_race_is_won_by_the_shortest_text_and_closes_the_others():
    """The winner of a race has the fewest tokens, the first on ties; the losers are closed early."""
    closed = []

    def walker(run, steps, name):
        node = run.tip
        try:
            for _ in range(steps):
                (choice,) = yield Forward([node], Argmax())
                node = node.child(choice.token)
            return Hypothesis(node)
        finally:
            closed.append((name, node.length))

    def race(run):
        index, best = yield Race(walker(run, 30, "a"), walker(run, 4, "b"), walker(run, 4, "c"), walker(run, 9, "d"))
        return Output((best,), {"index": index})

    for seed in range(5):
        closed.clear()
        engine = tiny.engine(MODEL, seed=seed, budget=2)
        output = engine.run([tiny.submit(engine, adhoc(race), [1, 2])])[0]
        assert output.details["index"] == 1
        assert dict(closed)["b"] == 6
        assert max(dict(closed).values()) <= 7


def test_calls_run_beside_the_loop():
    """A blocking call of one run does not stop another; the engine waits when only calls are left."""
    gate = threading.Event()

    def caller(run):
        value = yield Call(gate.wait, 10)
        return Output((run.start,), {"value": value})

    engine = tiny.engine(MODEL)
    waiting = tiny.submit(engine, adhoc(caller), [1])
    other = tiny.submit(engine, greedy(), [1, 2, 3])
    while not other.done:
        engine.step()
    assert not waiting.done
    threading.Timer(0.05, gate.set).start()
    began = time.perf_counter()
    assert engine.run([waiting])[0].details == {"value": True}
    assert time.perf_counter() - began < 5


def test_scores_are_batched_over_runs():
    """Texts of different runs that wait for the same scorer are valued in one call."""
    calls = []

    def scorer(texts):
        calls.append(len(texts))
        return [len(text.text) for text in texts]

    def scoring(run):
        node = run.tip.child(5).child(6)
        values = yield Score(scorer, [node, node.parent])
        return Output((Hypothesis(node),), {"values": values})

    engine = tiny.engine(MODEL)
    jobs = [tiny.submit(engine, adhoc(scoring), [i], codec=Letters()) for i in range(3)]
    assert [output.details["values"] for output in engine.run(jobs)] == [[2.0, 1.0]] * 3
    assert calls == [6]


def test_instruments_hear_every_forward():
    """Rows reported to instruments add up to the rows in the statistics."""

    class Counter(Instrument):
        rows = 0
        finished = 0

        def after_forward(self, report):
            self.rows += report.rows

        def job_finished(self, job):
            self.finished += 1

    counter = Counter()
    engine = tiny.engine(MODEL, instruments=[counter])
    jobs = [tiny.submit(engine, beam(width=3), p) for p in prompts(3)]
    engine.run(jobs)
    assert counter.finished == 3
    assert counter.rows == sum(job.stats.rows for job in jobs)


def test_misuse_is_refused_with_its_reason():
    """Unknown models, empty requests and positions beyond the context are told to the strategy."""

    def wrong(run):
        with pytest.raises(ParameterError, match="no such model"):
            yield Forward([run.tip], Argmax(), model="other")
        with pytest.raises(StrategyError, match="at least one node"):
            yield Forward([], Argmax())
        with pytest.raises(StrategyError, match="at least one strategy"):
            yield Gather()
        with pytest.raises(CapacityError, match="context"):
            yield Forward([run.tip.extend([1] * 600)], Argmax())
        with pytest.raises(ParameterError, match="token id 97"):
            yield Forward([run.tip.child(97).child(1)], Argmax())
        with pytest.raises(ParameterError, match="boundaries 0 to 2"):
            yield Forward([run.tip], (Argmax(), Hidden((3,))))
        with pytest.raises(ParameterError, match="layers are 0 to 1"):
            yield Forward([run.tip], Attention((2,)))
        with pytest.raises(ParameterError, match="token ids are 0 to 96"):
            yield Forward([run.tip], LogProbs((97,)))
        with pytest.raises(ParameterError, match="k must be"):
            yield Forward([run.tip], TopK(0))
        with pytest.raises(StrategyError, match="wants readouts"):
            yield Forward([run.tip], Argmax)
        return Output((run.start,))

    engine = tiny.engine(MODEL)
    assert engine.run([tiny.submit(engine, adhoc(wrong), [1])])[0].candidates


def test_stop_strings_end_a_text_in_every_strategy():
    """A stop string ends greedy and beam texts at its first occurrence."""
    free = tiny.plain_greedy(MODEL, [1, 2, 3])
    stop = Letters().decode(free[4:6])
    for strategy in (greedy(), beam(width=1)):
        engine = tiny.engine(MODEL)
        job = tiny.submit(engine, strategy, [1, 2, 3], codec=Letters(), stop=(stop,))
        best = engine.run([job])[0].candidates[0]
        assert best.finish_reason == "stop_string"
        assert best.node.path[3:].tolist() == free[:6]


def test_prompts_that_begin_alike_are_computed_once_also_when_they_arrive_together():
    """Of prompts submitted in one batch with a shared beginning, the beginning is computed by one and taken by all."""
    shared = [i % 90 for i in range(160)]
    texts = [[*shared, i, i + 1] for i in range(6)]
    engine = tiny.engine(MODEL, prefix_cache=True, budget=64)
    jobs = [tiny.submit(engine, greedy(), p, max_new_tokens=4) for p in texts]
    outputs = engine.run(jobs)
    assert sum(job.stats.prompt_rows for job in jobs) == 160 + 2 * 6
    for prompt, output in zip(texts, outputs, strict=True):
        assert tiny.texts(output, len(prompt)) == [tiny.plain_greedy(MODEL, prompt, 4)]
