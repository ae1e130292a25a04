"""The table of sampling parameters: names, types, neutral values, allowed ranges, help.

Names are those of Hugging Face's ``GenerationConfig`` where one exists; the others are llama.cpp's or, for frequency
and presence, those that every server uses.
"""

import difflib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from treille.errors import ParameterError
from treille.sampling.processors import SMALLEST_TEMPERATURE

Parse = Callable[[object], object]
"""The checked value; raises ``ValueError`` with the reason."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One sampling parameter.

    Attributes:
        name: the keyword.
        type: for help texts.
        neutral: the default; it adds no processor (``None`` where the preset chooses).
        allowed: the range in words.
        help: one line.
        processor: the name in the order of a chain.
        parse: the checked value of an argument.
        needs: one of these must be set away from its neutral value for this one to have an effect.
    """

    name: str
    type: str
    neutral: object
    allowed: str
    help: str
    processor: str
    parse: Parse
    needs: tuple[str, ...] = ()

    def check(self, value: object) -> object:
        """The checked value; ``None`` stands for the neutral one.

        Raises:
            ParameterError: the value is not allowed.
        """
        if value is None:
            return self.neutral
        try:
            return self.parse(value)
        except (TypeError, ValueError, OverflowError) as error:
            way_out = f"give {self.type} ({self.allowed}), or {self.neutral!r} to leave it out"
            raise ParameterError(f"{self.name}={value!r}: {error}; {way_out}") from error


def _real(value: object) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise TypeError("is not a number")
    number = float(value)
    if math.isnan(number):
        raise ValueError("is not a number")
    return number


def _whole(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError("is not an integer")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError("is not an integer") from None


def _items(value: object) -> list[object]:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray | set | frozenset):
        raise TypeError("is not a list")
    return list(value)


def number(
    low: float, high: float = math.inf, *, above: bool = False, below: bool = False, also: float = math.nan
) -> Parse:
    """Checks ``low <= x <= high``; ``above`` and ``below`` exclude the bounds, ``also`` is allowed besides."""

    def parse(value: object) -> float:
        x = _real(value)
        low_ok = x > low if above else x >= low
        high_ok = x < high if below or math.isinf(high) else x <= high
        if not (low_ok and high_ok) and x != also:
            raise ValueError("is out of range")
        return x

    return parse


def whole(low: int) -> Parse:
    """Checks an integer ``>= low``."""

    def parse(value: object) -> int:
        x = _whole(value)
        if x < low:
            raise ValueError("is out of range")
        return x

    return parse


def _window(value: object) -> int:
    n = whole(-1)(value)
    assert isinstance(n, int)
    if n == 0:
        raise ValueError("would look at no token and so switch the penalty off; leave the penalty itself out instead")
    return n


def _temperature(value: object) -> float:
    x = _real(value)
    if x != 0 and not SMALLEST_TEMPERATURE <= x < math.inf:
        raise ValueError("is negative, infinite, or too small to divide by")
    return x


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("is neither True nor False")
    return value


def _choice(*allowed: str) -> Parse:
    def parse(value: object) -> object:
        if value not in allowed:
            raise ValueError("is not known")
        return value

    return parse


def token_ids(value: object) -> tuple[int, ...]:
    """A tuple of token ids from one id or a list of them."""
    ids = tuple(_whole(x) for x in _items(value)) if not isinstance(value, int) else (_whole(value),)
    if any(token < 0 for token in ids):
        raise ValueError("holds a negative token id")
    return ids


def _sequence(value: object) -> tuple[int, ...]:
    ids = token_ids(_items(value))
    if not ids:
        raise ValueError("holds an empty sequence of token ids")
    return ids


def _bias(value: object) -> float:
    x = _real(value)
    if x == math.inf:
        raise ValueError("holds an infinite bias; give a large one")
    return x


def _sequences(value: object) -> tuple[tuple[int, ...], ...]:
    return tuple(dict.fromkeys(_sequence(x) for x in _items(value)))


def _token_biases(value: object) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, Mapping):
        raise TypeError("is not a mapping from token id to bias")
    return tuple((token_ids([token])[0], _bias(bias)) for token, bias in value.items())


