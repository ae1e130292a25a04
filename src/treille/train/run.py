"""A whole run: train, export, evaluate, draw the curve, write the card."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import treille
from treille.train.accuracy import accuracies
from treille.train.alignment import acceptance, answers, prompts
from treille.train.card import Results, card
from treille.train.corpus import Mixture
from treille.train.curve import draw
from treille.train.export import MODEL, export, sibling
from treille.train.network import Llama
from treille.train.trainer import Trainer, read_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from treille.train.alignment import Acceptance
    from treille.train.recipe import Alignment, Recipe
    from treille.train.trainer import Progress

TEMPERATURES = (0.0, 0.6, 1.0)  # at which acceptance is measured
HELD_OUT_SEED = 1


def train_model(
    recipe: Recipe,
    config: str,
    directory: Path,
    *,
    device: str = "cpu",
    questions: int = 100,
    listener: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Directory of the finished model; a run that was killed goes on from its last checkpoint.

    Args:
        recipe: What is trained and how.
        config: The name the recipe was given by, for the card.
        directory: The run's directory.
        device: Device of the training.
        questions: Held-out questions of each task, and held-out prompts of a draft; 0 leaves out the evaluation.
        listener: Called after every step.

    Raises:
        UserError: the recipe, the device or the directory cannot be used.
    """
    trainer = Trainer(recipe, directory, device)
    for progress in trainer.run():
        listener(progress)
    model = directory / MODEL
    export(model, trainer.network, trainer.tokenizer)
    log = read_log(directory)
    (model / "loss.svg").write_text(draw(log, recipe.name), encoding="utf-8")
    aligned = questions > 0 and recipe.alignment is not None
    results = Results(
        parameters=sum(parameter.numel() for parameter in trainer.network.parameters()),
        loss=sum(row["loss"] for row in log[-100:]) / len(log[-100:]),
        held_out=trainer.evaluate(8),
        minutes=trainer.seconds / 60,
        accuracies=accuracies(treille.load(model), questions) if questions and not recipe.start else (),
        acceptances=measured(trainer, questions) if aligned else (),
    )
    (directory / "results.json").write_text(json.dumps(asdict(results), indent=2) + "\n", encoding="utf-8")
    (model / "README.md").write_text(card(recipe, config, results), encoding="utf-8")
    return model


def measured(trainer: Trainer, count: int) -> list[tuple[str, Sequence[Acceptance]]]:
    """Acceptance of the random, the trained, the control and the aligned draft, on ``count`` held-out prompts."""
    recipe, directory = trainer.recipe, trainer.directory
    assert recipe.alignment is not None
    drafts = {"random weights": directory / "random", "trained on the mixture": sibling(directory, recipe.start)}
    export(drafts["random weights"], Llama(recipe.shape, recipe.seed), trainer.tokenizer)
    if recipe.alignment.control:
        drafts["as many steps more on the mixture"] = sibling(directory, recipe.alignment.control)
    drafts["aligned"] = directory / MODEL
    source = Mixture(trainer.tokenizer, recipe.data, HELD_OUT_SEED, held_out=True)
    return measure(sibling(directory, recipe.alignment.target), drafts, source, count, recipe.alignment)


def measure(
    target: Path, drafts: Mapping[str, Path], source: Mixture, count: int, alignment: Alignment
) -> list[tuple[str, Sequence[Acceptance]]]:
    """Acceptance of each draft by the target at each temperature, all on the same texts of the target."""
    lm = treille.load(target, dtype="float32")
    asked = prompts(source, count, alignment.python, HELD_OUT_SEED)
    texts = {
        t: list(answers(lm, asked, t, max_new_tokens=alignment.max_new_tokens, seed=HELD_OUT_SEED))
        for t in TEMPERATURES
    }
    rows: list[tuple[str, Sequence[Acceptance]]] = []
    for name, path in drafts.items():
        draft = treille.load(path, dtype="float32")
        rows.append((name, [acceptance(lm, draft, texts[t], t) for t in TEMPERATURES]))
    return rows
