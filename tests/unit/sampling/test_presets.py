"""Orders, semantics, checks of parameters, and the chain."""

import math
import re
from pathlib import Path as File

import numpy as np
import pytest
import straight_line
import torch

from treille.errors import DecodingError, InternalError, NoTokenLeft, ParameterError
from treille.sampling.chain import Chain
from treille.sampling.parameters import PARAMETERS
from treille.sampling.path import Path
from treille.sampling.presets import PRESETS, build_chain
from treille.sampling.processors import DynamicTemperature
from treille.sampling.truncation import TopK, TopNSigma, TopP, TypicalP, Xtc


def path(tokens=(), prompt_length=0, random=None):
    """A path of the given tokens."""
    return Path(np.array(tokens, dtype=np.int32), prompt_length, random)


def constant(u):
    """Randomness that always gives ``u``."""
    return lambda _: u


def run(params, logits, tokens=(), prompt_length=0, **options):
    """The chain's result on one row, as a list."""
    row = torch.tensor([logits], dtype=torch.float32)
    return build_chain(params, **options)([path(tokens, prompt_length)], row)[0].tolist()


def kept(params, p, **options):
    """Which tokens of the distribution ``p`` survive."""
    return {i for i, l in enumerate(run(params, [math.log(x) for x in p], **options)) if l > -math.inf}


def test_temperature_first_or_last():
    """Logits [3, 2, 1], top-p 0.8, T 0.5: before truncation {0}, after it {0, 1}."""
    params, p = {"temperature": 0.5, "top_p": 0.8}, [math.exp(l) for l in (3, 2, 1)]
    assert kept(params, p) == kept(params, p, preset="vllm") == kept(params, p, preset="sglang") == {0}
    assert kept(params, p, preset="llamacpp") == {0, 1}
    assert kept(params, p, order=["top_p", "temperature"]) == {0, 1}


def test_joint_or_sequential():
    """Law [.4, .3, .2, .1], top-k 2, top-p 0.5: sequential {0}, joint {0, 1}."""
    params, p = {"top_k": 2, "top_p": 0.5}, [0.4, 0.3, 0.2, 0.1]
    for preset in ("transformers", "vllm", "llamacpp"):
        assert kept(params, p, preset=preset) == {0}
    assert kept(params, p, preset="sglang") == {0, 1}
    assert kept(params, p, order=["top_k_top_p"]) == {0, 1}


def test_min_p_first_or_last():
    """Law [.5, .2, .15, .1, .05], min-p 0.25, top-p 0.75: min-p first {0, 1}, top-p first {0, 1, 2}."""
    params, p = {"min_p": 0.25, "top_p": 0.75}, [0.5, 0.2, 0.15, 0.1, 0.05]
    assert kept(params, p, preset="vllm") == {0, 1}
    for preset in ("transformers", "llamacpp", "sglang"):
        assert kept(params, p, preset=preset) == {0, 1, 2}


def test_scale_then_add_or_add_then_scale():
    """Logit 1 for a seen token, repetition 1.2, additive 1.5: -0.667, but -0.6 with SGLang."""
    params = {"repetition_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": 1.0}
    for preset in PRESETS:
        value = run(params, [1.0, 0.0], [0], preset=preset)[0]
        assert value == pytest.approx(-0.6 if preset == "sglang" else -2 / 3)


def test_scopes_of_penalties():
    """Token 0 is in the prompt, 1 in the output: who is penalised follows the preset, or the scope given."""

    def hit(params, **options):
        return {i for i, l in enumerate(run(params, [2.0, 2.0, 2.0], [0, 1], 1, **options)) if l < 2}

    both, output = {0, 1}, {1}
    wanted = {
        "transformers": (both, output),
        "vllm": (both, output),
        "sglang": (output, output),
        "llamacpp": (both, both),
    }
    for preset, (repetition, additive) in wanted.items():
        assert hit({"repetition_penalty": 1.5}, preset=preset) == repetition
        assert hit({"frequency_penalty": 0.5}, preset=preset) == additive
        assert hit({"presence_penalty": 0.5}, preset=preset) == additive
    assert hit({"repetition_penalty": 1.5, "penalty_scope": "output"}) == output
    assert hit({"presence_penalty": 0.5, "penalty_scope": "path"}) == both
    assert hit({"repetition_penalty": 1.5, "penalty_last_n": 1}) == output


