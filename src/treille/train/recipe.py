"""Recipes: everything that decides the result of a training run, read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from treille.errors import CheckpointError, ParameterError

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of a Llama with tied embeddings.

    Attributes:
        layers: Number of layers.
        hidden: Width of the residual stream.
        heads: Query heads; ``head_dim`` is ``hidden // heads``.
        kv_heads: Key and value heads.
        intermediate: Width of the gated MLP.
        context: Longest text, in tokens.
        vocabulary: Entries of the tokenizer.
        exits: Depths whose output is read through the final norm and the head; the last is ``layers``. More than one
            makes a nested draft (SortedNet; S2D): the loss is the mean of the exits' losses.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    context: int = 1024
    vocabulary: int = 4096
    exits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ParameterError(
                f"hidden={self.hidden}, heads={self.heads}, kv_heads={self.kv_heads}: each must divide the one before"
            )
        exits = self.exits or (self.layers,)
        if list(exits) != sorted(set(exits)) or exits[0] < 1 or exits[-1] != self.layers:
            raise ParameterError(f"exits={exits}: give increasing depths that end with layers={self.layers}")
        object.__setattr__(self, "exits", tuple(exits))

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


@dataclass(frozen=True, slots=True)
class Data:
    """What a batch is drawn from.

    Attributes:
        python: Share of the rows that hold windows of Python files; half of their tokens in addition fill up the rows
            of tasks, as beginnings of functions.
        tasks: Weight of each task in the rows of tasks; empty: all tasks alike.
        prompt: Share of the tokens of questions that are predicted too; most are random and teach little.
        level_decay: Weight of a level relative to the level below it.
        level_steps: Steps until the highest level is drawn; levels are admitted one after the other until then.
        texts: Files, functions and, for the tokenizer, examples that are read at the most; 0: all of them.
    """

    python: float = 0.2
    tasks: tuple[tuple[str, float], ...] = ()
    prompt: float = 0.15
    level_decay: float = 0.8
    level_steps: int = 0
    texts: int = 0

    def __post_init__(self) -> None:
        for name in ("python", "prompt"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ParameterError(f"{name}={value} is no share: give a number from 0 to 1")


@dataclass(frozen=True, slots=True)
class Alignment:
    """A target's own texts, which replace the data (FastDraft: sequence-level distillation with plain cross-entropy).

    Attributes:
        target: Name of the target's run.
        texts: How many texts the target writes.
        temperatures: Temperatures, one after the other; 0 is greedy.
        max_new_tokens: Longest text, in tokens.
        python: Share of the texts that continue a Python function; the others answer questions of the tasks.
        control: Name of a run whose draft is measured too, to compare with; empty: none.
    """

    target: str
    texts: int
    temperatures: tuple[float, ...] = (0.0, 0.6, 0.8, 1.0)
    max_new_tokens: int = 96
    python: float = 0.25
    control: str = ""

    def __post_init__(self) -> None:
        if self.texts < 1 or self.max_new_tokens < 1 or not self.temperatures or min(self.temperatures) < 0:
            raise ParameterError(f"{self}: give at least one text, one token and one temperature of 0 or more")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a run is and how its learning rates move: warm-up, a stable phase, decay to zero.

    Attributes:
        steps: Optimizer steps in all.
        tokens: Tokens of one batch.
        row: Length of the rows of a batch, in tokens.
        long_row: Length of the rows in the last part of the run.
        long: Share of the steps, at the end, that have long rows.
        warmup: Steps of linear warm-up.
        decay: Share of the steps, at the end, over which the rates fall linearly to zero.
        matrix_rate: Muon's learning rate, for the matrices of the layers.
        rate: AdamW's learning rate, for the embedding and the norms.
    """

    steps: int
    tokens: int = 3072
    row: int = 256
    long_row: int = 1024
    long: float = 0.15
    warmup: int = 40
    decay: float = 0.3
    matrix_rate: float = 0.02
    rate: float = 3e-3

    def __post_init__(self) -> None:
        if self.tokens % self.row or self.tokens % self.long_row:
            raise ParameterError(
                f"tokens={self.tokens}: give a multiple of row={self.row} and long_row={self.long_row}"
            )
        if self.steps < 1:
            raise ParameterError(f"steps={self.steps}: give 1 or more")
        for name in ("long", "decay"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ParameterError(f"{name}={value} is no share: give a number from 0 to 1")

    @property
    def decay_start(self) -> int:
        """The first step whose rates are below the peak again."""
        return self.steps - int(self.decay * self.steps)

    @property
    def settled(self) -> int:
        """The first step that depends on the number of steps; below it, runs of any length are the same."""
        return min(self.decay_start, self.steps - int(self.long * self.steps))

    def factor(self, step: int) -> float:
        """Share of the peak learning rates at ``step``."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        return min(warm, (self.steps - step) / max(1, self.steps - self.decay_start))

    def row_length(self, step: int) -> int:
        """Length of the rows of this step, in tokens."""
        return self.long_row if step >= self.steps - int(self.long * self.steps) else self.row


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the result of a run.

    Attributes:
        name: Title of the model, for its card.
        seed: Seed of the weights and of every batch.
        shape: Shape of the network.
        data: What batches are drawn from.
        schedule: Steps, batch, learning rates.
        start: Name of the run whose model this one starts from; empty: random weights and a new tokenizer. Runs are
            named by their directories, which stand side by side.
        alignment: Texts of a target to train on, or None.
        dtype: ``"float32"``, or ``"bfloat16"`` for autocast; the weights are float32 either way.
    """

    name: str
    seed: int
    shape: Shape
    data: Data
    schedule: Schedule
    start: str = ""
    alignment: Alignment | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise ParameterError(f"dtype={self.dtype!r}: use 'float32' or 'bfloat16'")
        if max(self.schedule.row, self.schedule.long_row) > self.shape.context:
            raise ParameterError(
                f"rows of {self.schedule.long_row} tokens do not fit the context of {self.shape.context}"
            )

    def as_table(self) -> dict[str, Any]:
        """The recipe as nested dictionaries, as they stand in a TOML file."""
        table = asdict(self)
        table["data"]["tasks"] = dict(self.data.tasks)
        table["shape"]["exits"] = list(self.shape.exits)
        if self.alignment is None:
            del table["alignment"]
        else:
            table["alignment"]["temperatures"] = list(self.alignment.temperatures)
        return table

    def continues(self, other: Recipe, step: int) -> bool:
        """Whether ``step`` steps of ``other`` are also the first steps of this recipe.

        They are if the recipes are equal, or differ only in what acts later: the number of steps, the share of the
        decay and the share of long rows, as long as neither of these parts has begun in either recipe.
        """
        theirs = other.schedule
        later = replace(self.schedule, steps=theirs.steps, decay=theirs.decay, long=theirs.long)
        same = replace(self, schedule=later) == other
        return self == other or (same and step <= min(self.schedule.settled, other.schedule.settled))


def from_table(table: dict[str, Any], source: str) -> Recipe:
    """The recipe of a table as `Recipe.as_table` gives it.

    Raises:
        ParameterError: a key is missing, unknown or has a refused value.
    """
    try:
        table = dict(table)
        shape = dict(table.pop("shape"))
        shape["exits"] = tuple(shape.get("exits", ()))
        data = dict(table.pop("data", {}))
        data["tasks"] = tuple(sorted(data.get("tasks", {}).items()))
        alignment = dict(table.pop("alignment", {}))
        if "temperatures" in alignment:
            alignment["temperatures"] = tuple(alignment["temperatures"])
        return Recipe(
            shape=Shape(**shape),
            data=Data(**data),
            schedule=Schedule(**table.pop("schedule")),
            alignment=Alignment(**alignment) if alignment else None,
            **table,
        )
    except KeyError as error:
        raise ParameterError(f"recipe {source}: the table [{error.args[0]}] is missing") from None
    except TypeError as error:
        known = ", ".join(f.name for part in (Recipe, Shape, Data, Schedule, Alignment) for f in fields(part))
        raise ParameterError(f"recipe {source}: {error}; the keys are {known}") from None


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of a TOML file, or of a packaged one by its name.

    Raises:
        ParameterError: there is no such recipe, it is not TOML, or a key is refused.
    """
    path = Path(name)
    if not path.suffix:
        path = CONFIGS / f"{name}.toml"
    if not path.is_file():
        packaged = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise ParameterError(
            f"config {name}: there is no such recipe; give the path of a .toml file, or one of {packaged}"
        )
    try:
        return from_table(tomllib.loads(path.read_text(encoding="utf-8")), str(name))
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"config {name} is not TOML: {error}") from None


def check_continues(recipe: Recipe, saved: dict[str, Any], step: int, path: Path) -> None:
    """Nothing if a run of ``recipe`` may go on from a checkpoint.

    Raises:
        CheckpointError: the checkpoint was made by another recipe.
    """
    other = from_table(saved, str(path))
    if not recipe.continues(other, step):
        mine, theirs = _flat(recipe.as_table()), _flat(other.as_table())
        changed = "; ".join(
            f"{key} was {theirs.get(key)}, is {mine[key]}" for key in mine if mine[key] != theirs.get(key)
        )
        raise CheckpointError(
            f"{path} at step {step} was made by another recipe ({changed}): use another --out, or that run's recipe"
        )


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    rows = ((f"{key}.{k}", v) for key, value in table.items() if isinstance(value, dict) for k, v in value.items())
    return {**{k: v for k, v in table.items() if not isinstance(v, dict)}, **dict(rows)}
