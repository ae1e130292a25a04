"""Generation parameters: what a user may say beside the strategy's own parameters, checked before the first token."""

from __future__ import annotations

import difflib
import operator
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treille.constraints.sources import as_source
from treille.drafters import ConfiguredDrafter, parse
from treille.errors import CapacityError, ParameterError
from treille.sampling.parameters import PARAMETERS
from treille.sampling.presets import build_chain
from treille.strategy import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from treille.constraints.base import Source, Tokenization
    from treille.drafters.speculation import Verification
    from treille.models.tokenizer import Tokenizer
    from treille.sampling.chain import Chain
    from treille.strategy import Configured, StrategyInfo

DEFAULT_NEW_TOKENS = 256
DEFAULT_DRAFT_ROWS = 32

# Everything beside the processors' own parameters, with its help line.
GENERAL: dict[str, str] = {
    "max_new_tokens": f"tokens generated at the most (default {DEFAULT_NEW_TOKENS}, or what the context leaves)",
    "stop_strings": "a string or a list of strings that end the text; the text is cut before them",
    "eos_token_id": "token id or ids that end the text (default: the checkpoint's; [] for none)",
    "seed": "any integer; the same seed gives the same text, alone or in a batch (default: a fresh one)",
    "num_return_sequences": "how many candidates to return",
    "preset": "order and semantics of the processors: transformers, vllm, sglang or llamacpp",
    "processor_order": "explicit order of the processors, a list of names",
    "constraint": "what shape the text has: json_schema(…), regex(…), grammar(…), choices(…), trie(…), after(…)",
    "close": "a constrained text ends complete within max_new_tokens, where a completion is found (default: true)",
    "heal": "cut a prompt that ends inside a token, and let the text begin with what was cut (default: false)",
    "tokenization": "spellings of an allowed text: any (default), or canonical: the tokenizer's where it is forced",
    "draft": "a drafter: its name, or name:key=value,key=value; the text or its law stays the same",
    "draft_rows": f"nodes drafted in one step at the most (default {DEFAULT_DRAFT_ROWS})",
    "governor": "draft only as much as pays, by measured cost and acceptance (default: with verification='match')",
    "verification": "match: the plain text, token for token; rejection: the plain law, more of a drawn draft kept",
    "noise": "what draws tokens: uniform (default), or gumbel, which a draft model can share",
}

_TOKEN_PARAMETERS = {
    "bad_words_ids", "begin_suppress_tokens", "forced_eos_token_id", "logit_bias", "sequence_bias", "suppress_tokens",
}  # fmt: skip

_DRAFTING = ("draft_rows", "governor", "verification")


@dataclass(frozen=True, slots=True)
class Drafting:
    """A drafter, and how its drafts are verified."""

    drafter: ConfiguredDrafter
    rows: int
    verification: Verification
    governor: bool


@dataclass(frozen=True, slots=True)
class Options:
    """The checked generation parameters of one run; `do_sample` is False at temperature 0, which is greedy."""

    limits: Limits
    chain: Chain | None
    do_sample: bool
    seed: int
    num_return_sequences: int
    gumbel: bool
    drafting: Drafting | None
    constraint: Source | None
    tokenization: Tokenization
    close: bool
    heal: bool


