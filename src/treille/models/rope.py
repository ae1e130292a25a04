"""Rotary embeddings: reads what ``config.json`` says about them, and computes the rotation of the rows of a forward.

Two formats are read: ``rope_theta`` and ``rope_scaling`` at the top level, and the newer ``rope_parameters`` object.
Papers: RoPE (arXiv 2104.09864), YaRN (2309.00071), LongRoPE (2402.13753); "llama3" is the Llama 3.1 release's rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from treille.models.config import Rope
from treille.models.reader import ConfigReader

_NAMES = {
    "default": "default",
    "linear": "linear",
    "llama3": "llama3",
    "yarn": "yarn",
    "longrope": "longrope",
    "su": "longrope",
    "dynamic": "dynamic",
}
_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


@dataclass(frozen=True, slots=True)
class RopeContext:
    """What the rules need besides the rope's own keys.

    Attributes:
        head_dim: D.
        max_positions: ``max_position_embeddings``.
        original_positions: The length before scaling, where the configuration names it outside the rope's object;
            then it has priority.
    """

    head_dim: int
    max_positions: int
    original_positions: int | None = None


@dataclass(frozen=True, slots=True)
class Rotary:
    """The rotation of each row of one forward.

    Attributes:
        cos: [R, rotated / 2] float32, magnitude included.
        sin: [R, rotated / 2] float32, magnitude included.
    """

    cos: Tensor
    sin: Tensor


def rotary(frequencies: Tensor, magnitude: float, positions: Tensor) -> Rotary:
    """The rotation at each row's position.

    Args:
        frequencies: [rotated / 2] float32.
        magnitude: Factor of cosine and sine.
        positions: [R] int64.
    """
    angles = positions.to(torch.float32).unsqueeze(1) * frequencies
    cos, sin = angles.cos(), angles.sin()
    if magnitude != 1.0:
        cos, sin = cos * magnitude, sin * magnitude
    return Rotary(cos, sin)


def rotate(x: Tensor, by: Rotary) -> Tensor:
    """The heads of each row, rotated in float32; dimensions beyond the rotated ones are as they were.

    Args:
        x: [R, heads, D], any float dtype, which the result has too.
        by: The rows' rotations.
    """
    half = by.cos.shape[1]
    cos, sin = by.cos.unsqueeze(1), by.sin.unsqueeze(1)
    first, second = x[..., :half].float(), x[..., half : 2 * half].float()
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
    return rotated if 2 * half == x.shape[-1] else torch.cat((rotated, x[..., 2 * half :]), dim=-1)


def read_rope(reader: ConfigReader, context: RopeContext, *, theta: float | None, partial: float = 1.0) -> Rope:
    """The rotary embedding of a configuration with one for all its layers.

    Args:
        reader: The configuration.
        context: Sizes that the rules need.
        theta: What an absent ``rope_theta`` means in this family; None where the key is required.
        partial: What an absent ``partial_rotary_factor`` means in this family.

    Raises:
        CheckpointError: A key is missing, has a wrong value, contradicts another, or is not supported.
    """
    return read_rope_object(merged_rope(reader), context, theta=theta, partial=partial)


def merged_rope(
    reader: ConfigReader, theta_key: str = "rope_theta", partial_key: str = "partial_rotary_factor"
) -> ConfigReader:
    """The rope's keys in one object, whichever of the two formats the configuration has.

    Raises:
        CheckpointError: Both formats are there and contradict each other.
    """
    sections = [reader.section(key) for key in ("rope_parameters", "rope_scaling") if reader.has(key)]
    found: dict[str, object] = {}
    if len(sections) == 2 and dict(sections[0].values) != dict(sections[1].values):
        raise reader.refusal("rope_scaling", "contradicts rope_parameters; keep one of them")
    if sections:
        found.update(sections[0].values)
    for outer, inner in ((theta_key, "rope_theta"), (partial_key, "partial_rotary_factor")):
        if reader.has(outer) and found.setdefault(inner, reader.values[outer]) != reader.values[outer]:
            raise reader.refusal(outer, f"contradicts {inner} = {found[inner]} of the rope's own object")
    return ConfigReader(found, sections[0].where if sections else reader.where)


def read_rope_object(reader: ConfigReader, context: RopeContext, *, theta: float | None, partial: float = 1.0) -> Rope:
    """The rotary embedding that one rope object describes; arguments and errors as in `read_rope`."""
    kind = reader.choice("rope_type", _NAMES, missing=reader.choice("type", _NAMES, missing="default"))
    base = reader.positive("rope_theta", missing=theta)
    rotated = int(context.head_dim * reader.positive("partial_rotary_factor", missing=partial))
    if rotated % 2 or not 0 < rotated <= context.head_dim:
        raise reader.refusal(
            "partial_rotary_factor", f"rotates {rotated} of {context.head_dim} dimensions; must be even"
        )
    reader = ConfigReader({**reader.values, "rope_theta": base}, reader.where)
    inverse = 1.0 / (base ** (torch.arange(0, rotated, 2, dtype=torch.float32) / rotated))
    if kind == "longrope":
        return _longrope(reader, context, inverse, base)
    frequencies, magnitude = _RULES[kind](reader, context, inverse)
    return Rope(kind, base, tuple(frequencies.tolist()), magnitude)


def _original_length(reader: ConfigReader, context: RopeContext) -> int:
    """The length before scaling; the format says that an absent key means max_position_embeddings."""
    inside = reader.integer("original_max_position_embeddings", missing=context.max_positions)
    return context.original_positions or inside


def _default(reader: ConfigReader, _: RopeContext, inverse: Tensor) -> tuple[Tensor, float]:
    # Some checkpoints keep the length of the default rope in the object; it changes nothing.
    reader.refuse_others(_COMMON | {"original_max_position_embeddings"})
    return inverse, 1.0


def _dynamic(reader: ConfigReader, _: RopeContext, inverse: Tensor) -> tuple[Tensor, float]:
    # Dynamic NTK scaling begins beyond max_position_embeddings, which is where the context length ends here: keys that
    # are already stored would have to be rotated anew.
    reader.refuse_others(_COMMON | {"factor", "original_max_position_embeddings"})
    reader.positive("factor")
    return inverse, 1.0


def _linear(reader: ConfigReader, _: RopeContext, inverse: Tensor) -> tuple[Tensor, float]:
    reader.refuse_others(_COMMON | {"factor"})
    return inverse / reader.positive("factor"), 1.0


def _llama3(reader: ConfigReader, context: RopeContext, inverse: Tensor) -> tuple[Tensor, float]:
    keys = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    reader.refuse_others(_COMMON | keys)
    factor, low, high = (reader.positive(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    length = _original_length(reader, context)
    if high <= low:
        raise reader.refusal("high_freq_factor", f"must be above low_freq_factor = {low}")
    # Turns within the original length: above `high` untouched, below `low` interpolated, linear in between.
    turns = length * inverse / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - keep) * inverse / factor + keep * inverse, 1.0


def _yarn(reader: ConfigReader, context: RopeContext, inverse: Tensor) -> tuple[Tensor, float]:
    keys = {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
    reader.refuse_others(_COMMON | keys | {"original_max_position_embeddings"})
    factor = reader.positive("factor")
    length, base = _original_length(reader, context), reader.positive("rope_theta")
    rotated = 2 * inverse.shape[0]

    def dimension(turns: float) -> float:
        return rotated * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = (
        dimension(reader.positive("beta_fast", missing=32.0)),
        dimension(reader.positive("beta_slow", missing=1.0)),
    )
    if reader.flag("truncate", missing=True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    ramp = (torch.arange(rotated // 2, dtype=torch.float32) - low) / (high - low if high != low else 0.001)
    interpolate = ramp.clamp(0.0, 1.0)
    return inverse / factor * interpolate + inverse * (1 - interpolate), _yarn_magnitude(reader, factor)


def _yarn_magnitude(reader: ConfigReader, factor: float) -> float:
    """YaRN's attention factor: given, or from `mscale` and `mscale_all_dim`, or from the paper's equation 22."""

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1.0 else 0.1 * scale * math.log(factor) + 1.0

    given = reader.optional_positive("attention_factor")
    if given is not None:
        return given
    top, bottom = (reader.number(key, missing=0.0) for key in ("mscale", "mscale_all_dim"))
    return magnitude(top) / magnitude(bottom) if top and bottom else magnitude(1.0)


def _longrope(reader: ConfigReader, context: RopeContext, inverse: Tensor, base: float) -> Rope:
    """LongRoPE: one set of frequencies up to the original length, another beyond it."""
    keys = {"factor", "attention_factor", "short_factor", "long_factor", "original_max_position_embeddings"}
    reader.refuse_others(_COMMON | keys)
    length = _original_length(reader, context)
    factor = reader.optional_positive("factor") or context.max_positions / length
    given = reader.optional_positive("attention_factor")
    magnitude = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(length))
    frequencies: list[tuple[float, ...]] = []
    for key in ("short_factor", "long_factor"):
        stretch = reader.numbers(key)
        if len(stretch) != inverse.shape[0]:
            raise reader.refusal(key, f"must hold {inverse.shape[0]} numbers, half of the rotated dimensions")
        powers = base ** (torch.arange(0, 2 * inverse.shape[0], 2, dtype=torch.float32) / (2 * inverse.shape[0]))
        frequencies.append(tuple((1.0 / (torch.tensor(stretch, dtype=torch.float32) * powers)).tolist()))
    return Rope("longrope", base, frequencies[0], magnitude if given is None else given, frequencies[1], length)


_RULES: dict[str, Callable[[ConfigReader, RopeContext, Tensor], tuple[Tensor, float]]] = {
    "default": _default,
    "dynamic": _dynamic,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