def _sequence_biases(value: object) -> tuple[tuple[tuple[int, ...], float], ...]:
    pairs = value.items() if isinstance(value, Mapping) else [tuple(_items(pair)) for pair in _items(value)]
    return tuple({_sequence(ids): _bias(bias) for ids, bias in pairs}.items())


def _decay(value: object) -> tuple[int, float]:
    start, factor = _items(value)
    checked = whole(0)(start), number(0.0, above=True)(factor)
    assert isinstance(checked[0], int)
    assert isinstance(checked[1], float)
    return checked[0], checked[1]


def _functions(value: object) -> tuple[object, ...]:
    functions = (value,) if callable(value) else tuple(_items(value))
    if not all(callable(f) for f in functions):
        raise TypeError("is not a function (path, logits [V]) -> logits [V], nor a list of them")
    return functions


def _breakers(value: object) -> tuple[object, ...]:
    checked = tuple(x if isinstance(x, str) else _sequence(x) for x in _items(value))
    if "" in checked:
        raise ValueError("holds an empty string")
    return checked


_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
_DRY = ("dry_multiplier",)

_TABLE = (
    Parameter(
        "temperature", "float", 1.0, "0 (greedy), or at least 1e-6", "divides the logits", "temperature", _temperature,
    ),
    Parameter(
        "dynatemp_range", "float", 0.0, ">= 0", "temperature follows the entropy, ± this much", "temperature",
        number(0.0),
    ),
    Parameter(
        "dynatemp_exponent", "float", 1.0, "> 0", "shape of the dynamic temperature", "temperature",
        number(0.0, above=True), ("dynatemp_range",),
    ),
    Parameter("top_k", "int", 0, ">= 1; 0 or -1 is off", "keeps the k best tokens", "top_k", whole(-1)),
    Parameter("top_p", "float", 1.0, "0 … 1", "keeps the smallest set of this mass", "top_p", number(0.0, 1.0)),
    Parameter("min_p", "float", 0.0, "0 … 1", "keeps tokens this probable next to the best", "min_p", number(0.0, 1.0)),
    Parameter(
        "typical_p", "float", 1.0, "above 0, up to 1", "keeps the locally typical set of this mass", "typical_p",
        number(0.0, 1.0, above=True),
    ),
    Parameter(
        "epsilon_cutoff", "float", 0.0, "0, up to below 1", "keeps tokens of at least this probability",
        "epsilon_cutoff", number(0.0, 1.0, below=True),
    ),
    Parameter(
        "eta_cutoff", "float", 0.0, "0, up to below 1", "like epsilon, lowered where the entropy is high", "eta_cutoff",
        number(0.0, 1.0, below=True),
    ),
    Parameter(
        "top_n_sigma", "float", -1.0, "above 0; 0 or -1 is off", "keeps logits within n deviations of the best",
        "top_n_sigma", number(0.0, also=-1.0),
    ),
    Parameter(
        "top_h", "float", None, "above 0, up to 1", "keeps the best tokens up to this share of the entropy", "top_h",
        number(0.0, 1.0, above=True),
    ),
    Parameter("xtc_probability", "float", 0.0, "0 … 1", "how often the top choices go", "xtc", number(0.0, 1.0)),
    Parameter(
        "xtc_threshold", "float", 0.1, "0 … 0.5; above that XTC could never act", "what a top choice is", "xtc",
        number(0.0, 0.5), ("xtc_probability",),
    ),
    Parameter(
        "repetition_penalty", "float", 1.0, "> 0", "scales the logits of seen tokens", "repetition_penalty",
        number(0.0, above=True),
    ),
    Parameter(
        "frequency_penalty", "float", 0.0, "-2 … 2", "subtracted per occurrence", "frequency_penalty", number(-2.0, 2.0)
    ),
    Parameter(
        "presence_penalty", "float", 0.0, "-2 … 2", "subtracted once from seen tokens", "presence_penalty",
        number(-2.0, 2.0),
    ),
    Parameter(
        "penalty_last_n", "int", None, ">= 1; -1 is all", "tokens that the penalties look back", "repetition_penalty",
        _window, _PENALTIES,
    ),
    Parameter(
        "penalty_scope", "str", None, "'path' (prompt and output) or 'output'", "what the penalties look at",
        "repetition_penalty", _choice("path", "output"), _PENALTIES,
    ),
    Parameter("dry_multiplier", "float", 0.0, ">= 0", "strength of DRY", "dry", number(0.0)),
    Parameter("dry_base", "float", 1.75, ">= 1", "growth per repeated token", "dry", number(1.0), _DRY),
    Parameter("dry_allowed_length", "int", 2, ">= 0", "tokens that may repeat freely", "dry", whole(0), _DRY),
    Parameter("dry_penalty_last_n", "int", None, ">= 1; -1 is all", "tokens that DRY looks back", "dry", _window, _DRY),
    Parameter(
        "dry_sequence_breakers", "list of str or of token id lists", ("\n", ":", '"', "*"), "no empty one",
        "what a repetition may not cross", "dry", _breakers, _DRY,
    ),
    Parameter(
        "logit_bias", "dict[int, float]", None, "biases below inf", "added to tokens", "logit_bias", _token_biases,
    ),
    Parameter(
        "sequence_bias", "dict[tuple[int, ...], float]", None, "biases below inf", "added to a sequence's last token",
        "sequence_bias", _sequence_biases,
    ),
    Parameter("bad_words_ids", "list[list[int]]", None, "no empty one", "never generated", "bad_words_ids", _sequences),
    Parameter(
        "no_repeat_ngram_size", "int", 0, ">= 0", "no n-gram occurs twice", "no_repeat_ngram_size", whole(0)
    ),
    Parameter("min_length", "int", 0, ">= 0", "tokens of prompt and output before the end", "min_length", whole(0)),
    Parameter("min_new_tokens", "int", 0, ">= 0", "tokens of output before the end", "min_new_tokens", whole(0)),
    Parameter(
        "forced_eos_token_id", "int or list[int]", None, "token ids", "ends the longest allowed output",
        "forced_eos_token_id", token_ids,
    ),
    Parameter(
        "exponential_decay_length_penalty", "(int, float)", None, "start >= 0, factor > 0",
        "raises the end token after `start` tokens", "exponential_decay_length_penalty", _decay,
    ),
    Parameter("suppress_tokens", "list[int]", None, "token ids", "never generated", "suppress_tokens", token_ids),
    Parameter(
        "begin_suppress_tokens", "list[int]", None, "token ids", "never first in the output", "begin_suppress_tokens",
        token_ids,
    ),
    Parameter(
        "remove_invalid_values", "bool", False, "True or False", "replaces NaN and infinity", "remove_invalid_values",
        _flag,
    ),
    Parameter("renormalize_logits", "bool", False, "True or False", "log-softmax last", "renormalize_logits", _flag),
    Parameter(
        "logits_processor", "function or list of functions", None, "(path, logits [V]) -> logits [V]", "your own",
        "logits_processor", _functions,
    ),
)  # fmt: skip

