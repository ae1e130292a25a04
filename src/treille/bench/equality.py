"""Greedy text with every drafter against plain greedy text, token by token, on the bundled model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from treille.bench.texts import CODE, task_texts
from treille.errors import ParameterError
from treille.train.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from treille.language_model import LanguageModel
    from treille.output import Generation

NEARLY = 1e-4
"""Two best logits closer than this are a tie, which rounding may decide either way."""
TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Equality:
    """How the drafted texts of one drafter compare with the plain ones.

    Attributes:
        drafter: as for `draft=`.
        texts: compared.
        tokens: of the plain texts.
        ties: texts that differ first where the two best logits are closer than `NEARLY`.
        wrong: texts that differ elsewhere.
        tau: tokens per target forward of a text.
        refusal: why the drafter could not be run, else empty.
    """

    drafter: str
    texts: int = 0
    tokens: int = 0
    ties: int = 0
    wrong: int = 0
    tau: float = 1.0
    refusal: str = ""


def prompts_of(lm: LanguageModel, count: int) -> list[list[int]]:
    """`count` prompts, the tasks of the suite and code in turn."""
    names = [*TASKS, CODE]
    each = -(-count // len(names))
    by_task = [[text.prompt for text in task_texts(lm, name, each, 8)] for name in names]
    mixed = [prompts[i] for i in range(each) for prompts in by_task if i < len(prompts)]
    return mixed[:count]


def compare(
    lm: LanguageModel, drafts: Sequence[str], count: int, new: int, told: Callable[[str], None]
) -> list[Equality]:
    """Every drafter on the same prompts.

    Args:
        lm: in float32.
        drafts: as for `draft=`.
        count: prompts.
        new: tokens of each text; end tokens do not end it.
        told: progress.
    """
    prompts = prompts_of(lm, count)
    told("plain")
    plain = _decode(lm, prompts, new, None)
    found = []
    for draft in drafts:
        told(draft)
        try:
            drafted = _decode(lm, prompts, new, draft)
        except ParameterError as refusal:
            found.append(Equality(draft, refusal=str(refusal)))
            continue
        different = [(a, b) for a, b in zip(plain, drafted, strict=True) if a.tokens != b.tokens]
        ties = sum(_is_tie(lm, a, b) for a, b in different)
        steps = sum(out.stats.drafts.steps for out in drafted)
        emitted = sum(out.stats.drafts.emitted for out in drafted)
        tokens = sum(len(out.tokens) for out in plain)
        found.append(Equality(draft, len(plain), tokens, ties, len(different) - ties, emitted / max(1, steps)))
    return found


def _decode(lm: LanguageModel, prompts: Sequence[list[int]], new: int, draft: str | None) -> list[Generation]:
    results: list[Generation] = []
    room = lm.checkpoint.decoder.shape.context_length
    given: dict[str, Any] = {} if draft is None else {"draft": draft, "governor": False}
    for start in range(0, len(prompts), TOGETHER):
        chosen = [prompt[: room - new] for prompt in prompts[start : start + TOGETHER]]
        results += lm.generate(chosen, "greedy", max_new_tokens=new, eos_token_id=[], **given)
    return results


def _is_tie(lm: LanguageModel, plain: Generation, drafted: Generation) -> bool:
    """Whether two texts part where the target's two best tokens are level."""
    pairs = zip(plain.tokens, drafted.tokens, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(plain.tokens), len(drafted.tokens)))
    logits = lm.logits([*plain.prompt_tokens, *plain.tokens[:at]])[-1]
    best = torch.topk(logits, 2).values
    return bool(best[0] - best[1] < NEARLY)