def test_llamacpp_looks_back_64_tokens():
    """A token 65 places back is not penalised, one 64 places back is; -1 looks at all."""
    tokens = [0, 1] + [2] * 63
    logits = [1.0, 1.0, 1.0]
    assert run({"repetition_penalty": 2.0}, logits, tokens, preset="llamacpp") == [1.0, 0.5, 0.5]
    assert run({"repetition_penalty": 2.0, "penalty_last_n": -1}, logits, tokens, preset="llamacpp") == [0.5] * 3


def test_top_p_boundary_is_strict_mass_before():
    """[1/2, 1/4, 1/8, 1/8]: 0.75 keeps two, 0.7501 keeps three and the lower id of the tie; 0 and tiny keep one."""
    p = [0.5, 0.25, 0.125, 0.125]
    assert kept({"top_p": 0.75}, p) == {0, 1}
    assert kept({"top_p": 0.7501}, p) == {0, 1, 2}
    assert kept({"top_p": 0.0}, p) == kept({"top_p": 1e-9}, p) == {0}


def test_typical_may_drop_the_best_token():
    """Law [.4, .2, .2, .2], mass 0.5: the three others are kept."""
    assert kept({"typical_p": 0.5}, [0.4, 0.2, 0.2, 0.2]) == {1, 2, 3}
    assert kept({"typical_p": 0.5}, [0.4, 0.2, 0.2, 0.2], preset="llamacpp") == {1, 2, 3}


def test_ties_of_top_k_and_typical():
    """Ties at the cut all survive with transformers and vLLM; exactly k, lower ids first, with llama.cpp and SGLang."""
    p = [0.2, 0.1, 0.2, 0.2, 0.2, 0.1]
    for preset in ("transformers", "vllm"):
        assert kept({"top_k": 2}, p, preset=preset) == {0, 2, 3, 4}
    for preset in ("sglang", "llamacpp"):
        assert kept({"top_k": 2}, p, preset=preset) == {0, 2}
    assert kept({"typical_p": 0.3}, p) == {0, 2, 3, 4}
    assert kept({"typical_p": 0.3}, p, preset="llamacpp") == {0, 2}


def test_top_p_is_nested():
    """A larger top-p never loses a token that a smaller one kept (500 rows, ties included)."""
    logits = (torch.randn(500, 50, generator=torch.Generator().manual_seed(0)) * 4).round() / 2
    before = torch.zeros_like(logits, dtype=torch.bool)
    for p in np.linspace(0.0, 0.999, 40):
        now = TopP(float(p))([], logits) > -math.inf
        assert not (before & ~now).any()
        before = now


def test_top_n_sigma_ignores_the_temperature_and_the_masked():
    """The kept set does not change with T, nor with tokens at -inf."""
    logits = torch.randn(200, 60, generator=torch.Generator().manual_seed(1))
    wide = torch.cat([logits, torch.full((200, 7), -math.inf)], dim=1)
    mask = TopNSigma(1.3)([], logits) > -math.inf
    assert torch.equal(TopNSigma(1.3)([], logits / 0.25) > -math.inf, mask)
    assert torch.equal((TopNSigma(1.3)([], wide) > -math.inf)[:, :60], mask)


def test_shift_of_the_logits():
    """Adding 5 changes the multiplicative penalty's law and not the additive one's."""
    p, logits = [path([0, 1, 1])], torch.tensor([[-1.0, 2.0, 0.5]])
    for name, invariant in (("repetition_penalty", False), ("frequency_penalty", True), ("presence_penalty", True)):
        chain = build_chain({name: 1.5})
        laws = [chain(p, logits + shift).softmax(-1) for shift in (0, 5)]
        assert torch.allclose(*laws, atol=1e-6) == invariant


