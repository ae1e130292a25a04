"""`treille bench tasks`: accuracy and cost of strategies, drafters and constraints on the task suite."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treille.bench.answer_shapes import shape
from treille.bench.arguments import Parser, add_output, collect, progress, publish
from treille.bench.bars import grouped
from treille.bench.entries import Entry, parse
from treille.bench.measure import Summary
from treille.bench.rounds import total
from treille.bench.rows import Row, environment
from treille.drafters import parse as parse_drafter
from treille.errors import BatchError, ParameterError, UserError
from treille.language_model import load
from treille.output import Generation
from treille.train.accuracy import Accuracy, held_out
from treille.train.tasks import TASKS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from treille.language_model import LanguageModel
    from treille.strategy import Configured
    from treille.train.tasks import Example

NONE = "none"
CONSTRAINTS = (NONE, "task")
STRATEGIES = ("greedy", "best_of_n:n=8,temperature=0.8,judge=checker")
SAMPLES, QUICK_SAMPLES = 100, 2
BATCH = 16
SEED_STEP = 1_000_000  # questions have seeds of their own: equal draws for all would make their answers dependent


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured: each combination of tasks, strategies, drafters and constraints.

    Attributes:
        tasks: names with levels.
        strategies: as `treille.bench.entries.parse` reads them.
        drafters: as for `draft=`, or `none`.
        constraints: `none`, or `task` for the shape that the question tells.
        samples: questions of each task and level, the first of the held-out split.
        seed: of the questions and of what is drawn.
        batch: questions that are decoded together.
        governor: drafts only as much as pays. What is computed together then depends on measured times.
    """

    tasks: tuple[tuple[str, int], ...]
    strategies: tuple[str, ...] = STRATEGIES
    drafters: tuple[str, ...] = (NONE,)
    constraints: tuple[str, ...] = (NONE,)
    samples: int = SAMPLES
    seed: int = 0
    batch: int = BATCH
    governor: bool = False

    def cells(self) -> list[Cell]:
        """All combinations, task by task.

        Raises:
            ParameterError: a name or a number that cannot be honoured.
        """
        for name, value in (("samples", self.samples), ("batch", self.batch)):
            if value < 1:
                raise ParameterError(f"--{name}={value}: must be at least 1")
        for drafter in self.drafters:
            if drafter != NONE:
                parse_drafter(drafter)
        for constraint in self.constraints:
            if constraint not in CONSTRAINTS:
                raise ParameterError(f"--constraint={constraint}: choose {' or '.join(CONSTRAINTS)}")
        entries = [parse(text) for text in self.strategies]
        return [
            Cell(task, level, entry, drafter, constraint)
            for task, level in self.tasks
            for entry in entries
            for drafter in self.drafters
            for constraint in self.constraints
        ]


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination: a strategy with a drafter and a constraint on a task at a level."""

    task: str
    level: int
    entry: Entry
    drafter: str
    constraint: str

    @property
    def combination(self) -> str:
        """What decodes, in words."""
        return combination(self.entry.text, self.drafter, self.constraint)

    @property
    def name(self) -> str:
        """What decodes what, in words."""
        return f"{self.combination} on {self.task}, level {self.level}"

    def configure(self, example: Example, seed: int, *, governor: bool) -> Configured:
        """The strategy for one question.

        Raises:
            ParameterError: the combination cannot be honoured.
        """
        options: dict[str, Any] = {"seed": seed}
        if self.drafter != NONE:
            options |= {"draft": self.drafter, "governor": governor}
        if self.constraint != NONE:
            options["constraint"] = shape(example)
        return self.entry.configure(example, options)


def combination(strategy: str, drafter: str, constraint: str) -> str:
    """A strategy with its drafter and constraint, where it has them."""
    drafted = "" if drafter == NONE else f" + {drafter}"
    return f"{strategy}{drafted}{'' if constraint == NONE else ' + constraint'}"


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(
    lm: LanguageModel,
    grid: Grid,
    *,
    model: str = "bundled",
    refused: Callable[[Cell, UserError], None] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """One row per combination of the grid, as each is measured.

    Every combination first decodes one question: what is refused is known before anything is measured, and what is
    compiled or loaded at first use is not timed.

    Args:
        lm: the model; without prefix cache, or rows and times depend on what was decoded before.
        grid: what is measured.
        model: its name in the rows.
        refused: told of each combination that cannot be measured, and why; None: the first of them is raised.
        told: what is being measured.

    Raises:
        UserError: a combination cannot be honoured, and `refused` is None or nothing else is left.
    """
    trials: list[Trial] = []
    first: UserError | None = None
    for cell in grid.cells():
        told(f"trying {cell.name}")
        trial = Trial(lm, cell, grid, model)
        try:
            trial.run(1)
        except UserError as error:
            if refused is None:
                raise
            first = first or error
            refused(cell, error)
        else:
            trials.append(trial)
    if first is not None and not trials:
        raise first
    for trial in trials:
        told(trial.cell.name)
        yield trial.row()


class Trial:
    """One combination, its questions and its limits.

    Questions that leave no room for an answer in the model's context are not asked, and count as answered wrong.

    Args:
        lm: the model.
        cell: the combination.
        grid: how many questions, and how they are decoded.
        model: its name.
    """

    def __init__(self, lm: LanguageModel, cell: Cell, grid: Grid, model: str) -> None:
        self.lm = lm
        self.cell = cell
        self.grid = grid
        self.model = model
        self.examples = held_out(cell.task, cell.level, grid.samples, grid.seed)
        self.limit = longest(lm, self.examples)
        encoded = [(index, lm.encode(list(one.messages))) for index, one in enumerate(self.examples)]
        room = lm.checkpoint.decoder.shape.context_length - self.limit
        self.prompts = {index: ids for index, ids in encoded if len(ids) <= room}

    def run(self, count: int | None = None) -> list[tuple[Example, Generation | BaseException]]:
        """The first `count` questions, None for all, with their answers or with what ended them.

        Raises:
            UserError: the combination cannot be honoured.
        """
        indices = list(self.prompts)[:count]
        if not indices:
            raise ParameterError("no question leaves room for an answer in the model's context; choose a lower level")
        answers: list[Generation | BaseException] = []
        for start in range(0, len(indices), self.grid.batch):
            part = indices[start : start + self.grid.batch]
            each = [
                self.cell.configure(
                    self.examples[index], self.grid.seed * SEED_STEP + index, governor=self.grid.governor
                )
                for index in part
            ]
            prompts = [self.prompts[index] for index in part]
            try:
                answers += self.lm.generate(prompts, each, max_new_tokens=self.limit)
            except BatchError as error:
                answers += error.results
        return [(self.examples[index], answer) for index, answer in zip(indices, answers, strict=True)]

    def row(self) -> Row:
        """The row of this combination."""
        start = time.perf_counter()
        asked = self.run()
        seconds = time.perf_counter() - start
        found = [(example, answer) for example, answer in asked if isinstance(answer, Generation)]
        right = sum(TASKS[self.cell.task].check(example, answer.text) for example, answer in found)
        accuracy = Accuracy(self.cell.task, self.cell.level, right, len(self.examples))
        answers = [answer for _, answer in found]
        tokens = sum(len(answer.tokens) for answer in answers)
        failed, unasked = len(asked) - len(found), len(self.examples) - len(asked)
        return Row(
            case="tasks",
            figure=self.cell.name,
            model=self.model,
            dtype=str(self.lm.checkpoint.decoder.shape.dtype).removeprefix("torch."),
            device=self.lm.checkpoint.decoder.shape.device.type,
            batch=self.grid.batch,
            prompt=tuple(len(ids) for ids in self.prompts.values()),
            new=(self.limit,),
            repeats=1,
            unit="tokens/s",
            value=Summary.of([tokens / seconds]),
            note="; ".join(f"{count} {why}" for count, why in ((failed, "failed"), (unasked, "too long")) if count),
            extra={**self._settings(), **_accuracy(accuracy), **_costs(answers)},
            environment=environment(self.lm.checkpoint.decoder.shape.device),
            benchmark="tasks",
        )

    def _settings(self) -> dict[str, Any]:
        return {
            "task": self.cell.task,
            "level": self.cell.level,
            "strategy": self.cell.entry.text,
            "drafter": self.cell.drafter,
            "constraint": self.cell.constraint,
            "seed": self.grid.seed,
            "governor": self.grid.governor,
        }


def longest(lm: LanguageModel, examples: Sequence[Example]) -> int:
    """Tokens an answer may have: half as many again as the longest reference, at most half the context.

    An answer that is right but longer than any reference still fits; one that never ends costs little.
    """
    assert lm.tokenizer is not None, "a model without a tokenizer refuses to encode the questions"
    most = max(len(lm.tokenizer.encode(one.answer, add_special_tokens=False)) for one in examples)
    return min(math.ceil(1.5 * most) + 16, lm.checkpoint.decoder.shape.context_length // 2)


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    low, high = accuracy.interval()
    share, low, high = (abs(round(value, 4)) for value in (accuracy.share, low, high))  # no -0.0
    return {"right": accuracy.right, "samples": accuracy.count, "accuracy": share, "low": low, "high": high}


def _costs(answers: Sequence[Generation]) -> dict[str, float]:
    """Means per answer, and τ: tokens per target forward of a text, 1 where nothing is drafted or forced."""
    count = max(1, len(answers))
    drafts = total([answer.stats.drafts for answer in answers])
    return {
        "tokens": round(sum(len(answer.tokens) for answer in answers) / count, 2),
        "forwards": round(sum(answer.stats.forwards for answer in answers) / count, 2),
        "rows": round(sum(answer.stats.rows - answer.stats.prompt_rows for answer in answers) / count, 2),
        "tau": round(drafts.emitted / drafts.steps, 3) if drafts.steps else 1.0,
    }


# --- the command ------------------------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser("tasks", __doc__)
    add = parser.add_argument
    add("--tasks", metavar="TASKS", help=f"commas between, of {', '.join(TASKS)} (default: all)")
    add("--level", default="published", help="a number, published, or all (default: published)")
    add(
        "--strategies",
        metavar="NAME:KEY=VALUE,…",
        nargs="+",
        default=list(STRATEGIES),
        help="such as beam:width=4; judge=checker or judge=steps scores texts by the task's own checker, "
        "extract=text, last_line or last_number says what is voted on (default: %(default)s)",
    )
    add("--drafters", metavar="NAME:KEY=VALUE,…", nargs="+", default=[NONE], help="as for draft=, or none")
    add("--constraint", metavar="C", nargs="+", default=[NONE], help="none, or task: the shape that the question tells")
    add("--samples", type=int, help=f"held-out questions of each task (default: {SAMPLES}, quick: {QUICK_SAMPLES})")
    add("--seed", type=int, default=0, help="of the questions and of what is drawn (default: 0)")
    add("--batch", type=int, default=BATCH, help="questions decoded together (default: %(default)s)")
    add("--governor", action="store_true", help="draft only as much as pays, by measured times")
    add("--model", default="bundled", help="bundled, a directory or a Hub name (default: bundled)")
    add("--draft-model", help="a directory or a Hub name, for drafters that run a model")
    add("--quick", action="store_true", help="few questions: shows that it runs")
    add_output(parser, "tasks", "the accuracies")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit code.

    Raises:
        UserError: an argument that cannot be honoured.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.help:
        parser.print_help()
        return 0
    refused: dict[tuple[str, str], list[str]] = {}
    collect(options, _measure(options, refused))
    for (name, reason), tasks in refused.items():
        print(f"not measured: {name} on {', '.join(dict.fromkeys(tasks))}: {reason}")
    publish(options, picture)
    return 0


def _measure(options: argparse.Namespace, refused: dict[tuple[str, str], list[str]]) -> Iterator[list[Row]]:
    """The rows, one by one; in `refused`, by combination and reason, the tasks that cannot be measured."""
    grid = _grid(options)
    grid.cells()  # what is wrong with a name is said before a model is loaded

    def refuse(cell: Cell, error: UserError) -> None:
        refused.setdefault((cell.combination, str(error)), []).append(cell.task)

    with progress() as told:
        bundled = options.model == "bundled"
        lm = load(None if bundled else options.model, draft_model=options.draft_model, prefix_cache=False)
        name = "bundled" if bundled else Path(options.model).name
        for row in measure(lm, grid, model=name, refused=refuse, told=told):
            yield [row]


def _grid(options: argparse.Namespace) -> Grid:
    names = list(TASKS) if options.tasks is None else options.tasks.split(",")
    for name in names:
        if name not in TASKS:
            raise ParameterError(f"--tasks={options.tasks}: there is no task {name!r}; choose from {', '.join(TASKS)}")
    samples = QUICK_SAMPLES if options.quick else SAMPLES
    return Grid(
        tuple((name, level) for name in names for level in _levels(name, options.level)),
        tuple(options.strategies),
        tuple(options.drafters),
        tuple(options.constraint),
        samples if options.samples is None else options.samples,
        options.seed,
        options.batch,
        options.governor,
    )


def _levels(name: str, wanted: str) -> Sequence[int]:
    task = TASKS[name]
    if wanted == "published":
        return (task.published_level,)
    if wanted == "all":
        return range(task.levels)
    if not wanted.isdecimal() or int(wanted) >= task.levels:
        raise ParameterError(f"--level={wanted}: {name} has levels 0 to {task.levels - 1}; or say published or all")
    return (int(wanted),)


def picture(found: Sequence[dict[str, Any]]) -> str:
    """An SVG of the accuracies with their intervals: a group per task and level, a bar per combination."""
    groups: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in found:
        if row["benchmark"] == "tasks":
            extra = row["extra"]
            label = combination(extra["strategy"], extra["drafter"], extra["constraint"])
            group = groups.setdefault(f"{extra['task']}, level {extra['level']} ({row['model']})", {})
            group[label] = extra["accuracy"], extra["low"], extra["high"]
    return grouped("Accuracy on held-out questions, with 95 % intervals", groups)
