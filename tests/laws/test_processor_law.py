"""`sample` under every truncation rule has exactly the law of the rule's definition, written here with fractions."""

import math
from fractions import Fraction

import pytest

from treille.sampling.chain import Chain
from treille.sampling.lexical import BadWords, MinNewTokens
from treille.sampling.truncation import (
    EpsilonCutoff,
    EtaCutoff,
    MinP,
    TopH,
    TopK,
    TopKTopP,
    TopNSigma,
    TopP,
    TypicalP,
)
from treille.strategies import sample
from treille.testing import TableModel, assert_lossless, enumerate_outputs

PROMPT, ENDS = (0,), frozenset({3})
LIMITS = {"prompt": PROMPT, "max_new_tokens": 4, "eos_token_ids": (3,)}


def descending(law):
    """Token ids by falling probability, the lower id first on ties."""
    return sorted(range(len(law)), key=lambda token: (-law[token], token))


def entropy(law):
    """Entropy in nats."""
    return -sum(float(p) * math.log(p) for p in law if p)


def top_k(law, k):
    """The k best and their equals."""
    return {t for t in range(len(law)) if law[t] >= law[descending(law)[k - 1]]}


def top_p(law, threshold):
    """Tokens whose mass strictly before them is below the threshold."""
    order = descending(law)
    return {t for i, t in enumerate(order) if sum((law[o] for o in order[:i]), Fraction(0)) < threshold}


def min_p(law, share):
    """Tokens of at least this share of the best."""
    return {t for t, p in enumerate(law) if p >= share * max(law)}


def typical(law, mass):
    """The smallest set of this mass closest to the entropy."""
    order = sorted(range(len(law)), key=lambda t: abs(-math.log(law[t]) - entropy(law)))
    return {t for i, t in enumerate(order) if sum((law[o] for o in order[:i]), Fraction(0)) < mass}


def epsilon(law, cutoff):
    """Tokens that reach the cutoff, and the best."""
    return {t for t, p in enumerate(law) if p >= cutoff} | {descending(law)[0]}


def eta(law, cutoff):
    """The same with min(ε, √ε e^-H)."""
    return epsilon(law, min(float(cutoff), math.sqrt(cutoff) * math.exp(-entropy(law))))


def n_sigma(law, n):
    """Logits within n standard deviations of the best."""
    logits = [math.log(p) for p in law]
    mean = sum(logits) / len(logits)
    sigma = math.sqrt(sum((l - mean) ** 2 for l in logits) / len(logits))
    return {t for t, l in enumerate(logits) if l >= max(logits) - n * sigma}


def top_h(law, share):
    """The longest prefix within this share of the entropy."""
    order = descending(law)
    terms = [-float(law[t]) * math.log(law[t]) for t in order]
    return {order[0]} | {t for i, t in enumerate(order) if sum(terms[: i + 1]) <= share * sum(terms)}


RULES = {
    "top_k": (TopK(2), lambda law: top_k(law, 2)),
    "top_p": (TopP(0.7), lambda law: top_p(law, Fraction(7, 10))),
    "min_p": (MinP(0.3), lambda law: min_p(law, Fraction(3, 10))),
    "typical_p": (TypicalP(0.5), lambda law: typical(law, Fraction(1, 2))),
    "epsilon_cutoff": (EpsilonCutoff(0.2), lambda law: epsilon(law, Fraction(1, 5))),
    "eta_cutoff": (EtaCutoff(0.25), lambda law: eta(law, Fraction(1, 4))),
    "top_n_sigma": (TopNSigma(0.8), lambda law: n_sigma(law, 0.8)),
    "top_h": (TopH(0.6), lambda law: top_h(law, 0.6)),
    "top_k_top_p": (TopKTopP(3, 0.6), lambda law: top_k(law, 3) & top_p(law, Fraction(3, 5))),
}


def stepwise(model, kept):
    """The law of texts when each step is restricted to `kept(path)` and renormalised."""
    found, open_texts = {}, {(): Fraction(1)}
    for length in range(1, 5):
        grown = {}
        for text, mass in open_texts.items():
            law = model.law(PROMPT + text)
            tokens = kept(text, law)
            total = sum(law[t] for t in tokens)
            for t in tokens:
                ends = t in ENDS or length == 4
                (found if ends else grown)[*text, t] = mass * law[t] / total
        open_texts = grown
    return found


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_sample_under_a_truncation_rule_has_the_law_of_its_definition(name, seed):
    """Equality of fractions over all texts; the rule does remove something somewhere."""
    processor, kept = RULES[name]
    model = TableModel.hashed(4, seed)
    law = assert_lossless(
        sample(), stepwise(model, lambda _, p: kept(p)), model, processors=Chain((processor,)), **LIMITS
    )
    assert len(law) < 121


@pytest.mark.parametrize("name", RULES)
def test_a_neighbouring_rule_is_told_apart(name):
    """Negative control: keeping one more token at every step gives another law."""
    processor, kept = RULES[name]
    model = TableModel.hashed(4, 0)

    def loose(_, law):
        return {*kept(law), next((t for t in descending(law) if t not in kept(law)), 0)}

    with pytest.raises(AssertionError, match="the laws differ"):
        assert_lossless(sample(), stepwise(model, loose), model, processors=Chain((processor,)), **LIMITS)


@pytest.mark.parametrize("top_p_value", ["1/2", "3/4", "7/8"])
def test_top_p_at_a_dyadic_boundary(top_p_value):
    """A token is kept iff the mass strictly before it is below top_p, at masses that are exact in binary."""
    model = TableModel.markov([["1/2", "1/4", "1/8", "1/8"]] * 4)
    want = stepwise(model, lambda _, law: top_p(law, Fraction(top_p_value)))
    chain = Chain((TopP(float(Fraction(top_p_value))),))
    assert_lossless(sample(), want, model, processors=chain, **LIMITS)


def test_min_new_tokens_renormalises_each_step():
    """No end token among the first m; otherwise the law is the stepwise renormalised one."""
    model = TableModel.hashed(4, 5)

    def kept(text, law):
        return set(range(len(law))) - (ENDS if len(text) < 2 else set())

    law = assert_lossless(sample(), stepwise(model, kept), model, processors=Chain((MinNewTokens(2, (3,)),)), **LIMITS)
    assert min(map(len, law)) == 3


def test_bad_words_renormalise_each_step_and_do_not_condition_the_whole():
    """Banning "ab" gives the stepwise renormalised law, not the law of texts given that "ab" is absent (control)."""
    model = TableModel.hashed(4, 6)

    def kept(text, law):
        banned = {1} if (PROMPT + text)[-1] == 0 else set()
        return set(range(len(law))) - banned

    chain = Chain((BadWords(((0, 1),)),))
    law = assert_lossless(sample(), stepwise(model, kept), model, processors=chain, **LIMITS)
    plain = enumerate_outputs(sample(), model, **LIMITS)
    allowed = {text: p for text, p in plain.items() if (0, 1) not in set(zip(PROMPT + text, text, strict=False))}
    conditioned = {text: p / sum(allowed.values()) for text, p in allowed.items()}
    assert set(law) == set(conditioned)
    with pytest.raises(AssertionError, match="the laws differ"):
        assert_lossless(sample(), conditioned, model, processors=chain, **LIMITS)
