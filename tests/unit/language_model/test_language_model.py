"""The public face: what `generate`, `stream`, `logits` and `score` return, refuse and leave behind."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from face import PROMPTS, STRATEGIES, adhoc, same

import treille
from treille.errors import BatchError, CapacityError, NoTokenLeft, ParameterError, UserError
from treille.language_model import LanguageModel, default_strategy
from treille.requests import Attention, Forward
from treille.strategies import beam, greedy, sample, self_consistency
from treille.strategy import Output


def test_a_list_of_prompts_gives_what_each_gives_alone(lm):
    """Texts in one batch, in order, are those of single calls; a list of one prompt gives a list."""
    batch = lm.generate(PROMPTS, max_new_tokens=12)
    assert all(same(one, lm.generate(p, max_new_tokens=12)) for p, one in zip(PROMPTS, batch, strict=True))
    assert [out.prompt for out in batch] == PROMPTS
    assert isinstance(lm.generate(["x"], max_new_tokens=2), list)


def test_text_ids_and_chat_are_the_same_prompt(lm):
    """A prompt can be text, ids in any integer sequence, or messages, also mixed in one batch."""
    text = "<user>hi<assistant>"
    ids = lm.tokenizer.encode(text)
    chat = [{"role": "user", "content": "hi"}]
    forms = [text, ids, tuple(ids), np.array(ids), torch.tensor(ids), chat]
    assert {lm.generate(form, max_new_tokens=6).tokens for form in forms} == {
        lm.generate(forms, max_new_tokens=6)[0].tokens
    }
    assert [lm.encode(form) for form in forms] == [ids] * 6


def test_without_a_tokenizer_ids_work_and_texts_are_refused(mute):
    """A checkpoint without tokenizer decodes ids with every strategy that reads no text; the rest says what to do."""
    out = mute.generate([[1, 2], [3]], [beam(width=2), sample(seed=1)], max_new_tokens=5)
    assert [o.text for o in out] == ["", ""]
    assert out[0].tokens
    stream = mute.stream([1, 2], max_new_tokens=5)
    assert list(stream) == []
    assert stream.result.tokens == mute.generate([1, 2], max_new_tokens=5).tokens
    assert len(mute.score([1, 2], [3, 4])) == 2
    for refused in (
        lambda: mute.generate("text"),
        lambda: mute.generate([{"role": "user", "content": "x"}]),
        lambda: mute.generate([1], stop_strings="a"),
        lambda: mute.generate([1], "self_consistency", n=2),
        lambda: mute.score([1], "text"),
    ):
        with pytest.raises(ParameterError, match=r"tokenizer"):
            refused()


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "at least one"), ([], "at least one"), ([[]], "at least one"), (None, "give text"), (5, "give text"),
        ([None], "give text"), ([1.5, 2], "give text"), (["a", None], "give text"), ({"role": "user"}, "give text"),
        ([["a"]], "give text"), ([1, "a"], "give text"), (torch.tensor([[1, 2], [3, 4]]), "give text"),
        ([9999], "vocabulary"), ([-1], "vocabulary"), ([[1], [9999]], "vocabulary"),
        ([{"role": "system", "content": "x"}], "unknown role"), ([{"role": "user", "content": "x"}, "x"], "message"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused(lm, prompt, reason):
    """Anything but text, ids and messages is refused with the forms that a prompt has."""
    with pytest.raises(ParameterError, match=reason):
        lm.generate(prompt)


# --- strategies and options -------------------------------------------------------------------------------------------


def test_a_strategy_for_each_prompt(lm):
    """Names and configured strategies may differ per prompt; each result is that of the same call alone."""
    prompts = [PROMPTS[i % 5] for i in range(len(STRATEGIES))]
    batch = lm.generate(prompts, STRATEGIES, max_new_tokens=10, seed=3)
    for prompt, strategy, out in zip(prompts, STRATEGIES, batch, strict=True):
        assert same(out, lm.generate(prompt, strategy, max_new_tokens=10, seed=3))
        assert out.strategy.startswith(strategy.info.name)
    assert same(
        lm.generate(["x"], ["beam"], width=3, max_new_tokens=5)[0], lm.generate("x", beam(width=3), max_new_tokens=5)
    )


def test_the_default_is_greedy_unless_sampling_is_asked_for(lm):
    """`sample` with a parameter that shapes sampling or several texts; `greedy` otherwise."""
    for given in ({}, {"repetition_penalty": 1.2}, {"temperature": None}, {"num_return_sequences": None}, {"seed": 1}):
        assert default_strategy(given) == "greedy"
    for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "xtc_probability", "num_return_sequences"):
        assert default_strategy({name: 2}) == "sample"
    assert lm.generate("x", max_new_tokens=2).strategy == "greedy(max_new_tokens=2)"
    assert lm.generate("x", max_new_tokens=2, top_p=0.9).strategy == "sample(max_new_tokens=2, top_p=0.9)"


def test_temperature_zero_is_greedy(lm):
    """The argmax at every step, whatever truncation is asked for beside it."""
    for prompt in PROMPTS:
        zero = lm.generate(prompt, temperature=0, top_p=0.3, max_new_tokens=12)
        assert same(zero, lm.generate(prompt, "greedy", max_new_tokens=12))
        assert zero.processors == ()


def test_a_seed_fixes_the_text_alone_and_among_others(lm):
    """Same seed, same texts, whatever else is in the batch; another seed or none gives another text."""
    options = {"temperature": 1.0, "max_new_tokens": 16}
    alone = lm.generate("x", seed=5, **options)
    batch = lm.generate([*PROMPTS, "x"], ["beam", *[sample(**options)] * 5], seed=5, max_new_tokens=16)
    assert same(batch[2], alone)
    assert same(batch[5], alone)
    assert lm.generate("x", seed=6, **options).tokens != alone.tokens
    assert len({lm.generate("x", **options).tokens for _ in range(4)}) > 1
    assert lm.generate("x", seed=-1, **options).tokens == lm.generate("x", seed=-1, **options).tokens


def test_several_texts_of_one_prompt(lm):
    """`num_return_sequences` candidates: independent draws for `sample`, the best of the beams for `beam`."""
    drawn = lm.generate("x", num_return_sequences=5, seed=1, max_new_tokens=10)
    assert len(drawn.candidates) == 5
    assert len({c.tokens for c in drawn.candidates}) > 1
    found = lm.generate("x", beam(width=4), num_return_sequences=3, max_new_tokens=10)
    assert [c.score for c in found.candidates] == sorted((c.score for c in found.candidates), reverse=True)
    assert found.tokens == lm.generate("x", beam(width=4), max_new_tokens=10).tokens


def test_an_end_token_is_no_part_of_the_text(lm):
    """An ordinary token as end token is in `tokens` but not in `text`, also in a stream."""
    free = lm.generate("hello", max_new_tokens=12)
    end = free.tokens[4]
    out = lm.generate("hello", max_new_tokens=12, eos_token_id=[end])
    stop = free.tokens.index(end)
    assert (out.tokens, out.finish_reason) == (free.tokens[: stop + 1], "eos")
    assert out.text == lm.tokenizer.decode(free.tokens[:stop])
    assert "".join(lm.stream("hello", max_new_tokens=12, eos_token_id=[end])) == out.text
    assert len(lm.generate("a b", max_new_tokens=40, eos_token_id=[]).tokens) == 40


def test_stop_strings_cut_the_text(lm):
    """The text ends before the first match; the tokens hold the match; the reason is told."""
    free = lm.generate("x", max_new_tokens=20, eos_token_id=[])
    stop = free.text[6:9]
    out = lm.generate("x", max_new_tokens=20, eos_token_id=[], stop_strings=[stop, "never there"])
    assert out.finish_reason == "stop_string"
    assert out.text == free.text[: free.text.index(stop)]
    assert lm.tokenizer.decode(out.tokens).endswith(stop)


def test_processors_in_force_are_listed(lm):
    """`Generation.processors` has a line per processor, in order of application."""
    out = lm.generate("x", temperature=0.7, top_k=9, repetition_penalty=1.2, max_new_tokens=2)
    assert [line.split()[1] for line in out.processors] == ["repetition_penalty", "temperature", "top_k"]
    assert lm.generate("x", max_new_tokens=2).processors == ()


REFUSED = [
    ({"temprature": 1}, "did you mean temperature"), ({"no_such_thing": 1}, "treille strategies"),
    ({"draft": "eagl"}, "is not known"), ({"draft": 3}, "give a name"), ({"draft_rows": 4}, "without draft="),
    ({"draft": "prompt_lookup", "draft_rows": 0}, "at least 1"), ({"draft": "prompt_lookup:k=0"}, "k=0"),
    ({"draft": "prompt_lookup", "verification": "x"}, "choose match or rejection"),
    ({"draft": "prompt_lookup", "verification": "rejection"}, "draws nothing"), ({"noise": "pink"}, "choose uniform"),
    ({"strategy": "beam", "draft": "prompt_lookup"}, "leave draft out"), ({"noise": "gumbel"}, "draws nothing"),
    ({"draft": "draft_model"}, "no such draft model"),
    ({"constraint": "json"}, "json_schema"), ({"tokenization": "any"}, "without constraint="),
    ({"seed": 1.5}, "integer"), ({"seed": True}, "integer"), ({"max_new_tokens": 0}, "at least 1"),
    ({"max_new_tokens": 2.5}, "integer"), ({"max_new_tokens": 999}, "are left"),
    ({"num_return_sequences": 0}, "at least 1"), ({"num_return_sequences": "2"}, "integer"),
    ({"eos_token_id": "a"}, "integer"), ({"eos_token_id": [999]}, "vocabulary"), ({"eos_token_id": -1}, "vocabulary"),
    ({"stop_strings": ""}, "non-empty"), ({"stop_strings": [""]}, "non-empty"), ({"stop_strings": 5}, "non-empty"),
    ({"preset": "x"}, "choose"), ({"processor_order": ["x"]}, "choose"), ({"temperature": -1}, "out of|negative"),
    ({"top_p": 2}, "out of range"), ({"xtc_threshold": 0.2}, "xtc_probability"),
    ({"suppress_tokens": [999]}, "vocabulary"), ({"bad_words_ids": [[1, 999]]}, "vocabulary"),
    ({"logit_bias": {999: 1.0}}, "vocabulary"), ({"sequence_bias": {(1, 999): 1.0}}, "vocabulary"),
    ({"forced_eos_token_id": 999}, "vocabulary"), ({"min_new_tokens": 9, "max_new_tokens": 8}, "max_new_tokens=8"),
    ({"min_length": 20, "max_new_tokens": 8}, "max_new_tokens=8"), ({"min_new_tokens": "9"}, "min_new_tokens"),
    ({"strategy": "bem"}, "choose one of"), ({"strategy": 7}, "give a name"),
    ({"strategy": ["beam"]}, "one prompt|a name"),
    ({"strategy": "greedy", "temperature": 0.5}, "does not sample"),
    ({"strategy": "greedy", "epsilon_cutoff": 0.1}, "strategy='sample'"),
    ({"strategy": "greedy", "num_return_sequences": 2}, "beam"), ({"strategy": "beam", "width": "a"}, "int"),
    ({"strategy": "beam", "width": 0}, "at least 1"), ({"strategy": "beam", "num_return_sequences": 9}, "raise width"),
    ({"strategy": "beam", "early_stopping": "x"}, "choose"), ({"strategy": beam(width=2), "width": 3}, "itself"),
    ({"strategy": "best_of_n", "temperature": 0}, "greedy"), ({"strategy": "greedy", "width": 3}, "no such parameter"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "reason"), REFUSED, ids=str)
def test_what_cannot_be_honoured_is_refused_before_the_first_token(lm, options, reason):
    """A UserError names value and way out, from `generate`, from a batch and from `stream`; nothing is computed."""
    before = lm.engine.runners["target"].store.accounts()
    for attempt in (lm.generate, lm.stream):
        with pytest.raises(UserError, match=reason) as caught:
            attempt("x", **options)
        name = list(options)[-1]
        assert str(options[name]).strip("[]'") in str(caught.value) or name in str(caught.value)
    if not isinstance(options.get("strategy"), list):
        with pytest.raises(UserError, match=reason):
            lm.generate(["hello", "x"], **options)
    assert lm.engine.runners["target"].store.accounts() == before
    assert lm.engine.jobs == {}


def test_one_refused_prompt_starts_none(lm):
    """If a later prompt of a batch cannot be honoured, the earlier ones are not left running."""
    with pytest.raises(ParameterError, match="raise width"):
        lm.generate(["a", "b"], [beam(width=3), beam(width=2)], num_return_sequences=3, max_new_tokens=4)
    with pytest.raises(ParameterError, match="2 prompts"):
        lm.generate(["a", "b"], ["greedy"])
    assert lm.engine.jobs == {}


def test_capacity_is_checked_at_the_door(lm):
    """A prompt beyond the context or the KV memory is refused; no listener is left; scoring that fits works."""
    with pytest.raises(CapacityError, match="shorten the prompt"):
        lm.generate([1] * 256)
    small = LanguageModel(lm.checkpoint, kv_slots=40)
    for attempt in (small.generate, small.stream):
        with pytest.raises(CapacityError, match="kv_slots"):
            attempt([1] * 20, trace=True, max_new_tokens=21)
    assert small.engine.instruments == []
    assert small.logits([1] * 40).shape == (40, 48)
    with pytest.raises(CapacityError, match="kv_slots"):
        small.logits([1] * 41)
    with pytest.raises(CapacityError, match="context of 256"):
        lm.score([1] * 256, [1, 2])
    assert len(lm.score([1] * 255, [1, 2])) == 2
    for wrong in ({"kv_slots": 0}, {"kv_slots": -3}, {"budget": 0}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            LanguageModel(lm.checkpoint, **wrong)


@pytest.mark.parametrize("wrong", [{"device": "meta"}, {"device": "no"}, {"dtype": "float64"}, {"dtype": 3}])
def test_unknown_devices_and_dtypes_are_refused(saved, wrong):
    """`load` names what there is."""
    with pytest.raises(ParameterError, match=r"cpu|CPU|float32"):
        treille.load(saved[0], **wrong)


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_results_are_plain_data(lm, strategy):
    """`to_dict` is strict JSON with the candidates, and traces and counters agree with the text."""
    out = lm.generate("hello", strategy, seed=1, max_new_tokens=8, trace=True)
    told = json.loads(json.dumps(out.to_dict(), allow_nan=False))
    assert told["text"] == out.text
    assert told["tokens"] == list(out.tokens)
    assert [c["logprob"] for c in told["candidates"]] == [c.logprob for c in out.candidates]
    assert told["stats"]["emitted"] == sum(len(c.tokens) for c in out.candidates)
    assert told["stats"]["rows"] + told["stats"]["cached_rows"] >= len(out.prompt_tokens)
    assert out.trace is not None


def test_details_of_any_kind_become_plain_data(lm):
    """Answers that are fractions or tuples are told as texts and lists."""
    answers = iter([Fraction(1, 2), (1, 2), 0.5, None])
    out = lm.generate("x", self_consistency(n=4, extract=lambda _: next(answers)), seed=1, max_new_tokens=3)
    told = json.loads(json.dumps(out.to_dict(), allow_nan=False))
    assert told["details"]["answers"] == ["1/2", [1, 2], 0.5, None]


# --- teacher forcing --------------------------------------------------------------------------------------------------


def test_logits_are_those_of_transformers(lm, saved):
    """Row t describes the token after position t, within 1e-4; the result may be written to."""
    tokens = torch.randint(45, (90,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = saved[1](tokens.unsqueeze(0)).logits[0]
    found = lm.logits(tokens)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    found[:, 0] = -torch.inf
    chunked = LanguageModel(lm.checkpoint, budget=7).logits(tokens.tolist())
    torch.testing.assert_close(chunked, expected, atol=1e-4, rtol=0)
    for wrong in ("text", [], [1.5], None, [999]):
        with pytest.raises(ParameterError, match="token_ids"):
            lm.logits(wrong)


def test_score_is_the_log_probability_of_each_token(lm, saved):
    """Equal to log-softmax of `transformers`' logits; sums to `raw_logprob` of what was generated."""
    out = lm.generate("hello", "sample", seed=2, temperature=0.8, max_new_tokens=20)
    tokens = torch.tensor([*out.prompt_tokens, *out.tokens])
    with torch.no_grad():
        logp = saved[1](tokens.unsqueeze(0)).logits[0].log_softmax(-1)
    begin = len(out.prompt_tokens)
    expected = logp[begin - 1 : -1].gather(1, tokens[begin:, None]).squeeze(1).tolist()
    scores = lm.score("hello", out.tokens)
    assert scores == pytest.approx(expected, abs=1e-4)
    assert sum(scores) == pytest.approx(out.raw_logprob, abs=1e-3)
    assert lm.score("hel", "lo") == pytest.approx(lm.score("hel", lm.tokenizer.encode("lo")))
    for wrong in ("", [], 5, [999]):
        with pytest.raises(ParameterError, match="continuation"):
            lm.score("x", wrong)