def test_counts_are_those_of_the_own_path():
    """After 300 random forks and cuts, every node's penalty equals a recount of its own tokens."""
    rng = np.random.default_rng(3)
    nodes, chain = [[1, 2]], build_chain({"frequency_penalty": 1.0}, preset="llamacpp")
    for _ in range(300):
        origin = nodes[rng.integers(len(nodes))]
        nodes.append(origin[: rng.integers(1, len(origin) + 1)] + rng.integers(0, 9, rng.integers(1, 4)).tolist())
    result = chain([path(tokens) for tokens in nodes], torch.zeros(len(nodes), 9))
    recount = [[-float(tokens[-64:].count(i)) for i in range(9)] for tokens in nodes]
    assert result.tolist() == recount


def test_temperature_zero_is_greedy():
    """One token is left, the lowest id among the best, in every preset and after penalties."""
    for preset in PRESETS:
        assert run({"temperature": 0}, [1.0, 3.0, 3.0], preset=preset) == [-math.inf, 3.0, -math.inf]
        params = {"temperature": 0, "repetition_penalty": 2.0, "top_k": 2, "top_p": 0.9, "min_p": 0.1}
        assert kept(params, [0.5, 0.3, 0.2], preset=preset) == {0}


def test_dynamic_temperature():
    """T follows the entropy: a flat row gets the high end, a certain one the low end; a single token stays."""
    inf = math.inf
    rows = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, 0.0], [0.0, -40.0, -40.0], [5.0, -inf, -inf], [0.0, -1.0, -inf]])
    result = DynamicTemperature(0.5, 2.0, 1.5)([], rows)
    p = math.exp(-1) / (1 + math.exp(-1))
    share = -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)
    assert torch.equal(result[:2], rows[:2] / 2.0)
    assert result[2].tolist() == pytest.approx([0.0, -80.0, -80.0], rel=1e-4)
    assert torch.equal(result[3], rows[3])
    assert result[4, 1].item() == pytest.approx(-1 / (0.5 + 1.5 * share**1.5), rel=1e-5)
    assert build_chain({"dynatemp_range": 0.5}).processors == (DynamicTemperature(0.5, 1.5, 1.0),)
    assert kept({"dynatemp_range": 3.0}, [1.0, 1e-30, 1e-30]) == {0}


