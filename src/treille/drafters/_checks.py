"""Checks of drafters' parameters beyond their types: the value, the reason, the way out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence


def at_least(least: float, **given: float) -> None:
    """Refuse values below `least`, and what is no finite number."""
    for name, value in given.items():
        if not value >= least:
            raise ParameterError(f"draft: {name}={value!r}: must be at least {least}")
        if math.isinf(value):
            raise ParameterError(f"draft: {name}={value!r}: must be finite")


def between(least: float, most: float, **given: float) -> None:
    """Refuse values outside `least … most`."""
    for name, value in given.items():
        if not least <= value <= most:
            raise ParameterError(f"draft: {name}={value!r}: must be between {least} and {most}")


def one_of(known: Sequence[Any], **given: Any) -> None:
    """Refuse values that are not among `known`."""
    for name, value in given.items():
        if value not in known:
            raise ParameterError(f"draft: {name}={value!r}: choose one of {', '.join(map(str, known))}")