def test_attention_is_that_of_transformers(lm, saved):
    """The weights of every layer and head after a text equal those `transformers` gives out."""
    directory, model = saved
    tokens, got = lm.encode("the end."), {}

    def reader(run):
        (got["weights"],) = yield Forward([run.tip], Attention(tuple(range(len(model.model.layers)))))
        return Output((run.start,))

    lm.generate(tokens, adhoc(reader))
    eager = type(model).from_pretrained(directory, attn_implementation="eager")
    with torch.no_grad():
        expected = eager(torch.tensor([tokens]), output_attentions=True).attentions
    torch.testing.assert_close(got["weights"], torch.stack([layer[0, :, -1] for layer in expected]), atol=1e-4, rtol=0)


def test_a_batch_of_which_some_fail_gives_what_the_others_gave(lm):
    """BatchError holds a result for each prompt: a generation, or what ended it."""

    def dead(path, logits):
        return logits.fill_(-math.inf) if len(path) > 4 else logits

    strategies = [greedy(max_new_tokens=4), greedy(max_new_tokens=4, logits_processor=dead)]
    with pytest.raises(BatchError, match="1 of 2 prompts failed") as caught:
        lm.generate(["abc", "abc"], strategies)
    assert caught.value.results[0].tokens == lm.generate("abc", max_new_tokens=4).tokens
    assert isinstance(caught.value.results[1], NoTokenLeft)