PARAMETERS: dict[str, Parameter] = {p.name: p for p in _TABLE}
"""Every sampling parameter by name."""


def check_parameters(given: Mapping[str, object]) -> dict[str, object]:
    """The value of every parameter, neutral where it was not given.

    Raises:
        ParameterError: an unknown name, a value out of range, or one that nothing would use.
    """
    for name in given:
        if name not in PARAMETERS:
            near = difflib.get_close_matches(name, PARAMETERS, n=1)
            way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join(PARAMETERS)}"
            raise ParameterError(f"{name}={given[name]!r}: there is no such sampling parameter; {way_out}")
    values = {name: parameter.check(given.get(name)) for name, parameter in PARAMETERS.items()}
    for name in given:
        needs = PARAMETERS[name].needs
        if needs and values[name] != PARAMETERS[name].neutral and not any(is_active(other, values) for other in needs):
            raise ParameterError(
                f"{name}={given[name]!r}: has no effect alone; set {' or '.join(needs)}, or leave it out"
            )
    return values


def is_active(name: str, values: Mapping[str, object]) -> bool:
    """Whether a parameter's checked value asks for a processor."""
    value = values[name]
    if name in {"top_k", "top_n_sigma"}:
        return isinstance(value, int | float) and value > 0
    return value is not None and value != PARAMETERS[name].neutral and value != ()
