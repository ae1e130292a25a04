"""Constraints for answers of the tasks: what a question says about their shape, and nothing that it does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from treille.constraints.choices import choices
from treille.constraints.json_schema import json_schema
from treille.constraints.regex import regex
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from treille.constraints.base import Source
    from treille.train.tasks import Example

SPAN = 3  # words of an extracted span at the most


def shape(example: Example) -> Source:
    """The constraint that holds the answer of a question to its shape.

    Raises:
        ParameterError: the task's answers have no shape that the question tells.
    """
    if example.task not in SHAPES:
        raise ParameterError(
            f"--constraint=task: answers of {example.task} have no shape that its questions tell; those of "
            f"{', '.join(SHAPES)} do"
        )
    return SHAPES[example.task](example)


def _question(example: Example) -> str:
    return example.messages[-1]["content"]


def _json(example: Example) -> Source:
    """The schema that the question describes in words; a blank at most between its parts."""
    return json_schema(example.data["schema"], whitespace=1)


def _arithmetic(example: Example) -> Source:
    """A line per operation, and the line of the answer; any numbers."""
    count = len(re.findall(r" [-+*] ", _question(example)))
    return regex(rf"(-?[0-9]{{1,6}} [-+*] [0-9]{{1,6}} = -?[0-9]{{1,6}}\n){{{count}}}answer: -?[0-9]{{1,6}}")


def _countdown(example: Example) -> Source:
    """A line per step, one fewer than there are numbers; any numbers."""
    steps = _question(example).count(",")
    step = r"[0-9]{1,6} [-+*] [0-9]{1,6} = [0-9]{1,6}, left( [0-9]{1,6})"
    # After each step one number fewer is left.
    return regex(r"\n".join(f"{step}{{{left}}}" for left in range(steps, 0, -1)))


def _lists(example: Example) -> Source:
    """Items of the list or of the operation, each any number of times, at least one."""
    operation, _, items = _question(example).partition(": ")
    return regex(_separated({*items.split(", "), *re.findall(r"(?:with|Insert|Append) (\w+)", operation)}) + "*")


def _extract(example: Example) -> Source:
    """A few successive words of a sentence of the passage, which is where the chat begins."""
    passage = example.messages[0]["content"].rpartition(". ")[0]
    sentences = [sentence.split() for sentence in passage.split(". ")]
    spans = (words[i:j] for words in sentences for i in range(len(words)) for j in range(i + 1, i + 1 + SPAN))
    return choices(" ".join(span) for span in spans)


def _recommend(example: Example) -> Source:
    """As many items of the catalogue as are asked for."""
    found = re.search(r"Catalogue: (.*?)\. .* Recommend (\d*)", _question(example))
    assert found is not None, "a question has a catalogue"
    return regex(f"{_separated(found[1].split(', '))}{{{int(found[2] or 1) - 1}}}")


def _separated(items: Iterable[str]) -> str:
    """One item and then, in brackets that a repetition may follow, a comma and another."""
    one = f"({'|'.join(sorted(items))})"  # words and numbers: nothing to escape
    return f"{one}(, {one})"


SHAPES: dict[str, Callable[[Example], Source]] = {
    "json": _json,
    "arithmetic": _arithmetic,
    "countdown": _countdown,
    "lists": _lists,
    "extract": _extract,
    "recommend": _recommend,
}
