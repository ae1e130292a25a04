"""Refusals that several strategies share; each names the value, the reason and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.errors import ParameterError

if TYPE_CHECKING:
    from treille.strategy import Run


def at_least(minimum: int, **values: int) -> None:
    """Refuse a count below `minimum`."""
    for name, value in values.items():
        if value < minimum:
            raise ParameterError(f"{name}={value!r} is too small; it must be at least {minimum}")


def returns(run: Run, strategy: str, most: int, why: str) -> None:
    """Refuse more candidates than the strategy has to give."""
    if run.num_return_sequences > most:
        raise ParameterError(
            f"num_return_sequences={run.num_return_sequences}: {strategy} returns at most {most}; {why}"
        )


def deterministic(run: Run, strategy: str) -> None:
    """Refuse `do_sample=True` for a strategy that draws nothing."""
    if run.do_sample:
        raise ParameterError(f"do_sample=True: {strategy} draws no tokens; leave it out, or use strategy='sample'")


def sampling(run: Run, strategy: str) -> None:
    """Refuse `do_sample=False` (also meant by temperature 0) where all branches would then be the same text."""
    if not run.do_sample:
        raise ParameterError(
            f"do_sample=False (or temperature=0): all texts of {strategy} would be the same; use strategy='greedy'"
        )


def texts(run: Run, what: str) -> None:
    """Refuse what reads texts where there is no tokenizer."""
    if run.codec is None:
        raise ParameterError(f"{what} reads texts, but the checkpoint has no tokenizer; add a tokenizer.json")
