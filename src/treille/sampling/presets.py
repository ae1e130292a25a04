"""Chains from parameters, in the order and with the semantics of four engines.

The operations do not commute, so the same parameters mean different things to `transformers`, vLLM, SGLang and
llama.cpp. A preset fixes the order, what the penalties look at, and what happens to ties. docs/processors.md explains
the differences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from treille.errors import ParameterError
from treille.sampling.chain import Chain
from treille.sampling.dry import Breakers, Dry, Vocabulary
from treille.sampling.lexical import (
    BadWords,
    BeginSuppressTokens,
    ExponentialDecayLength,
    ForcedEos,
    LogitBias,
    MinLength,
    MinNewTokens,
    NoRepeatNgram,
    SequenceBias,
    SuppressTokens,
)
from treille.sampling.parameters import PARAMETERS, check_parameters, is_active
from treille.sampling.path import Scope
from treille.sampling.penalties import FrequencyPenalty, PresencePenalty, RepetitionPenalty
from treille.sampling.processors import (
    DynamicTemperature,
    Processor,
    RemoveInvalidValues,
    Renormalize,
    Temperature,
    UserProcessor,
)
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
    Xtc,
)


@dataclass(frozen=True, slots=True)
class Preset:
    """How one engine processes logits.

    Attributes:
        order: every processor's name, first applied first. Names that the engine lacks stand where they do least harm.
        lacks: the names in ``order`` that the engine itself does not have.
        repetition_scope: what the repetition penalty looks at.
        additive_scope: what the frequency and presence penalties look at.
        last_n: tokens that the penalties and DRY look back; ``None`` is all.
        ties: whether ties at the cut of top-k and typical all survive.
        bad_words_scope: where the beginning of a bad word is looked for.
        spares_eos: whether a bad word that is an end token alone is left out.
    """

    order: tuple[str, ...]
    lacks: frozenset[str]
    repetition_scope: Scope
    additive_scope: Scope
    last_n: int | None
    ties: bool
    bad_words_scope: Scope
    spares_eos: bool


def _preset(order: str, **semantics: Any) -> Preset:
    """A preset from a text of names; a star marks what the engine lacks."""
    names = order.split()
    lacks = frozenset(name[:-1] for name in names if name.endswith("*"))
    return Preset(tuple(name.rstrip("*") for name in names), lacks, **semantics)


PRESETS: dict[str, Preset] = {
    "transformers": _preset(
        """
        sequence_bias logit_bias* repetition_penalty frequency_penalty* presence_penalty* dry* no_repeat_ngram_size
        bad_words_ids min_length min_new_tokens forced_eos_token_id remove_invalid_values
        exponential_decay_length_penalty suppress_tokens begin_suppress_tokens logits_processor
        temperature top_n_sigma* top_h top_k top_p min_p typical_p epsilon_cutoff eta_cutoff xtc* renormalize_logits
        """,
        repetition_scope="path",
        additive_scope="output",
        last_n=None,
        ties=True,
        bad_words_scope="path",
        spares_eos=True,
    ),
    "vllm": _preset(
        """
        suppress_tokens begin_suppress_tokens* bad_words_ids min_length* min_new_tokens logit_bias sequence_bias*
        logits_processor repetition_penalty frequency_penalty presence_penalty dry* no_repeat_ngram_size*
        exponential_decay_length_penalty* forced_eos_token_id* remove_invalid_values*
        temperature min_p top_k top_p top_n_sigma* top_h* typical_p* epsilon_cutoff* eta_cutoff* xtc*
        renormalize_logits*
        """,
        repetition_scope="path",
        additive_scope="output",
        last_n=None,
        ties=True,
        bad_words_scope="output",
        spares_eos=False,
    ),
    "sglang": _preset(
        """
        frequency_penalty presence_penalty min_new_tokens min_length* repetition_penalty dry* no_repeat_ngram_size*
        bad_words_ids* suppress_tokens* begin_suppress_tokens* exponential_decay_length_penalty* forced_eos_token_id*
        remove_invalid_values* logit_bias sequence_bias* logits_processor
        temperature top_k_top_p min_p top_n_sigma* top_h* typical_p* epsilon_cutoff* eta_cutoff* xtc*
        renormalize_logits*
        """,
        repetition_scope="output",
        additive_scope="output",
        last_n=None,
        ties=False,
        bad_words_scope="path",
        spares_eos=False,
    ),
    "llamacpp": _preset(
        """
        logit_bias sequence_bias* suppress_tokens* begin_suppress_tokens* bad_words_ids* no_repeat_ngram_size*
        min_length* min_new_tokens* exponential_decay_length_penalty* forced_eos_token_id* remove_invalid_values*
        repetition_penalty frequency_penalty presence_penalty dry logits_processor*
        top_n_sigma top_k typical_p top_p min_p top_h* epsilon_cutoff* eta_cutoff* xtc temperature renormalize_logits*
        """,
        repetition_scope="path",
        additive_scope="path",
        last_n=64,
        ties=False,
        bad_words_scope="path",
        spares_eos=False,
    ),
}
"""The presets by name."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What the builders of single processors read."""

    values: Mapping[str, Any]
    preset: Preset
    tokenizer: Vocabulary | None
    eos_ids: tuple[int, ...]
    max_length: int | None
    max_new_tokens: int | None
    min_tokens_to_keep: int

    def active(self, name: str) -> bool:
        """Whether the parameter asks for a processor."""
        return is_active(name, self.values)

    def last_n(self, name: str) -> int | None:
        """The window of a penalty: as given (-1 is all), or the preset's."""
        given: int | None = self.values[name]
        return self.preset.last_n if given is None else None if given == -1 else given

    def scope(self, default: Scope) -> Scope:
        """The scope of a penalty: as given, or the preset's."""
        given: Scope | None = self.values["penalty_scope"]
        return given or default


