"""What the validator says: why a prefix is rejected, and who enforces which keyword."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

By = Literal["mask", "second layer", "annotation", "refused"]


@dataclass(frozen=True, slots=True)
class Violation:
    """No completion of the document so far satisfies the schema.

    Attributes:
        schema: the place of the schema that is violated, as `URI#pointer`; empty if the text is no JSON.
        keyword: its keyword; empty for the schema `false` and for text that is no JSON.
        instance: a JSON pointer to the value in the document.
        reason: what is wrong.
    """

    schema: str
    keyword: str
    instance: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.schema}/{self.keyword}" if self.keyword else self.schema or "JSON"
        return f"{place}: at {self.instance or 'the root'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Who enforces one keyword of one schema.

    Attributes:
        pointer: the schema's place, as `URI#pointer`.
        keyword: the keyword.
        by: `mask` (no token that violates it is offered), `second layer` (this validator), `annotation` (it asserts
            nothing) or `refused`.
        reason: why it is an annotation or refused; empty otherwise.
    """

    pointer: str
    keyword: str
    by: By
    reason: str = ""


def with_mask(report: Iterable[Enforcement], expressed: Callable[[Enforcement], bool]) -> list[Enforcement]:
    """The report in which `mask` enforces what `expressed` says that it does; annotations and refusals stay."""
    return [replace(entry, by="mask") if entry.by == "second layer" and expressed(entry) else entry for entry in report]


def needs_second_layer(report: Iterable[Enforcement]) -> bool:
    """Whether some keyword is enforced by this validator only, so that it has to run."""
    return any(entry.by == "second layer" for entry in report)
