"""Texts that benchmarks decode: questions of the task suite, and functions to be completed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from treille.train.datastore import build_datastore
from treille.train.tasks import TASKS, documents, python_functions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path as FilePath

    from torch import Tensor

    from treille.language_model import LanguageModel
    from treille.sampling.path import Path

CODE = "code"
RETRIEVING = ("retrieval", "rasd")
BEGUN = 32  # tokens of a function that are its prompt
RAISED = 1e4  # above the logits of any model, also after division by a temperature


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt and a recorded continuation, as token ids.

    Attributes:
        prompt: the question after the chat template, or the beginning of a function.
        answer: the reference answer or the rest of the function, cut to the length that is decoded.
    """

    prompt: list[int]
    answer: tuple[int, ...]

    @property
    def replay(self) -> Callable[[Path, Tensor], Tensor]:
        """A logits processor that makes any model write `answer`: its next token's logit is raised above all others.

        Off the recorded text the model's own logits stand, as they would for a model that has another opinion. It costs
        drafted rows little: no look at the vocabulary, and one comparison of bytes, as tokens all have equally many.
        """
        answer = self.answer
        recorded = np.array(answer, np.int32).tobytes()

        def replay(path: Path, logits: Tensor) -> Tensor:
            at = path.output_length
            if at < len(answer) and recorded.startswith(path.output.tobytes()):
                logits[answer[at]] = RAISED
            return logits

        return replay


def completed(draft: str, lm: LanguageModel, work: FilePath) -> str:
    """A draft with what it cannot do without: a datastore of the training split, built once in `work`."""
    name, _, rest = draft.partition(":")
    if name not in RETRIEVING or "datastore=" in rest:
        return draft
    directory = work / f"datastore-{lm.checkpoint.decoder.shape.vocab_size}"
    if not directory.exists():
        assert lm.tokenizer is not None
        tasks = ("".join(text for text, _ in pieces) for pieces in documents(4000))
        texts = [*python_functions(held_out=False), *tasks]
        tokens = [lm.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        work.mkdir(parents=True, exist_ok=True)
        build_datastore(tokens, directory, vocab_size=lm.checkpoint.decoder.shape.vocab_size)
    return f"{name}:" + ",".join(part for part in (rest, f"datastore={directory}") if part)


def task_texts(lm: LanguageModel, name: str, count: int, new: int, level: int | None = None) -> list[Text]:
    """Held-out texts of a task of the suite, or of `code`.

    Args:
        lm: whose tokenizer and chat template are used.
        name: a key of `TASKS`, or `code`.
        count: how many.
        new: tokens of an answer at the most.
        level: difficulty, at most the task's highest; None: the published one.
    """
    assert lm.tokenizer is not None
    if name == CODE:
        texts = []
        for function in python_functions(held_out=True):
            ids = lm.encode(function)
            if len(ids) >= BEGUN + new:
                texts.append(Text(ids[:BEGUN], tuple(ids[BEGUN : BEGUN + new])))
            if len(texts) == count:
                break
        return texts
    texts = []
    for index in range(count):
        chosen = None if level is None else min(level, TASKS[name].levels - 1)
        example = TASKS[name].example(index, split="held_out", level=chosen)
        answer = lm.tokenizer.encode(example.answer, add_special_tokens=False)
        texts.append(Text(lm.encode(example.messages), tuple(answer[:new])))
    return texts