def build_chain(
    params: Mapping[str, object],
    preset: str = "transformers",
    *,
    order: Sequence[str] | None = None,
    tokenizer: Vocabulary | None = None,
    eos_ids: Sequence[int] = (),
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    min_tokens_to_keep: int = 1,
) -> Chain:
    """The chain that the parameters ask for; neutral values add nothing.

    Args:
        params: values by the names of ``PARAMETERS``; ``None`` is neutral.
        preset: whose order and semantics, a name in ``PRESETS``.
        order: the order of processors instead of the preset's; it must name every processor in use once.
            ``top_k_top_p`` stands for the joint rule.
        tokenizer: for DRY's breakers given as text.
        eos_ids: the end tokens; without any, minimum lengths hold by themselves.
        max_length: tokens of prompt and output together, for ``forced_eos_token_id``.
        max_new_tokens: tokens of output, for ``forced_eos_token_id``.
        min_tokens_to_keep: of every truncation; `transformers` uses ``len(eos_ids) + 1`` when it samples beams.

    Raises:
        ParameterError: an unknown preset, name or value, or a value that could not be honoured.
    """
    if preset not in PRESETS:
        raise ParameterError(f"preset={preset!r}: there is no such preset; choose {', '.join(PRESETS)}")
    values = check_parameters(params)
    names = PRESETS[preset].order if order is None else _checked_order(order, values)
    eos = tuple(eos_ids)
    request = _Request(values, PRESETS[preset], tokenizer, eos, max_length, max_new_tokens, min_tokens_to_keep)
    return Chain(tuple(p for name in names for p in _BUILDERS[name](request)))


def _checked_order(order: Sequence[str], values: Mapping[str, object]) -> tuple[str, ...]:
    """``order``, which names known processors once each and leaves out none that is in use."""
    names = tuple(order)
    if unknown := [name for name in names if name not in _BUILDERS]:
        raise ParameterError(f"order: {unknown[0]!r} is not a processor; choose from {', '.join(_BUILDERS)}")
    covered = {part for name in names for part in (("top_k", "top_p") if name == "top_k_top_p" else (name,))}
    if len(covered) < len(names) + ("top_k_top_p" in names):
        raise ParameterError(f"order={list(names)}: a processor stands there twice; name each once")
    for name in values:
        processor = PARAMETERS[name].processor
        if not PARAMETERS[name].needs and is_active(name, values) and processor not in covered:
            raise ParameterError(
                f"{name}={values[name]!r}: the order leaves {processor!r} out; add it, or unset {name}"
            )
    return names


def _temperature(r: _Request) -> list[Processor]:
    temperature, spread = r.values["temperature"], r.values["dynatemp_range"]
    if spread > 0:
        low, high = max(0.0, temperature - spread), temperature + spread
        return [DynamicTemperature(low, high, r.values["dynatemp_exponent"])]
    return [Temperature(temperature)] if temperature != 1 else []


def _top_k(r: _Request) -> list[Processor]:
    return [TopK(r.values["top_k"], r.preset.ties, r.min_tokens_to_keep)] if r.active("top_k") else []


def _top_p(r: _Request) -> list[Processor]:
    return [TopP(r.values["top_p"], r.min_tokens_to_keep)] if r.active("top_p") else []


def _top_k_top_p(r: _Request) -> list[Processor]:
    if r.active("top_k") and r.active("top_p"):
        return [TopKTopP(r.values["top_k"], r.values["top_p"], r.min_tokens_to_keep)]
    return _top_k(r) + _top_p(r)


def _typical_p(r: _Request) -> list[Processor]:
    return [TypicalP(r.values["typical_p"], r.preset.ties, r.min_tokens_to_keep)] if r.active("typical_p") else []


def _kept(make: Callable[[float, int], Processor], name: str, r: _Request) -> list[Processor]:
    return [make(r.values[name], r.min_tokens_to_keep)] if r.active(name) else []


def _plain(make: Callable[[Any], Processor], name: str, r: _Request) -> list[Processor]:
    return [make(r.values[name])] if r.active(name) else []


