"""Laws of beam search on tables."""

import math
from itertools import product

import pytest
from beam_bookkeeping import transformers_beam

from treille.sampling.chain import Chain
from treille.sampling.processors import UserProcessor
from treille.strategies import beam, greedy
from treille.testing import TableModel, run_alone

PROMPT = (0,)
LIMITS = {"prompt": PROMPT, "max_new_tokens": 4, "eos_token_ids": (3,)}


def logs(model):
    """Log-probabilities by generated tokens."""
    return lambda text: [math.log(p) for p in model.law(PROMPT + text)]


def score(model, text, length_penalty):
    """S / length^α of a text."""
    return math.log(model.probability(text, PROMPT)) / len(text) ** length_penalty


def argmax(model, length_penalty):
    """The best of all texts, by enumeration."""
    texts = model.texts(prompt=PROMPT, max_new_tokens=4, eos_token_ids=frozenset({3}))
    return max(texts, key=lambda text: score(model, text, length_penalty))


@pytest.mark.parametrize(
    ("early_stopping", "length_penalty"), [*product([True, False], [0.0, 0.5, 1.0, 2.0]), ("never", 0.0)]
)
def test_width_one_is_greedy(early_stopping, length_penalty):
    """`beam(width=1)` returns the greedy text, for every stopping rule that does not look past the first end."""
    for seed in range(60):
        model = TableModel.hashed(4, seed)
        strategy = beam(width=1, length_penalty=length_penalty, early_stopping=early_stopping)
        assert run_alone(strategy, model, **LIMITS).text == run_alone(greedy(), model, **LIMITS).text


def test_width_one_looks_past_the_end_with_never():
    """With "never" and a positive exponent, width 1 is not greedy on a known share of tables."""
    strategy = beam(width=1, early_stopping="never")
    models = [TableModel.hashed(4, seed) for seed in range(300)]
    differ = sum(run_alone(strategy, m, **LIMITS).text != run_alone(greedy(), m, **LIMITS).text for m in models)
    assert 20 < differ < 80


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_exhaustive_width_finds_the_best_text(length_penalty):
    """With "never" and room for every candidate, the best S / length^α of all 121 texts is found, on 300 tables."""
    strategy = beam(width=81, length_penalty=length_penalty, early_stopping="never")
    for seed in range(300):
        model = TableModel.hashed(4, seed)
        done = run_alone(strategy, model, **LIMITS)
        wanted = argmax(model, length_penalty)
        assert done.text == wanted
        assert done.output.candidates[0].score == pytest.approx(score(model, wanted, length_penalty))


def test_a_narrow_width_misses_the_best_text_somewhere():
    """Negative control: the same check fails for width 2."""
    strategy = beam(width=2, early_stopping="never")
    models = [TableModel.hashed(4, seed) for seed in range(100)]
    assert any(run_alone(strategy, model, **LIMITS).text != argmax(model, 1.0) for model in models)


def test_false_and_never_differ_somewhere():
    """The heuristic stop gives other texts than the sound one on a few percent of 900 runs."""
    differ = 0
    for seed, width in product(range(300), (1, 2, 3)):
        model = TableModel.hashed(4, seed)
        early = [run_alone(beam(width=width, early_stopping=e), model, **LIMITS).text for e in (False, "never")]
        differ += early[0] != early[1]
    assert 20 < differ < 150


STOPS = (False, True, "never")


def compare(seed, vocabulary, ends, width, length_penalty, early_stopping, returned=None):
    """Every returned text and score equals the simulator's."""
    model = TableModel.hashed(vocabulary, seed)
    settings = {"width": width, "length_penalty": length_penalty, "early_stopping": early_stopping}
    wanted = transformers_beam(logs(model), vocabulary=vocabulary, ends=ends, max_new_tokens=5, **settings)[
        : returned or width
    ]
    limits = {"prompt": PROMPT, "max_new_tokens": 5, "eos_token_ids": ends}
    done = run_alone(beam(**settings), model, num_return_sequences=returned or width, **limits)
    assert list(done.texts) == [text for text, _ in wanted]
    assert [h.score for h in done.output.candidates] == pytest.approx([value for _, value in wanted])


@pytest.mark.parametrize("seed", range(60))
def test_equal_to_the_straight_line_bookkeeping(seed):
    """Texts and scores equal the slot-by-slot simulator's: 720 runs over widths, exponents, stops and ends."""
    for i, (early_stopping, width) in enumerate(product(STOPS, (1, 2, 3, 4))):
        length_penalty = (-1.0, 0.0, 0.7, 1.0, 2.0)[(seed + i) % 5]
        vocabulary, ends = ((4, (3,)), (5, (3, 4)), (4, ()))[(seed + i // 4) % 3]
        compare(1000 * seed + i, vocabulary, ends, width, length_penalty, early_stopping)


def agrees(seed):
    """Whether width 2 passes the comparison."""
    try:
        compare(seed, 4, (3,), 2, 1.0, False)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("mutation", ["rank", "length", "keep"])
def test_mutated_bookkeeping_is_noticed(monkeypatch, mutation):
    """Negative control: finishing at any rank, dividing by length - 1, or keeping one candidate less fails the test."""
    from treille.strategies import _beams

    if mutation == "length":
        monkeypatch.setattr(_beams, "normalised", lambda s, length, penalty: s / max(1, length - 1) ** penalty)
    step = _beams.Beams.step

    def wrong(self, continuations):
        if mutation == "keep":
            continuations = continuations[: self.width]
        width, self.width = self.width, self.width + (mutation == "rank")
        step(self, continuations)
        self.width = width
        self.running, self.pool = self.running[:width], self.pool[:width]
        self.done = not self.running or self._settled()

    monkeypatch.setattr(_beams.Beams, "step", wrong)
    assert any(not agrees(seed) for seed in range(200))


def test_processors_act_on_log_probabilities_and_are_not_normalised_again():
    """A bias of 1 on a token adds 1 to every score through it, as in `transformers`; raw_logprob is the model's own."""

    def bias(path, logits):
        logits[1] += 1.0
        return logits

    for seed in range(20):
        model = TableModel.hashed(4, seed)
        wanted = transformers_beam(
            lambda text, m=model: [v + (t == 1) for t, v in enumerate(logs(m)(text))],
            vocabulary=4, width=3, ends=(3,), max_new_tokens=4, length_penalty=1.0, early_stopping=False,
        )  # fmt: skip
        done = run_alone(
            beam(width=3), model, num_return_sequences=3, processors=Chain((UserProcessor(bias),)), **LIMITS
        )
        assert list(done.texts) == [text for text, _ in wanted]
        assert [h.score for h in done.output.candidates] == pytest.approx([value for _, value in wanted], abs=1e-5)
        for text, hypothesis in zip(done.texts, done.output.candidates, strict=True):
            assert hypothesis.raw_logprob == pytest.approx(score(model, text, 0.0))


def test_what_is_settled_is_in_every_output():
    """The settled lengths grow, and every returned text agrees up to the last of them."""
    streamed = 0
    for seed in range(100):
        done = run_alone(beam(width=3), TableModel.random(4, seed), max_new_tokens=8, num_return_sequences=3)
        assert done.settled == sorted(set(done.settled))
        if done.settled:
            shared = done.settled[-1] - len(PROMPT)
            streamed += shared > 0
            assert len({text[:shared] for text in done.texts}) == 1
    assert streamed > 10
