"""Streams, threads, and what runs beside the engine or against it."""

import threading

import pytest
from face import PROMPTS, STRATEGIES, adhoc, same

from treille.errors import Cancelled, DecodingError
from treille.requests import Argmax, Call, Forward, Gather
from treille.strategies import beam, best_of_n, greedy, sample
from treille.strategy import Output, complete


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@pytest.mark.parametrize("stop", [(), (".", "33", "7z"), ("3v", "k3qk", " 9")], ids=str)
def test_a_stream_says_the_text(lm, spaced, strategy, stop):
    """The pieces together are `result.text`, which is what `generate` returns; no piece holds part of a stop string."""
    for model in (lm, spaced):
        for seed, prompt in enumerate(PROMPTS[:3]):
            options = {"max_new_tokens": 24, "seed": seed, "stop_strings": list(stop)}
            stream = model.stream(prompt, strategy, **options)
            said = ""
            for piece in stream:
                assert piece
                said += piece
                assert not any(s in said for s in stop)
            assert said == stream.result.text
            assert same(stream.result, model.generate(prompt, strategy, **options))


def test_a_stream_is_in_pieces(lm):
    """Greedy text arrives with every token, beam text when the beams agree; a possible stop string is held back."""
    free = list(lm.stream("x", max_new_tokens=12, eos_token_id=[]))
    assert len(free) >= 10
    text = "".join(free)
    held = list(lm.stream("x", max_new_tokens=12, eos_token_id=[], stop_strings=text[3:6] + "never"))
    assert "".join(held) == text
    assert any(len(piece) >= 4 for piece in held)


def test_a_stream_that_is_closed_early_frees_everything(lm):
    """`break`, `close`, leaving `with` and never iterating end the run; its result is then Cancelled."""
    for _ in lm.stream("hello", beam(width=3), max_new_tokens=100):
        break
    assert lm.engine.jobs == {}
    stream = lm.stream("hello", max_new_tokens=100)
    pieces = iter(stream)
    next(pieces)
    pieces.close()
    with pytest.raises(Cancelled):
        stream.result  # noqa: B018
    with lm.stream("hello", max_new_tokens=100, trace=True) as stream:
        assert len(lm.engine.jobs) == 1
    with pytest.raises(Cancelled):
        list(stream)
    with lm.stream("hello", max_new_tokens=5) as stream:
        said = "".join(stream)
    assert stream.result.text == said


def test_streams_run_side_by_side(lm):
    """Two streams and a `generate` in between share the engine; each says its own text."""
    one, two = (lm.stream(p, "sample", seed=4, max_new_tokens=15) for p in ("hello", "12"))
    said = ["", ""]
    first, second = iter(one), iter(two)
    for _ in range(3):
        said[0] += next(first, "")
        said[1] += next(second, "")
        lm.generate("x", max_new_tokens=2)
    said[0] += "".join(first)
    said[1] += "".join(second)
    for prompt, text in zip(("hello", "12"), said, strict=True):
        assert text == lm.generate(prompt, "sample", seed=4, max_new_tokens=15).text


def test_an_error_while_streaming_is_raised_where_it_is_read(lm):
    """What was said before stays said; then the run's error is raised, and nothing is left."""

    def bad(path, logits):
        if len(path) > 8:
            raise RuntimeError("own fault")
        return logits

    stream, said = lm.stream("hello", logits_processor=bad, max_new_tokens=20), ""
    pieces = iter(stream)
    said += next(pieces) + next(pieces)
    with pytest.raises(DecodingError, match="own fault"):
        list(pieces)
    assert said == lm.generate("hello", max_new_tokens=len(said)).text
    with pytest.raises(DecodingError):
        stream.result  # noqa: B018


# --- threads and functions of the user --------------------------------------------------------------------------------


def test_threads_share_one_model(lm):
    """Four threads that generate and stream at once get what each gets alone."""
    jobs = [(p, s) for p in PROMPTS[:2] for s in (sample(), beam(width=2))]
    expected = [lm.generate(p, s, seed=2, max_new_tokens=16) for p, s in jobs]
    found = [None] * len(jobs)

    def work(i):
        prompt, strategy = jobs[i]
        if i % 2:
            found[i] = lm.generate([prompt, "x"], strategy, seed=2, max_new_tokens=16)[0]
        else:
            found[i] = lm.stream(prompt, strategy, seed=2, max_new_tokens=16).result

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_a_call_may_use_the_model_that_waits_for_it(lm):
    """A run that waits for a `Call` blocks nobody: not the call itself, and not another thread."""

    def asks(run):
        text = yield Call(lambda: lm.generate("x", max_new_tokens=3).text)
        hypothesis = yield from complete(run, run.start)
        return Output((hypothesis,), {"text": text})

    out = lm.generate("hello", adhoc(asks), max_new_tokens=4)
    assert out.details["text"] == lm.generate("x", max_new_tokens=3).text
    assert out.tokens == lm.generate("hello", max_new_tokens=4).tokens


def test_a_scorer_may_use_the_model(lm):
    """Best-of-n by the model's own score of each text."""

    def own(texts):
        return [sum(lm.score(t.prompt, t.tokens)) for t in texts]

    out = lm.generate("hello", best_of_n(n=3, scorer=own), seed=1, max_new_tokens=6)
    assert out.candidates[0].score == pytest.approx(out.raw_logprob, abs=1e-4)


def test_a_processor_may_not_decode_with_the_model(lm):
    """It would wait for itself: the run fails alone, with the way out."""

    def recursive(path, logits):
        lm.score([1], [2])
        return logits

    with pytest.raises(DecodingError, match="another LanguageModel"):
        lm.generate("x", logits_processor=recursive, max_new_tokens=2)
    assert lm.generate("x", max_new_tokens=2).tokens


def test_strategies_that_misbehave_fail_alone(lm):
    """No output, no candidates, a forgotten call, a fault while being closed: each is its own run's error."""

    def nothing(run):
        yield Forward([run.tip], Argmax())

    def empty(run):
        yield Forward([run.tip], Argmax())
        return Output(())

    def forgot(run):
        yield Gather(beam(width=2))

    def careless(run):
        try:
            yield from complete(run, run.start)
        finally:
            raise RuntimeError("while closing")

    good = adhoc(lambda run: (yield from greedy.function(run)))
    for wrong, reason in ((nothing, "returns an Output"), (empty, "at least one candidate"), (forgot, "generators")):
        with pytest.raises(DecodingError, match=reason):
            lm.generate("x", adhoc(wrong), max_new_tokens=3)
    stream = lm.stream("hello", good, max_new_tokens=9)
    with lm.stream("x", adhoc(careless), max_new_tokens=50) as closed:
        next(iter(closed))
    assert stream.result.tokens == lm.generate("hello", max_new_tokens=9).tokens


def test_an_interrupt_leaves_the_others_right(lm):
    """Ctrl-C in one call: rows of the broken forward are computed again for a stream that was in it."""
    decoder = lm.checkpoint.decoder
    expected = lm.generate("hello there", max_new_tokens=12)
    with lm.stream("hello there", max_new_tokens=12) as stream:
        pieces = iter(stream)
        next(pieces)
        real = decoder.forward_hidden

        def interrupted(*_):
            raise KeyboardInterrupt

        decoder.forward_hidden = interrupted
        try:
            with pytest.raises(KeyboardInterrupt):
                lm.generate("x", max_new_tokens=5)
        finally:
            decoder.forward_hidden = real
        list(pieces)
        assert same(stream.result, expected)


# --- results ----------------------------------------------------------------------------------------------------------