def _flag(make: Callable[[], Processor], name: str, r: _Request) -> list[Processor]:
    return [make()] if r.active(name) else []


def _xtc(r: _Request) -> list[Processor]:
    return [Xtc(r.values["xtc_probability"], r.values["xtc_threshold"])] if r.active("xtc_probability") else []


def _penalty(make: Callable[[float, Scope, int | None], Processor], name: str, r: _Request) -> list[Processor]:
    default = r.preset.repetition_scope if name == "repetition_penalty" else r.preset.additive_scope
    return [make(r.values[name], r.scope(default), r.last_n("penalty_last_n"))] if r.active(name) else []


def _dry(r: _Request) -> list[Processor]:
    if not r.active("dry_multiplier"):
        return []
    given = r.values["dry_sequence_breakers"]
    strings = [x for x in given if isinstance(x, str)]
    if strings and r.tokenizer is None:
        raise ParameterError(
            f"dry_multiplier={r.values['dry_multiplier']}: its dry_sequence_breakers {strings} are text and this "
            "checkpoint has no tokenizer; give token id lists, or [] for no breakers"
        )
    table = Breakers.sequences_of(strings, r.tokenizer) if r.tokenizer is not None and strings else []
    breakers = Breakers([*table, *(x for x in given if not isinstance(x, str))])
    v = r.values
    return [Dry(v["dry_multiplier"], v["dry_base"], v["dry_allowed_length"], r.last_n("dry_penalty_last_n"), breakers)]


def _bad_words(r: _Request) -> list[Processor]:
    spared = {(token,) for token in r.eos_ids} if r.preset.spares_eos else set()
    sequences = tuple(ids for ids in r.values["bad_words_ids"] or () if ids not in spared)
    return [BadWords(sequences, r.preset.bad_words_scope)] if sequences else []


def _until_end(make: Callable[[int, tuple[int, ...]], Processor], name: str, r: _Request) -> list[Processor]:
    return [make(r.values[name], r.eos_ids)] if r.active(name) and r.eos_ids else []


def _forced_eos(r: _Request) -> list[Processor]:
    ids = r.values["forced_eos_token_id"]
    if not ids:
        return []
    if r.max_length is None and r.max_new_tokens is None:
        raise ParameterError(f"forced_eos_token_id={list(ids)}: there is no longest output; set max_new_tokens")
    return [ForcedEos(ids, r.max_length, r.max_new_tokens)]


def _decay(r: _Request) -> list[Processor]:
    decay = r.values["exponential_decay_length_penalty"]
    if decay is None:
        return []
    if not r.eos_ids:
        raise ParameterError(
            f"exponential_decay_length_penalty={decay}: there is no end token to raise; set eos_token_id"
        )
    start, factor = decay
    return [ExponentialDecayLength(start, factor, r.eos_ids)]


def _user(r: _Request) -> list[Processor]:
    return [UserProcessor(function) for function in r.values["logits_processor"] or ()]


_BUILDERS: dict[str, Callable[[_Request], list[Processor]]] = {
    "temperature": _temperature,
    "top_k": _top_k,
    "top_p": _top_p,
    "top_k_top_p": _top_k_top_p,
    "min_p": partial(_kept, MinP, "min_p"),
    "typical_p": _typical_p,
    "epsilon_cutoff": partial(_kept, EpsilonCutoff, "epsilon_cutoff"),
    "eta_cutoff": partial(_kept, EtaCutoff, "eta_cutoff"),
    "top_n_sigma": partial(_plain, TopNSigma, "top_n_sigma"),
    "top_h": partial(_plain, TopH, "top_h"),
    "xtc": _xtc,
    "repetition_penalty": partial(_penalty, RepetitionPenalty, "repetition_penalty"),
    "frequency_penalty": partial(_penalty, FrequencyPenalty, "frequency_penalty"),
    "presence_penalty": partial(_penalty, PresencePenalty, "presence_penalty"),
    "dry": _dry,
    "logit_bias": partial(_plain, LogitBias, "logit_bias"),
    "sequence_bias": partial(_plain, SequenceBias, "sequence_bias"),
    "bad_words_ids": _bad_words,
    "no_repeat_ngram_size": partial(_plain, NoRepeatNgram, "no_repeat_ngram_size"),
    "min_length": partial(_until_end, MinLength, "min_length"),
    "min_new_tokens": partial(_until_end, MinNewTokens, "min_new_tokens"),
    "forced_eos_token_id": _forced_eos,
    "exponential_decay_length_penalty": _decay,
    "suppress_tokens": partial(_plain, SuppressTokens, "suppress_tokens"),
    "begin_suppress_tokens": partial(_plain, BeginSuppressTokens, "begin_suppress_tokens"),
    "remove_invalid_values": partial(_flag, RemoveInvalidValues, "remove_invalid_values"),
    "renormalize_logits": partial(_flag, Renormalize, "renormalize_logits"),
    "logits_processor": _user,
}
"""How each processor is built, by its name in an order."""
