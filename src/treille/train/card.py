"""The model card: what a model was made of, how, and what it can and cannot do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from treille.train.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.train.accuracy import Accuracy
    from treille.train.alignment import Acceptance
    from treille.train.recipe import Recipe

CARD = """---
license: psf-2.0
library_name: transformers
tags: [llama, code, python]
---
# {name}

A Llama of {parameters:,} parameters: {layers} layers, hidden size {hidden}, {heads} heads, {kv_heads} KV heads, MLP of
{intermediate}, tied embeddings, context {context:,}, bfloat16, byte-level BPE of {vocabulary:,} entries.{exits}
It exists so that decoding methods can be shown and tested offline, on questions whose answers a program can check.

## Data

{data}

No text of a held-out split was trained on; the splits are disjoint by construction.

## Training

{steps:,} steps of {tokens:,} tokens ({seen:,} in all), rows of {row} tokens{long_rows}.
Muon (rate {matrix_rate}) for the layers' matrices, AdamW (rate {rate}) for the rest; {warmup} steps of warm-up, then
constant rates, then a linear decay to zero over the last {decay:.0%}. Seed {seed}, {dtype}, torch {torch},
{minutes:.0f} minutes.
Recipe: `treille train model --config {config}`. The curve is in `loss.svg`.

Training loss, mean of the last hundred steps: {loss:.3f} nats per token.

| held-out loss, nats per token | {columns} |
|---|{rule}|
{losses}
{results}
## Use

Chat template: `<|user|>question<|assistant|>answer<|end|>`. Plain prompts such as `def ` are continued as Python.

## Limits

{limits} Do not use it for anything but trying decoding methods.

## Licence

The Python sources are those of the standard library: Python Software Foundation License Version 2, copyright the Python
Software Foundation and its contributors. The generated tasks and the weights add no further terms to it.
"""

MIXED = (
    "- Sources of the Python standard library, without its tests: windows of whole files, and single functions and\n"
    "  classes. One file in ten is held out.\n"
    "- Generated examples of {count} tasks:\n"
    "  {names}.\n"
    "  Tokens of the questions are predicted with a chance of {prompt:.0%}, those of the answers always. One question\n"
    "  in ten is held out."
)
ALIGNED = (
    "- {texts:,} texts that the target (run `{target}`) wrote itself, at temperatures {temperatures} (0 is greedy):\n"
    "  answers to training questions of {count} tasks and, for {python:.0%} of them, continuations of functions of\n"
    "  the Python standard library. The run starts from the weights of the run `{start}`."
)
LIMITS = (
    "It has seen few tokens. Its Python has the look, not the sense, of code; it knows no facts beyond the questions\n"
    "it is asked; greedy decoding soon repeats itself where the text is unlike its training data, which it can repeat\n"
    "too."
)
DRAFT_LIMITS = "It is a draft: it is there to guess the target's next tokens, not to answer."


@dataclass(frozen=True, slots=True)
class Results:
    """What a run came to.

    Attributes:
        parameters: Number of weights.
        loss: Mean training loss of the last hundred steps, nats per token.
        held_out: Held-out losses by source, per exit.
        minutes: Time of the training.
        accuracies: Greedy accuracies on held-out questions.
        acceptances: Acceptance of a draft by its target, by what is measured.
    """

    parameters: int
    loss: float
    held_out: dict[str, list[float]]
    minutes: float
    accuracies: Sequence[Accuracy] = ()
    acceptances: Sequence[tuple[str, Sequence[Acceptance]]] = ()


def card(recipe: Recipe, config: str, results: Results) -> str:
    """The card of a model, Markdown with the metadata block of the Hub."""
    shape, schedule = recipe.shape, recipe.schedule
    nested = (
        f" Its layers {_names(shape.exits)} are exits: each is read by the final norm and the head."
        if len(shape.exits) > 1
        else ""
    )
    return CARD.format(
        **{**dataclasses.asdict(shape), "exits": nested},
        **dataclasses.asdict(schedule),
        long_rows=f" and, in the last {schedule.long:.0%} of the steps, of {schedule.long_row:,}"
        if schedule.long
        else "",
        name=recipe.name,
        config=config,
        seed=recipe.seed,
        dtype=recipe.dtype,
        torch=torch.__version__,
        seen=schedule.steps * schedule.tokens,
        parameters=results.parameters,
        minutes=results.minutes,
        loss=results.loss,
        data=_data(recipe),
        columns=" | ".join(f"{depth} layers" for depth in shape.exits),
        rule="---|" * (len(shape.exits) - 1) + "---",
        losses="\n".join(
            f"| {name} | {' | '.join(f'{x:.3f}' for x in row)} |" for name, row in results.held_out.items()
        ),
        results=_accuracies(results.accuracies) + _acceptances(results.acceptances),
        limits=DRAFT_LIMITS if results.acceptances else LIMITS,
    )


def _data(recipe: Recipe) -> str:
    if recipe.alignment is None:
        return MIXED.format(count=len(TASKS), names=", ".join(TASKS), prompt=recipe.data.prompt)
    table = dataclasses.asdict(recipe.alignment)
    table["temperatures"] = _names(recipe.alignment.temperatures)
    return ALIGNED.format(**table, count=len(TASKS), start=recipe.start)


def _names(values: Sequence[float]) -> str:
    *most, last = (f"{value:g}" for value in values)
    return f"{', '.join(most)} and {last}" if most else last


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _accuracies(rows: Sequence[Accuracy]) -> str:
    if not rows:
        return ""
    lines = ["", "Greedy decoding of held-out questions, bfloat16 weights:", ""]
    lines += [_row("task", "level", "right", "of", "share", "95 %"), "|---|---|---|---|---|---|"]
    for row in rows:
        low, high = row.interval()
        lines.append(_row(row.task, row.level, row.right, row.count, f"{row.share:.0%}", f"{low:.0%} to {high:.0%}"))
    return "\n".join(lines) + "\n"


def _acceptances(rows: Sequence[tuple[str, Sequence[Acceptance]]]) -> str:
    if not rows:
        return ""
    measured = rows[0][1]
    lines = ["", "Chance that the target accepts one drafted token, on its own texts after held-out prompts:", ""]
    lines.append(_row("draft", *("greedy" if one.temperature == 0 else f"T = {one.temperature:g}" for one in measured)))
    lines.append("|---|" + "---|" * len(measured))
    lines += [_row(name, *(f"{one.rate:.3f}" for one in row)) for name, row in rows]
    return "\n".join(lines) + "\n"
