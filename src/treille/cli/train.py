"""`treille train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from treille.cli.train_datastore import datastore
from treille.errors import ParameterError

if TYPE_CHECKING:
    from treille.train.trainer import Progress as StepDone

app = typer.Typer(help="Train the bundled models, or others by a recipe of your own.", rich_markup_mode=None)
app.command()(datastore)


@app.callback()
def _train() -> None:
    """Train the bundled models, or others by a recipe of your own."""


@app.command()
def model(
    config: Annotated[str, typer.Option(help="Name of a packaged recipe, or path of a .toml file.")],
    out: Annotated[Path, typer.Option(help="Directory of the run; a killed run in it is taken up.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option(help="float32, or bfloat16 for autocast [default: the recipe's].")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps [default: the recipe's].")] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads [default: torch's]; part of what decides bits.")
    ] = None,
    questions: Annotated[int, typer.Option(help="Held-out questions of each task for the card; 0: none.")] = 100,
) -> None:
    """Train a model, evaluate it and write its card; a run that was killed goes on with the same result."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from treille.train.recipe import load_recipe
    from treille.train.run import train_model

    recipe = load_recipe(config)
    if dtype is not None:
        recipe = replace(recipe, dtype=dtype)
    if steps is not None:
        recipe = replace(recipe, schedule=replace(recipe.schedule, steps=steps))
    if threads is not None:
        if threads < 1:
            raise ParameterError(f"threads={threads}: give 1 or more")
        torch.set_num_threads(threads)
    if questions < 0:
        raise ParameterError(f"questions={questions}: give 0 or more")
    _check_device(device)
    if out.exists() and not out.is_dir():
        raise ParameterError(f"out={str(out)!r} is a file: name a directory, new or of the same run")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[loss]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(recipe.name, total=recipe.schedule.steps, loss="")

        def show(progress: StepDone) -> None:
            bar.update(task, completed=progress.step, loss=f"loss {progress.loss:.3f}")

        made = train_model(recipe, config, out, device=device, questions=questions, listener=show)
    print(made)


def _check_device(device: str) -> None:
    import torch

    try:
        found = torch.device(device)
    except RuntimeError:
        raise ParameterError(f"device={device!r}: not a device; give 'cpu', 'cuda' or 'cuda:1'") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ParameterError(f"device={device!r}: this machine or this build of torch has no CUDA; use --device cpu")
