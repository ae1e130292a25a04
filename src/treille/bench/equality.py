"""Greedy text with every drafter against plain greedy text, token by token, on the bundled model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from treille.bench.measure import Summary
from treille.bench.rows import Row, environment
from treille.bench.texts import CODE, task_texts
from treille.errors import ParameterError
from treille.train.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from treille.language_model import LanguageModel
    from treille.output import Generation

NEARLY = 1e-4
"""Two best logits closer than this are a tie, which rounding may decide either way."""
TOGETHER = 16
CHECK = "check"
"""The case of the rows."""


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

    @property
    def equal(self) -> int:
        """Texts that are the same, token by token."""
        return self.texts - self.ties - self.wrong

    @property
    def summary(self) -> str:
        """One line."""
        outcome = self.refusal or f"{self.equal} equal, {self.ties} ties, {self.wrong} wrong"
        return f"{self.drafter}: {outcome} (of {self.texts} texts, {self.tokens} tokens; τ {self.tau:.2f})"


def prompts_of(lm: LanguageModel, count: int) -> list[list[int]]:
    """`count` prompts, the tasks of the suite and code in turn."""
    names = [*TASKS, CODE]
    each = -(-count // len(names))
    by_task = [[text.prompt for text in task_texts(lm, name, each, 8)] for name in names]
    mixed = [prompts[i] for i in range(each) for prompts in by_task if i < len(prompts)]
    return mixed[:count]


def compare(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    drafts: Mapping[str, str],
    new: int,
    told: Callable[[str], None],
) -> Iterator[Equality]:
    """Every drafter on the same prompts, one after the other.

    Args:
        lm: in float32.
        prompts: token ids.
        drafts: names in the results, with what `draft=` is given.
        new: tokens of each text; end tokens do not end it.
        told: progress.
    """
    told("plain")
    plain = _decode(lm, prompts, new, None)
    for name, draft in drafts.items():
        told(name)
        try:
            drafted = _decode(lm, prompts, new, draft)
        except ParameterError as refusal:
            yield Equality(name, refusal=str(refusal))
            continue
        different = [(a, b) for a, b in zip(plain, drafted, strict=True) if a.tokens != b.tokens]
        ties = sum(_is_tie(lm, a, b) for a, b in different)
        steps = sum(out.stats.drafts.steps for out in drafted)
        emitted = sum(out.stats.drafts.emitted for out in drafted)
        tokens = sum(len(out.tokens) for out in plain)
        yield Equality(name, len(plain), tokens, ties, len(different) - ties, emitted / max(1, steps))


def equality_row(one: Equality, prompts: Sequence[list[int]], new: int) -> Row:
    """The row of one drafter on the bundled model; its figure is the number of equal texts."""
    return Row(
        case=CHECK,
        figure=one.drafter,
        model="bundled",
        dtype="float32",
        device="cpu",
        batch=TOGETHER,
        prompt=tuple(map(len, prompts)),
        new=(new,),
        repeats=1,
        unit="texts",
        value=Summary.of([one.equal]),
        note=one.refusal,
        extra={**asdict(one), "equal": one.equal},
        environment=environment(torch.device("cpu")),
        benchmark="speculate",
    )


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
