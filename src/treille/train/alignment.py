"""Aligning a draft to its target: the target's own texts, and how often the target accepts the draft.

FastDraft (Zafrir et al. 2024, arXiv 2411.11055): sequence-level distillation, that is plain cross-entropy on answers
that the target gave, greedily and at several temperatures, to prompts in its chat template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import treille
from treille.errors import CheckpointError
from treille.train.tokenizer import ASSISTANT, END

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from treille.language_model import LanguageModel
    from treille.train.corpus import Mixture
    from treille.train.recipe import Alignment

AT_ONCE = 64  # prompts of one call of `generate`


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How often a target accepts what a draft proposes, per token of the target's own texts.

    Attributes:
        temperature: Temperature of both models; 0 is greedy.
        rate: Mean of the sum of ``min(p, q)`` over the vocabulary, which is the chance that one drafted token is
            accepted; at temperature 0 the share of tokens on which both agree.
        tokens: Tokens it was measured on.
    """

    temperature: float
    rate: float
    tokens: int


def check_same_tokenizer(target: Path, tokenizer: Path) -> None:
    """Nothing if the target's tokenizer is the given one.

    Raises:
        CheckpointError: it is another.
    """
    if (target / "tokenizer.json").read_bytes() != tokenizer.read_bytes():
        raise CheckpointError(
            f"{target / 'tokenizer.json'} differs from {tokenizer}: a draft needs its target's tokenizer"
        )


def prompts(source: Mixture, count: int, python: float, seed: int) -> list[list[int]]:
    """Token ids of ``count`` prompts: the beginnings of Python functions, a share of ``python``, and questions."""
    rng = np.random.default_rng((seed, count))
    found: list[list[int]] = []
    while len(found) < count:
        if rng.random() < python:
            ids = source.functions.document(rng, int(rng.integers(4, 49))).ids
            found.append([int(token) for token in ids if token != END])
        else:
            ids = source.encode(source.example(rng, 2**20)).ids
            last = int(np.flatnonzero(ids == ASSISTANT)[-1])
            found.append(ids[: last + 1].tolist())
    return found


def answers(
    lm: LanguageModel, asked: Sequence[list[int]], temperature: float, *, max_new_tokens: int, seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Each prompt with the tokens that the model answers, greedily at temperature 0.

    Prompts that leave no room for ``max_new_tokens`` in the model's context are left out.
    """
    room = lm.checkpoint.decoder.shape.context_length - max_new_tokens
    fitting = [one for one in asked if len(one) <= room]
    for start in range(0, len(fitting), AT_ONCE):
        part = fitting[start : start + AT_ONCE]
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
        if temperature:
            # One seed for all would give equal prompts equal answers.
            strategies = [treille.sample(temperature=temperature, seed=seed + start + i) for i in range(len(part))]
            given = lm.generate(part, strategies, **options)
        else:
            given = lm.generate(part, "greedy", **options)
        yield from zip(part, (list(one.tokens) for one in given), strict=True)


def write_generated(path: Path, target: Path, source: Mixture, alignment: Alignment, seed: int) -> None:
    """Write the target's texts, one ``[prompt ids, answer ids]`` a line; the file appears when it is complete."""
    lm = treille.load(target, dtype="float32", prefix_cache=False)
    asked = prompts(source, alignment.texts, alignment.python, seed)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as lines:
        for index, temperature in enumerate(alignment.temperatures):
            part = asked[index :: len(alignment.temperatures)]
            for pair in answers(lm, part, temperature, max_new_tokens=alignment.max_new_tokens, seed=seed):
                lines.write(json.dumps(pair) + "\n")
    partial.replace(path)


def acceptance(
    target: LanguageModel,
    draft: LanguageModel,
    texts: Sequence[tuple[list[int], list[int]]],
    temperature: float,
) -> Acceptance:
    """Acceptance of the draft on (prompt, answer) pairs that the target gave at this temperature."""
    total, count = 0.0, 0
    for prompt, answer in texts:
        ids = [*prompt, *answer][:-1]
        p, q = (lm.logits(ids)[len(prompt) - 1 :] for lm in (target, draft))
        if temperature:
            overlap = torch.minimum(torch.softmax(p / temperature, -1), torch.softmax(q / temperature, -1))
            total += overlap.sum().item()
        else:
            total += (p.argmax(-1) == q.argmax(-1)).sum().item()
        count += len(answer)
    return Acceptance(temperature, total / count, count)
