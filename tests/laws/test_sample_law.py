"""Laws of ancestral sampling, by enumeration on tables."""

import math
from collections import Counter
from fractions import Fraction

import pytest

from treille.sampling.chain import Chain
from treille.sampling.processors import Temperature
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.strategy import Output, advance
from treille.testing import TableModel, assert_lossless, enumerate_outputs, run_alone
from treille.testing.readings import Readings

PROMPT = (0,)
ENDS = frozenset({3})
LIMITS = {"prompt": PROMPT, "max_new_tokens": 4, "eos_token_ids": (3,)}


def texts(model):
    """The law of texts, by the definition."""
    return model.texts(prompt=PROMPT, max_new_tokens=4, eos_token_ids=ENDS)


@pytest.mark.parametrize("seed", range(5))
def test_sample_has_exactly_the_models_law(seed):
    """P(text) = Π p(token | path), as fractions, for all 121 texts."""
    model = TableModel.hashed(4, seed)
    law = assert_lossless(sample(), texts(model), model, **LIMITS)
    assert len(law) == 121
    assert sum(len(text) < 4 or text[-1] == 3 for text in law) == 40


def test_several_samples_are_independent():
    """The joint law of two returned texts is the product of their laws."""
    model = TableModel.random(3, 4)
    limits = {"max_new_tokens": 2, "eos_token_ids": (2,)}
    one = enumerate_outputs(sample(), model, **limits)
    product = {(a, b): p * q for a, p in one.items() for b, q in one.items()}
    assert_lossless(sample(num_return_sequences=2), product, model, **limits)


def test_a_shared_stream_is_rejected():
    """Negative control: two texts drawn from one stream are always equal, and the comparison says so."""

    def twins(run):
        first, second = run.start, run.start
        while first.finish_reason is None:
            first = yield from advance(run, first)
            second = yield from advance(run, second)
        return Output((first, second))

    model = TableModel.random(3, 4)
    limits = {"max_new_tokens": 2, "do_sample": True}
    one = enumerate_outputs(sample(), model, max_new_tokens=2)
    product = {(a, b): p * q for a, p in one.items() for b, q in one.items()}
    with pytest.raises(AssertionError, match="total variation"):
        assert_lossless(twins, product, model, **limits)


def variation(law, other):
    """Total variation distance."""
    return float(sum(abs(law.get(t, 0) - other.get(t, 0)) for t in {**law, **other})) / 2


def test_temperature_tempers_each_step_not_the_whole_text():
    """At T = 0.7 the law is Π p^(1/T) / Z(path); the text's law to the power 1/T is something else (control)."""
    model, t = TableModel.hashed(4, 1), 0.7
    law = enumerate_outputs(sample(), model, processors=Chain((Temperature(t),)), **LIMITS)
    local = {}
    for text in texts(model):
        p = 1.0
        for at, token in enumerate(text):
            row = [float(q) ** (1 / t) for q in model.law(PROMPT + text[:at])]
            p *= row[token] / sum(row)
        local[text] = p
    total = sum(float(p) ** (1 / t) for p in texts(model).values())
    tempered_as_a_whole = {text: float(p) ** (1 / t) / total for text, p in texts(model).items()}
    assert sum(law.values()) == 1
    assert variation(law, local) < 1e-6
    assert variation(law, tempered_as_a_whole) > 0.02


def test_temperature_goes_to_greedy_and_to_uniform():
    """T = 0 is the greedy text with probability one; T → ∞ is uniform over the tokens at every step."""
    model = TableModel.hashed(4, 2)
    cold = enumerate_outputs(sample(), model, processors=Chain((Temperature(0.0),)), **LIMITS)
    assert cold == {run_alone(greedy(), model, **LIMITS).text: Fraction(1)}
    hot = enumerate_outputs(sample(), model, processors=Chain((Temperature(1e6),)), **LIMITS)
    assert variation(hot, {text: 0.25 ** len(text) for text in hot}) < 1e-5


def test_keyed_randomness_draws_from_the_law():
    """8,000 draws over 121 texts: χ² below its 1 - 1e-6 quantile (fixed seeds, so never a false alarm twice)."""
    model = TableModel.hashed(4, 1)
    law, runs = texts(model), 8_000
    readings = Readings({"target": model}, None)
    drawn = Counter(
        run_alone(sample(), model, random=Random(seed), readings=readings, **LIMITS).text for seed in range(runs)
    )
    statistic = sum((drawn[text] - runs * float(p)) ** 2 / (runs * float(p)) for text, p in law.items())
    degrees = len(law) - 1
    z = ((statistic / degrees) ** (1 / 3) - 1 + 2 / (9 * degrees)) / math.sqrt(2 / (9 * degrees))  # Wilson-Hilferty
    assert abs(z) < 4.75


def test_a_shorter_text_is_a_prefix_of_a_longer_one():
    """With the same seed a larger max_new_tokens only adds tokens: draws are keyed by position."""
    model = TableModel.random(5, 8)
    for seed in range(20):
        short = run_alone(sample(), model, max_new_tokens=3, random=Random(seed)).text
        long = run_alone(sample(), model, max_new_tokens=6, random=Random(seed)).text
        assert long[:3] == short