class PlainText:
    """A tokenizer as processors see it: no special tokens added, single tokens decoded once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}
        self.vocabulary_size = tokenizer.vocab_size

    def encode(self, text: str) -> Sequence[int]:
        """The token ids of `text`."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`."""
        if len(ids) != 1:
            return self._tokenizer.decode(ids)
        if ids[0] not in self._texts:
            self._texts[ids[0]] = self._tokenizer.decode(ids)
        return self._texts[ids[0]]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a checkpoint brings along: end tokens, vocabulary, context, tokenizer."""

    eos_token_ids: tuple[int, ...]
    vocab_size: int
    context_length: int
    tokenizer: Tokenizer | None
    plain_text: PlainText | None


def split(given: Mapping[str, Any], info: StrategyInfo) -> None:
    """Refuse what can be refused without a model: unknown names, and drafters that do not fit.

    Raises:
        ParameterError: an unknown name, with the nearest known one; see also `drafting`.
    """
    known = {*GENERAL, *PARAMETERS, *info.parameters}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "`treille strategies` lists what each strategy takes"
            raise ParameterError(f"{name}={given[name]!r}: strategy {info.name!r} has no such parameter; {hint}")
    drafting(given, info)
    constraining(given)


def resolve(configured: Configured, prompt_length: int, defaults: Defaults) -> Options:
    """The limits, processors and seed of a run.

    Raises:
        ParameterError: an unknown name or a value that cannot be honoured.
        CapacityError: prompt and `max_new_tokens` exceed the context.
    """
    info, options = configured.info, dict(configured.options)
    split(options, info)
    room = defaults.context_length - prompt_length
    eos = _token_ids(options.get("eos_token_id"), defaults)
    max_new = _max_new_tokens(options.get("max_new_tokens"), prompt_length, room, defaults)
    stop = _stop_strings(options.get("stop_strings"), defaults)
    chain = _chain(configured, options, defaults, eos, max_new, prompt_length)
    seed = options.get("seed")
    do_sample = info.do_sample and options.get("temperature") != 0
    return Options(
        Limits(max_new, frozenset(eos), stop),
        chain,
        do_sample,
        secrets.randbits(63) if seed is None else _integer("seed", seed),
        _at_least_one("num_return_sequences", options.get("num_return_sequences")),
        _gumbel(options, info),
        drafting(options, info),
        *constraining(options),
        _flag(options, "heal", default=False),
    )


def drafting(options: Mapping[str, Any], info: StrategyInfo) -> Drafting | None:
    """The drafter that `options` name, with its settings.

    Raises:
        ParameterError: an unknown drafter or value, settings without a drafter, a strategy without spans to draft.
    """
    draft = options.get("draft")
    if draft is None:
        for name in _DRAFTING:
            if options.get(name) is not None:
                raise ParameterError(f"{name}={options[name]!r}: has no effect without draft=; leave it out")
        return None
    if not isinstance(draft, str | ConfiguredDrafter):
        raise ParameterError(f"draft={draft!r}: give a name such as 'prompt_lookup' or 'prompt_lookup:k=8'")
    chosen = parse(draft) if isinstance(draft, str) else draft
    if not info.drafts:
        raise ParameterError(
            f"draft={draft!r}: strategy {info.name!r} looks at several tokens of every step, so a draft would save "
            "nothing; leave draft out or use a strategy that generates spans, such as 'greedy' or 'sample'"
        )
    verification: Verification = options.get("verification") or "match"
    if verification not in ("match", "rejection"):
        raise ParameterError(f"verification={verification!r}: choose match or rejection")
    if verification == "rejection" and not info.do_sample:
        raise ParameterError(
            f"verification='rejection': strategy {info.name!r} draws nothing, its drafts are matched; leave it out"
        )
    governor = options.get("governor")
    if governor is not None and not isinstance(governor, bool):
        raise ParameterError(f"governor={governor!r}: true or false is wanted")
    rows = options.get("draft_rows")
    rows = DEFAULT_DRAFT_ROWS if rows is None else _integer("draft_rows", rows)
    if rows < 1:
        raise ParameterError(f"draft_rows={rows}: must be at least 1; leave draft out to decode plainly")
    # By rejection the text depends on what was drafted, which must then not depend on measured times.
    return Drafting(chosen, rows, verification, verification == "match" if governor is None else governor)


def constraining(options: Mapping[str, Any]) -> tuple[Source | None, Tokenization, bool]:
    """The constraint's source, the spellings it allows, and whether it closes texts in time.

    Raises:
        ParameterError: something else than a source, or a setting without a constraint.
    """
    given, tokenization = options.get("constraint"), options.get("tokenization")
    if tokenization is not None and tokenization not in ("any", "canonical"):
        raise ParameterError(f"tokenization={tokenization!r}: choose any or canonical")
    close = _flag(options, "close", default=True)
    if given is None:
        for name in ("tokenization", "close"):
            if options.get(name) is not None:
                raise ParameterError(f"{name}={options[name]!r}: has no effect without constraint=; leave it out")
        return None, "any", False
    return as_source(given), tokenization or "any", close


def _flag(options: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = options.get(name)
    if value is not None and not isinstance(value, bool):
        raise ParameterError(f"{name}={value!r}: true or false is wanted")
    return default if value is None else value


def _gumbel(options: Mapping[str, Any], info: StrategyInfo) -> bool:
    noise = options.get("noise") or "uniform"
    if noise not in ("uniform", "gumbel"):
        raise ParameterError(f"noise={noise!r}: choose uniform or gumbel")
    if noise == "gumbel" and not info.do_sample:
        raise ParameterError(f"noise='gumbel': strategy {info.name!r} draws nothing; leave it out")
    return bool(noise == "gumbel")


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ParameterError(f"{name}={value!r}: an integer is wanted")
    return operator.index(value)


def _at_least_one(name: str, value: object) -> int:
    number = 1 if value is None else _integer(name, value)
    if number < 1:
        raise ParameterError(f"{name}={value!r}: must be at least 1")
    return number


def _max_new_tokens(value: object, prompt_length: int, room: int, defaults: Defaults) -> int:
    if room < 1:
        raise CapacityError(
            f"the prompt has {prompt_length} tokens, the model's context {defaults.context_length}; shorten the prompt"
        )
    if value is None:
        return min(DEFAULT_NEW_TOKENS, room)
    wanted = _at_least_one("max_new_tokens", value)
    if wanted > room:
        raise CapacityError(
            f"max_new_tokens={wanted}: prompt ({prompt_length} tokens) and answer exceed the context of "
            f"{defaults.context_length}; at most {room} are left"
        )
    return wanted


def _token_ids(value: object, defaults: Defaults) -> tuple[int, ...]:
    if value is None:
        return defaults.eos_token_ids
    ids = tuple(_integer("eos_token_id", v) for v in (value if isinstance(value, list | tuple | set) else [value]))
    for token in ids:
        if not 0 <= token < defaults.vocab_size:
            raise ParameterError(f"eos_token_id={token}: the vocabulary has ids 0 to {defaults.vocab_size - 1}")
    return ids


def _stop_strings(value: object, defaults: Defaults) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, list | tuple) or not all(isinstance(s, str) and s for s in strings):
        raise ParameterError(f"stop_strings={value!r}: a non-empty string or a list of them is wanted")
    if strings and defaults.tokenizer is None:
        raise ParameterError(f"stop_strings={value!r}: the checkpoint has no tokenizer; stop at eos_token_id instead")
    return tuple(strings)


def _check_named_tokens(given: Mapping[str, Any], vocab_size: int) -> None:
    """Refuse token ids beyond the vocabulary; the processors would do so only at the first token."""
    for name in _TOKEN_PARAMETERS & given.keys():
        for item in PARAMETERS[name].check(given[name]):  # type: ignore[attr-defined]  # a tuple for each of them
            ids = item[0] if name.endswith("_bias") else item
            for token in ids if isinstance(ids, tuple) else (ids,):
                if token >= vocab_size:
                    raise ParameterError(f"{name}: token id {token} is outside the vocabulary (0 to {vocab_size - 1})")


def _check_minimum(given: Mapping[str, Any], max_new: int, prompt_length: int) -> None:
    """Refuse a minimal length that the maximal length cuts off."""
    for name, most in (("min_new_tokens", max_new), ("min_length", prompt_length + max_new)):
        if name in given and PARAMETERS[name].check(given[name]) > most:  # type: ignore[operator]  # both are integers
            raise ParameterError(
                f"{name}={given[name]!r}: max_new_tokens={max_new} ends the text before; raise it, or lower {name}"
            )


def _chain(
    configured: Configured,
    options: Mapping[str, Any],
    defaults: Defaults,
    eos: Sequence[int],
    max_new: int,
    prompt_length: int,
) -> Chain | None:
    given = {name: options[name] for name in options if name in PARAMETERS and options[name] is not None}
    _check_named_tokens(given, defaults.vocab_size)
    _check_minimum(given, max_new, prompt_length)
    chain = build_chain(
        given,
        options.get("preset") or "transformers",
        order=options.get("processor_order"),
        tokenizer=defaults.plain_text,
        eos_ids=sorted(eos),
        max_length=prompt_length + max_new,
        max_new_tokens=max_new,
    )
    if not configured.info.do_sample:
        shaping = [p.describe() for p in chain.processors if p.sampling]
        if shaping:
            raise ParameterError(
                f"strategy {configured.info.name!r} does not sample, so {shaping[0]} would have no effect; "
                "leave it out or use strategy='sample'"
            )
    elif options.get("temperature") == 0:
        chain = chain.deterministic
    return chain or None