def test_xtc_vectors():
    """Law [.5, .3, .15, .05], threshold .1: always gives [0, 0, .75, .25]; below two top choices, nothing happens."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.91, 0.05, 0.02, 0.02]]).log()
    paths = [path(random=lambda _: 0.3)] * 2
    result = Xtc(1.0, 0.1)(paths, logits).softmax(-1)
    assert torch.allclose(result[0], torch.tensor([0, 0, 0.75, 0.25]))
    assert torch.allclose(result[1], logits[1].exp())
    assert torch.equal(Xtc(0.3, 0.1)(paths, logits), logits)
    ties = torch.tensor([[0.4, 0.2, 0.2, 0.2]]).log()
    assert (Xtc(1.0, 0.1)(paths[:1], ties) > -math.inf).tolist() == [[False, False, False, True]]


def test_xtc_draws_by_row_with_its_probability():
    """20,000 rows with their own uniforms change where the uniform is below q; without uniforms it is an error."""
    uniforms = np.random.default_rng(0).random(20_000)
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    paths = [path(random=lambda purpose, u=u: u if purpose == "xtc" else 1.0) for u in uniforms]
    changed = Xtc(0.4, 0.1)(paths, logits.expand(20_000, -1))[:, 0] == -math.inf
    assert changed.tolist() == (uniforms < 0.4).tolist()
    with pytest.raises(InternalError, match="xtc"):
        Xtc(0.4)([path()], logits)


def random_case(rng):
    """A random row with some equal logits, a random history, and a random parameter set that every preset has."""
    vocabulary = int(rng.integers(8, 24))
    logits = rng.normal(0, 2.5, vocabulary).astype(np.float32)
    logits[rng.integers(vocabulary, size=4)] = logits[rng.integers(vocabulary)]
    prompt, output = (rng.integers(0, 6, rng.integers(low, 9)).tolist() for low in (1, 0))
    draws = {
        "logit_bias": ({}, lambda: {1: 1.25, 5: -2.5}),
        "repetition_penalty": (1.0, lambda: float(rng.uniform(0.7, 1.6))),
        "frequency_penalty": (0.0, lambda: float(rng.uniform(-1, 1))),
        "presence_penalty": (0.0, lambda: float(rng.uniform(-1, 1))),
        "bad_words_ids": ([], lambda: [[1, 2], [6], [0], [3, 3, 3]]),
        "min_new_tokens": (0, lambda: int(rng.integers(0, 6))),
        "temperature": (1.0, lambda: float(rng.uniform(0.3, 2.0))),
        "top_k": (0, lambda: int(rng.integers(1, 12))),
        "top_p": (1.0, lambda: float(rng.uniform(0.1, 0.99))),
        "min_p": (0.0, lambda: float(rng.uniform(0.01, 0.3))),
        "typical_p": (1.0, lambda: float(rng.uniform(0.1, 0.99))),
        "top_n_sigma": (-1.0, lambda: float(rng.uniform(0.5, 2.5))),
        "top_h": (None, lambda: float(rng.uniform(0.2, 0.95))),
        "epsilon_cutoff": (0.0, lambda: float(rng.uniform(1e-4, 0.1))),
        "eta_cutoff": (0.0, lambda: float(rng.uniform(1e-4, 0.1))),
    }
    values = {name: draw() if rng.random() < 0.5 else neutral for name, (neutral, draw) in draws.items()}
    return logits, prompt, output, values


ONLY = {"vllm": 10, "sglang": 10, "llamacpp": 12}
"""How many of the parameters above the straight-line version of a preset has; transformers has all."""


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_equal_a_straight_line_version(preset):
    """1,000 random rows and parameter sets: kept set and law are those of the second implementation."""
    rng = np.random.default_rng(list(PRESETS).index(preset))
    for _ in range(1000):
        logits, prompt, output, values = random_case(rng)
        values = dict(list(values.items())[: ONLY.get(preset)])
        if preset == "llamacpp" and (values["repetition_penalty"] != 1 or values["presence_penalty"]):
            values["penalty_last_n"] = int(rng.integers(1, 12))
        wanted = straight_line.PRESETS[preset]([float(l) for l in logits], prompt, output, values, 0)
        result = run(values, logits.tolist(), prompt + output, len(prompt), preset=preset, eos_ids=[0])
        assert [l == -math.inf for l in result] == [l == -math.inf for l in wanted], values
        assert straight_line.softmax(result) == pytest.approx(straight_line.softmax(wanted), abs=1e-5)


def every_processor(preset):
    """A chain with every processor of a preset, in values that leave tokens over."""
    params = {
        "temperature": 0.8, "top_k": 30, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.98, "epsilon_cutoff": 1e-4,
        "eta_cutoff": 1e-4, "top_n_sigma": 4.0, "top_h": 0.99, "xtc_probability": 0.5, "repetition_penalty": 1.2,
        "frequency_penalty": 0.3, "presence_penalty": 0.2, "dry_multiplier": 0.8, "dry_sequence_breakers": [[3]],
        "logit_bias": {5: 1.0}, "sequence_bias": {(1, 2): 2.0, (4,): 0.5}, "bad_words_ids": [[2, 1]],
        "no_repeat_ngram_size": 4, "min_length": 18, "min_new_tokens": 9, "forced_eos_token_id": 0,
        "exponential_decay_length_penalty": (2, 1.1), "suppress_tokens": [7], "begin_suppress_tokens": [8],
        "remove_invalid_values": True, "renormalize_logits": True, "logits_processor": lambda p, l: l - 0.1 * len(p),
    }  # fmt: skip
    return build_chain(params, preset, eos_ids=[0], max_length=20)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_batched_is_alone_and_pure(preset):
    """Every processor at once: each row of a batch equals the row alone, and neither logits nor tokens are written."""
    chain = every_processor(preset)
    assert len(chain.processors) == len(PRESETS[preset].order)
    rng = np.random.default_rng(5)
    paths = [path(rng.integers(0, 5, rng.integers(12, 22)), 12, constant(rng.random())) for _ in range(40)]
    logits = torch.from_numpy(rng.normal(0, 2, (40, 60)).astype(np.float32))
    saved, tokens = logits.clone(), [p.tokens.copy() for p in paths]
    together = chain(paths, logits)
    alone = torch.cat([chain([p], row[None]) for p, row in zip(paths, logits, strict=True)])
    assert torch.equal(together, alone)
    assert torch.equal(logits, saved)
    assert all(np.array_equal(p.tokens, t) for p, t in zip(paths, tokens, strict=True))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_each_processor_is_pure_and_rowwise(preset):
    """Each processor by itself writes nothing and treats a row as it does alone."""
    rng = np.random.default_rng(6)
    paths = [path(rng.integers(0, 5, rng.integers(12, 22)), 12, constant(rng.random())) for _ in range(12)]
    logits = torch.from_numpy(rng.normal(0, 2, (12, 300)).astype(np.float32))
    saved = logits.clone()
    for processor in every_processor(preset).processors:
        together = processor(paths, logits)
        for i in range(12):
            assert torch.equal(processor(paths[i : i + 1], logits[i : i + 1])[0], together[i]), processor.name
        assert torch.equal(logits, saved), processor.name


def test_deterministic_part_and_description():
    """Greedy and beam search get the chain without temperature and truncation; the order prints with its parameters."""
    params = {"temperature": 0.7, "top_k": 5, "repetition_penalty": 1.2, "renormalize_logits": True}
    chain = build_chain(params)
    assert [p.name for p in chain.deterministic.processors] == ["repetition_penalty", "renormalize_logits"]
    assert chain.describe() == [
        "1. repetition_penalty repetition_penalty=1.2 scope=path last_n=None",
        "2. temperature temperature=0.7",
        "3. top_k top_k=5 ties=True min_tokens_to_keep=1",
        "4. renormalize_logits",
    ]
    assert chain == build_chain(params)
    assert hash(chain) == hash(build_chain(params))


def test_neutral_values_add_nothing():
    """Every neutral value, and None, gives the empty chain in every preset, which returns its input."""
    neutral = {name: parameter.neutral for name, parameter in PARAMETERS.items()}
    for preset in PRESETS:
        assert build_chain(neutral, preset) == build_chain(dict.fromkeys(PARAMETERS), preset) == Chain()
        assert build_chain({"top_k": -1, "top_n_sigma": 0}, preset) == Chain()
    logits = torch.zeros(1, 3)
    assert Chain()([path()], logits) is logits
    assert every_processor("transformers")([], torch.zeros(0, 60)).shape == (0, 60)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"temperatur": 1}, "did you mean temperature"),
        ({"temperature": -1}, "negative"),
        ({"temperature": 1e-9}, "too small"),
        ({"temperature": math.nan}, "not a number"),
        ({"temperature": "hot"}, "not a number"),
        ({"temperature": True}, "not a number"),
        ({"top_k": -2}, "out of range"),
        ({"top_k": 1.5}, "not an integer"),
        ({"top_p": 1.1}, "out of range"),
        ({"min_p": -0.1}, "out of range"),
        ({"typical_p": 0.0}, "out of range"),
        ({"epsilon_cutoff": 1.0}, "out of range"),
        ({"eta_cutoff": -1e-3}, "out of range"),
        ({"top_n_sigma": -2}, "out of range"),
        ({"top_h": 0.0}, "out of range"),
        ({"xtc_probability": 0.5, "xtc_threshold": 0.6}, "could never act"),
        ({"xtc_threshold": 0.2}, "no effect alone"),
        ({"dry_base": 2.0}, "no effect alone"),
        ({"dry_multiplier": 0.8}, "has no tokenizer"),
        ({"penalty_last_n": 10}, "no effect alone"),
        ({"penalty_last_n": 0, "repetition_penalty": 1.1}, "switch the penalty off"),
        ({"penalty_scope": "prompt", "repetition_penalty": 1.1}, "not known"),
        ({"repetition_penalty": 0.0}, "out of range"),
        ({"repetition_penalty": math.inf}, "out of range"),
        ({"frequency_penalty": 2.5}, "out of range"),
        ({"logit_bias": [1]}, "not a mapping"),
        ({"logit_bias": {1: math.inf}}, "infinite"),
        ({"logit_bias": {-1: 1.0}}, "negative token id"),
        ({"sequence_bias": {(): 1.0}}, "empty"),
        ({"bad_words_ids": [[]]}, "empty"),
        ({"bad_words_ids": ["word"]}, "not a list"),
        ({"forced_eos_token_id": 3}, "set max_new_tokens"),
        ({"exponential_decay_length_penalty": (3, 1.1)}, "no end token"),
        ({"exponential_decay_length_penalty": (3,)}, "exponential_decay"),
        ({"logits_processor": "f"}, "not a list"),
        ({"logits_processor": [3]}, "not a function"),
        ({"remove_invalid_values": 1}, "neither True nor False"),
    ],
)
def test_refused_parameters(params, reason):
    """A value that cannot be honoured is refused at build time; the message names parameter and reason."""
    with pytest.raises(ParameterError, match=re.escape(reason)) as error:
        build_chain(params)
    assert any(name in str(error.value) for name in params)


def test_refused_orders_and_presets():
    """An unknown preset or name, a name twice, and a processor in use that the order leaves out are refused."""
    with pytest.raises(ParameterError, match="no such preset"):
        build_chain({}, "hf")
    with pytest.raises(ParameterError, match="not a processor"):
        build_chain({}, order=["top_q"])
    with pytest.raises(ParameterError, match="twice"):
        build_chain({}, order=["top_k", "top_k_top_p"])
    with pytest.raises(ParameterError, match="leaves 'top_p' out"):
        build_chain({"top_p": 0.5}, order=["top_k"])
    assert build_chain({"top_p": 0.5}, order=["temperature", "top_k_top_p"]) == Chain((TopP(0.5),))
    assert build_chain({"top_k": 3}, "sglang") == Chain((TopK(3, ties=False),))


def test_one_failing_row_does_not_touch_the_others():
    """Rows without tokens, with NaN, and with a failing user function get their own errors; the rest is unchanged."""

    def picky(p, l):
        if p.tokens[0] == 3:
            raise KeyError("three")
        return l

    inf = math.inf
    logits = torch.tensor([[1.0, 2.0, 0.0], [-inf, 1.0, -inf], [math.nan, 2.0, 0.0], [1.0, 2.0, 0.0], [inf, 0.0, 0.0]])
    chain = build_chain({"suppress_tokens": [1], "logits_processor": picky, "temperature": 0.5, "top_p": 0.9})
    result, failures = chain.apply([path([i]) for i in range(5)], logits)
    assert sorted(failures) == [1, 2, 3, 4]
    assert isinstance(failures[1], NoTokenLeft)
    assert "suppress_tokens" in str(failures[1])
    assert "the model's own logits" in str(failures[2])
    assert "KeyError" in str(failures[3])
    assert "inf" in str(failures[4])
    assert torch.equal(result[0], chain([path([0])], logits[:1])[0])
    assert (result[1:] == -inf).all()
    with pytest.raises(NoTokenLeft):
        chain([path([1])], logits[1:2])


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda p, l: None, "NoneType"),
        (lambda p, l: l[:2], r"\[2\]"),
        (lambda p, l: l.double(), "float64"),
        (lambda p, l: l * math.nan, "NaN"),
    ],
)
def test_wrong_results_of_user_functions(function, reason):
    """A result of the wrong type, shape or dtype, or with NaN, is named."""
    with pytest.raises(DecodingError, match=reason):
        build_chain({"logits_processor": function})([path()], torch.zeros(1, 3))


def test_user_function_may_write_its_argument():
    """It gets a copy: the model's logits stay as they were. It runs at the preset's place, before temperature."""

    def write(p, l):
        l[0] = 4.0
        return l

    logits = torch.zeros(1, 2)
    chain = build_chain({"temperature": 2.0, "logits_processor": [write]})
    assert chain([path()], logits).tolist() == [[2.0, 0.0]]
    assert logits.tolist() == [[0.0, 0.0]]


def test_tokens_outside_the_vocabulary():
    """A prompt may hold ids that the head lacks; a parameter that names one is refused for the request."""
    params = {"repetition_penalty": 2.0, "no_repeat_ngram_size": 1}
    assert run(params, [1.0, 1.0], [0, 900]) == [-math.inf, 1.0]
    for bad in ({"logit_bias": {900: 1.0}}, {"bad_words_ids": [[1, 900]]}, {"suppress_tokens": [900]}):
        with pytest.raises(DecodingError, match="900"):
            run(bad, [1.0, 1.0], [0])


def test_bad_words_and_the_end_token():
    """`transformers` leaves out a bad word that is the end token alone, vLLM does not and looks at the output only."""
    params, logits = {"bad_words_ids": [[0], [1, 2]]}, [1.0, 1.0, 1.0]
    inf = math.inf
    assert run(params, logits, [1], 1, eos_ids=[0]) == [1.0, 1.0, -inf]
    assert run(params, logits, [1], 1, eos_ids=[0], preset="vllm") == [-inf, 1.0, 1.0]
    assert run(params, logits, [2, 1], 1, eos_ids=[0], preset="vllm") == [-inf, 1.0, -inf]


def test_length_decay_does_not_overflow():
    """A factor whose power leaves float32 gives the largest float32; a masked end stays masked."""
    chain = build_chain({"exponential_decay_length_penalty": (0, 2.0)}, eos_ids=[0, 1])
    result = chain([path([0] * 3000, 1)], torch.tensor([[1.0, -math.inf, 2.0]]))
    assert result[0].tolist() == [torch.finfo(torch.float32).max, -math.inf, 2.0]


def test_typical_and_top_p_escalate_by_row():
    """A flat row that needs the full sort does not change its neighbour (vocabulary 2,000)."""
    logits = torch.randn(3, 2000, generator=torch.Generator().manual_seed(2)) * torch.tensor([[6.0], [0.01], [3.0]])
    for processor in (TopP(0.97), TypicalP(0.97), TypicalP(0.97, ties=False)):
        together = processor([], logits)
        assert all(torch.equal(processor([], logits[i : i + 1])[0], together[i]) for i in range(3))


def test_docs_show_the_orders():
    """docs/processors.md lists each preset's order and every parameter as the code has them."""
    text = (File(__file__).parents[3] / "docs" / "processors.md").read_text()
    for name, preset in PRESETS.items():
        order = " → ".join(f"{p}\\*" if p in preset.lacks else p for p in preset.order)
        assert f"**{name}**: {order}\n" in text
    for parameter in PARAMETERS.values():
        neutral = "" if parameter.neutral is None else f"`{parameter.neutral!r}`"
        row = f"| `{parameter.name}` | {parameter.type} | {neutral} | {parameter.allowed} | {parameter.help} |"
        assert row in text
