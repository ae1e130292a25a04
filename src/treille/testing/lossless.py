"""Equality of output laws."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from treille.testing.enumerate import enumerate_outputs

if TYPE_CHECKING:
    from treille.testing.alone import Driven, Models

SHOWN = 10
"""Differences shown when two laws are not equal."""


def assert_lossless(
    strategy: Driven, reference: Driven | Mapping[Any, Fraction], model: Models, **arguments: Any
) -> dict[Any, Fraction]:
    """The law of `strategy`, which is exactly that of `reference`: whole texts, hence jointly over all steps.

    Args:
        strategy: what is to be proved.
        reference: a strategy, or a law.
        model: as for `run_alone`.
        arguments: for `enumerate_outputs`, the same for both.

    Raises:
        AssertionError: the laws differ; shows the largest differences first.
    """
    law = enumerate_outputs(strategy, model, **arguments)
    wanted = reference if isinstance(reference, Mapping) else enumerate_outputs(reference, model, **arguments)
    if difference := describe_difference(law, wanted):
        raise AssertionError(difference)
    return law


def describe_difference(law: Mapping[Any, Fraction], wanted: Mapping[Any, Fraction]) -> str:
    """The largest differences of two laws, one line each, after their total variation; empty if they are equal."""
    gaps = {output: law.get(output, Fraction(0)) - wanted.get(output, Fraction(0)) for output in {**wanted, **law}}
    wrong = sorted((output for output, gap in gaps.items() if gap), key=lambda output: -abs(gaps[output]))
    if not wrong:
        return ""
    variation = float(sum(abs(gap) for gap in gaps.values()) / 2)
    lines = [f"the laws differ in {len(wrong)} of {len(gaps)} outputs, total variation {variation:.3g}"]
    for output in wrong[:SHOWN]:
        has, wants = law.get(output, Fraction(0)), wanted.get(output, Fraction(0))
        lines.append(f"  {output}: {_show(has)}, should be {_show(wants)}")
    if len(wrong) > SHOWN:
        lines.append(f"  … {len(wrong) - SHOWN} more")
    return "\n".join(lines)


def _show(p: Fraction) -> str:
    return f"{p} ({float(p):.6g})" if p.denominator < 10**6 else f"{float(p):.12g}"
