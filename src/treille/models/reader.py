"""Reads a checkpoint's ``config.json`` without guessing: each value is checked, each refusal names file and key."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from treille.errors import CheckpointError

T = TypeVar("T")

# Keys that change the mathematics in some family, with the values that change nothing. A family that understands a key
# reads it; a key of this list that nobody read and that is not neutral is refused.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "add_cross_attention": (False,),
    "alibi": (False,),
    "attention_bias": (None, False),
    "attention_chunk_size": (None,),
    "attention_multiplier": (None,),
    "attention_out_bias": (False,),
    "attn_logit_softcapping": (None,),
    "attn_temperature_tuning": (None, False),
    "clip_qkv": (None,),
    "dual_chunk_attention_config": (None,),
    "embedding_multiplier": (None, 1.0),
    "final_logit_softcapping": (None,),
    "is_encoder_decoder": (False,),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "mlp_bias": (None, False),
    "mlp_only_layers": (None, []),
    "no_rope_layers": (None, []),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "partial_rotary_factor": (None, 1.0),
    "pretraining_tp": (None, 1),
    "qk_layernorm": (False,),
    "quantization_config": (None,),
    "query_pre_attn_scalar": (None,),
    "residual_multiplier": (None, 1.0),
    "rope_interleaved": (None, False),
    "rope_local_base_freq": (None,),
    "rotary_pct": (None, 1.0),
    "sliding_window": (None,),
    "use_bidirectional_attention": (None, False),
    "use_parallel_residual": (False,),
    "use_qk_norm": (None, False),
    "use_sliding_window": (None, False),
}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        CheckpointError: The file is missing, is not JSON, or is not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a checkpoint directory needs it") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}); download or save it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds {type(value).__name__}, must be a JSON object")
    return value


class ConfigReader:
    """Typed access to one JSON object of a configuration; remembers which keys were read.

    Args:
        values: The object.
        where: File, and path inside it, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where
        self._read: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null; counts as reading it."""
        self._read.add(key)
        return self.values.get(key) is not None

    def integer(self, key: str, missing: int | None = None) -> int:
        """A positive integer; `missing` is what the file format says that an absent key means."""
        value = self._value(key, missing)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refusal(key, "must be a positive integer")
        return value

    def number(self, key: str, missing: float | None = None) -> float:
        """A finite number."""
        value = self._value(key, missing)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refusal(key, "must be a finite number")
        return float(value)

    def positive(self, key: str, missing: float | None = None) -> float:
        """A number above zero."""
        value = self.number(key, missing)
        if value <= 0:
            raise self.refusal(key, "must be above zero")
        return value

    def flag(self, key: str, missing: bool | None = None) -> bool:
        """A truth value."""
        value = self._value(key, missing)
        if not isinstance(value, bool):
            raise self.refusal(key, "must be true or false")
        return value

    def optional_integer(self, key: str) -> int | None:
        """A positive integer, or None where the key is absent or null."""
        return self.integer(key) if self.has(key) else None

    def optional_positive(self, key: str) -> float | None:
        """A number above zero, or None where the key is absent or null."""
        return self.positive(key) if self.has(key) else None

    def choice(self, key: str, choices: Mapping[str, T], missing: str | None = None) -> T:
        """What `choices` says about the key's text."""
        value = self._value(key, missing)
        if not isinstance(value, str) or value not in choices:
            raise self.refusal(key, f"is not supported; supported: {', '.join(choices)}")
        return choices[value]

    def sequence(self, key: str, element: type[T]) -> list[T]:
        """A list whose elements are all of one type."""
        value = self._value(key, None)
        if not isinstance(value, list) or not all(isinstance(item, element) for item in value):
            raise self.refusal(key, f"must be a list of {element.__name__}")
        return cast("list[T]", value)

    def numbers(self, key: str) -> list[float]:
        """A list of finite numbers above zero."""
        value = self._value(key, None)
        if not isinstance(value, list) or not value:
            raise self.refusal(key, "must be a list of numbers")
        items = ConfigReader({f"{key}[{index}]": item for index, item in enumerate(value)}, self.where)
        return [items.positive(name) for name in items.values]

    def section(self, key: str, defaults: Mapping[str, Any] | None = None) -> "ConfigReader":
        """A nested object, over the values that the file format defines for its absent keys."""
        value = self._value(key, None)
        if not isinstance(value, dict):
            raise self.refusal(key, "must be a JSON object")
        return ConfigReader({**(defaults or {}), **value}, f"{self.where}: {key}")

    def refusal(self, key: str, reason: str) -> CheckpointError:
        """The error that refuses the key's value."""
        return CheckpointError(f"{self.where}: {key} = {json.dumps(self.values.get(key))} {reason}")

    def refuse_unread(self) -> None:
        """Returns only if no key that changes the mathematics was left unread.

        Raises:
            CheckpointError: There is one; the message names key and value.
        """
        for key, neutral in _NEUTRAL.items():
            if key in self.values and key not in self._read and self.values[key] not in neutral:
                raise self.refusal(key, "is not supported for this architecture")

    def refuse_others(self, known: set[str]) -> None:
        """Returns only if the object has no other keys than `known`.

        Raises:
            CheckpointError: There is one; the message names key and value.
        """
        for key in self.values:
            if key not in known:
                raise self.refusal(key, f"is not supported here; supported: {', '.join(sorted(known))}")

    def _value(self, key: str, missing: object) -> object:
        self._read.add(key)
        value = self.values.get(key)
        if value is None:
            value = missing
        if value is None:
            raise CheckpointError(f"{self.where}: {key} is missing; the architecture needs it")
        return value
