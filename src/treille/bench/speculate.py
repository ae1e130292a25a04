"""`treille bench speculate`: every drafter on every task, against the engine's own plain decoding in the same run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from treille.bench.arguments import (
    LEAST_REPEATS,
    Parser,
    add_output,
    collect,
    progress,
    publish,
    repeats_of,
    work_folder,
    written,
)
from treille.bench.bars import bars
from treille.bench.equality import CHECK, compare, equality_row, prompts_of
from treille.bench.measure import Summary, alternate, ratios
from treille.bench.rounds import Decoding, in_turns, total
from treille.bench.rows import Row, environment, task_and_settings
from treille.bench.shapes import SHAPES, TITLES, checkpoint
from treille.bench.texts import CODE, Text, completed, task_texts
from treille.drafters import parse, registry
from treille.errors import ParameterError
from treille.language_model import load
from treille.train.tasks import TASKS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from treille.bench.rounds import Round
    from treille.hooks import DraftCounts
    from treille.language_model import LanguageModel

PLAIN = "plain"
BATCHES = (1, 8)
TEXTS, QUICK_TEXTS = 8, 2
NEW, QUICK_NEW = 96, 8
CHECKED = 128  # tokens of a text that is compared
CHECK_OPTIONS = {"check", "drafters", "work", "quick", "out", "fill", "render"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and what is decoded with it.

    Attributes:
        name: in the rows.
        lm: without prefix cache, so that no round skips its prompts.
        texts: of one task.
        replayed: the texts are recorded ones, forced on a model of random weights.
    """

    name: str
    lm: LanguageModel
    texts: Mapping[str, Sequence[Text]]
    replayed: bool


def _parser() -> Parser:
    parser = Parser("speculate", __doc__)
    add = parser.add_argument
    add("--drafters", metavar="DRAFTS", nargs="+", help="as for draft=, e.g. prompt_lookup:k=5 (default: all)")
    add("--tasks", metavar="TASKS", help="commas between (default: all of the suite, and code)")
    add("--level", type=int, help="difficulty of the tasks, or their highest (default: the published ones)")
    add("--model", default="bundled", help=f"bundled, or with replayed texts: {', '.join(SHAPES)} (default: bundled)")
    add("--batch", type=int, nargs="+", default=list(BATCHES), help="texts at once (default: 1 8)")
    add("--texts", type=int, help=f"texts of each task (default: {TEXTS}, quick: {QUICK_TEXTS})")
    add("--new", type=int, help=f"tokens of each text at the most (default: {NEW}, quick: {QUICK_NEW})")
    add("--temperature", type=float, default=0.0, help="0: greedy; else sampling (default: 0)")
    add("--verification", choices=("match", "rejection"), help="see `draft=` (default: match)")
    add("--no-governor", action="store_true", help="draft as much as draft_rows allows")
    add("--repeats", type=int, help=f"rounds that count, at least {LEAST_REPEATS} (default: {LEAST_REPEATS})")
    add("--work", type=Path, default=work_folder(), help="where random checkpoints are kept (default: %(default)s)")
    add("--quick", action="store_true", help="tiny texts, two rounds: shows that it runs, measures nothing")
    add(
        "--check",
        type=int,
        metavar="PROMPTS",
        help=f"measure no times: compare greedy texts of {CHECKED} tokens (quick: {QUICK_NEW}) with plain ones",
    )
    add_output(parser, "speculate", "the ratios of batch 1")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit code: 1 if a text that was checked is wrong.

    Raises:
        UserError: an argument that cannot be honoured.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.help:
        parser.print_help()
        return 0
    if options.check is None:
        collect(options, _measure(options))
        publish(options, picture)
        return 0
    foreign = written(parser, arguments) - CHECK_OPTIONS
    if foreign:
        names = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in foreign))
        raise ParameterError(f"--check compares greedy texts, and has no use for {names}; leave that out")
    found = collect(options, _check(options))
    publish(options)
    return int(any(row.extra["wrong"] for row in found))


def _check(options: argparse.Namespace) -> Iterator[list[Row]]:
    """The row of one drafter after the other: how its texts compare with plain ones."""
    if options.check < 1:
        raise ParameterError(f"--check={options.check}: at least one prompt is wanted")
    drafts = _drafts(options)
    lm = load(dtype="float32", prefix_cache=False)
    prompts, new = prompts_of(lm, options.check), QUICK_NEW if options.quick else CHECKED
    with progress() as told:
        named = {name: completed(name, lm, options.work) for name in drafts}
        for one in compare(lm, prompts, named, new, told):
            print(one.summary, flush=True)  # minutes may pass before the next
            yield [equality_row(one, prompts, new)]


def _measure(options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of one task and batch size after the other."""
    repeats = repeats_of(options.repeats, quick=options.quick)
    for name, values in (("texts", [options.texts]), ("new", [options.new]), ("batch", options.batch)):
        for value in values:
            if value is not None and value < 1:
                raise ParameterError(f"--{name}={value}: must be at least 1")
    drafts = _drafts(options)
    with progress() as told:
        subject = _subject(options)
        for task, texts in subject.texts.items():
            for batch in options.batch:
                yield _task(subject, task, texts, batch, drafts, options, repeats, told)


def _drafts(options: argparse.Namespace) -> list[str]:
    """The drafters, each checked: what is wrong is said before anything is measured."""
    drafts = list(options.drafters or (info.name for info in registry))
    for draft in drafts:
        parse(draft)
    return drafts


def _subject(options: argparse.Namespace) -> Subject:
    names = [*TASKS, CODE] if options.tasks is None else options.tasks.split(",")
    for name in names:
        if name not in (*TASKS, CODE):
            raise ParameterError(
                f"--tasks={options.tasks}: there is no task {name!r}; choose from {', '.join(TASKS)}, code"
            )
    if options.level is not None and options.level < 0:
        raise ParameterError(f"--level={options.level}: the easiest level is 0")
    count = options.texts or (QUICK_TEXTS if options.quick else TEXTS)
    bundled = load(prefix_cache=False)
    texts = {name: task_texts(bundled, name, count, _new(options), options.level) for name in names}
    for name in names:
        if not texts[name]:
            raise ParameterError(f"--new={_new(options)}: no text of {name} is that long; give less")
    if options.model == "bundled":
        return Subject("bundled", bundled, texts, replayed=False)
    if options.model not in SHAPES:
        raise ParameterError(f"--model={options.model}: choose bundled, {', '.join(SHAPES)}")
    directory = checkpoint(options.model, torch.bfloat16, options.work)
    return Subject(TITLES[options.model], load(directory, prefix_cache=False), texts, replayed=True)


def _task(
    subject: Subject,
    task: str,
    texts: Sequence[Text],
    batch: int,
    drafts: Sequence[str],
    options: argparse.Namespace,
    repeats: int,
    told: Callable[[str], None],
) -> list[Row]:
    """Rows of all drafters on one task: rounds alternate between them, each in turns with plain decoding."""

    def side(name: str) -> Decoding:
        return Decoding(subject.lm, texts, batch, _given(subject, name, options), subject.replayed)

    pairs: dict[str, tuple[Decoding, Decoding]] = {}
    for name in (PLAIN, *drafts):  # plain decoding beside itself shows what a difference is worth
        pair = side(name), side(PLAIN)
        try:
            pair[0]()
        except ParameterError as refusal:
            if name == PLAIN:  # then nothing can be measured
                raise
            print(f"not measured: {name} on {task}: {refusal}", file=sys.stderr)
            continue
        pairs[name] = pair
    sides = {name: partial(in_turns, *pair) for name, pair in pairs.items()}
    alternate(sides, repeats, lambda name: told(f"{task}, batch {batch}: {name}"))
    return [
        Row(
            case=_case(options, batch),
            figure=f"{name} on {task}",
            model=subject.name,
            dtype=str(subject.lm.checkpoint.decoder.shape.dtype).removeprefix("torch."),
            device="cpu",
            batch=batch,
            prompt=tuple(len(text.prompt) for text in texts),
            new=(_new(options),),
            repeats=repeats,
            unit="tokens/s",
            baseline=PLAIN,
            note="replayed texts" if subject.replayed else "",
            environment=environment(torch.device("cpu")),
            benchmark="speculate",
            **compared(
                drafted.rounds[-repeats:],
                plain.rounds[-repeats:],
                {"task": task, "drafter": name, **_settings(options)},
            ),
        )
        for name, (drafted, plain) in pairs.items()
    ]


def compared(rounds: Sequence[Round], plain: Sequence[Round], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of the rounds of a drafter and those of plain decoding that ran in turn with them.

    Tokens per second and their ratio are of whole requests. `after_prompt` in `extra` is the ratio without the time of
    the prompts, which no drafter can save.
    """
    ours, theirs = ([one.tokens / one.seconds for one in side] for side in (rounds, plain))
    after, after_plain = ([one.tokens / one.after_prompt for one in side] for side in (rounds, plain))
    return {
        "value": Summary.of(ours),
        "baseline_value": Summary.of(theirs),
        "ratio": ratios(ours, theirs),
        "extra": {
            **settings,
            **figures(total([one.counts for one in rounds])),
            "after_prompt": ratios(after, after_plain),
        },
    }


def _given(subject: Subject, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The generation parameters of a drafter, or of plain decoding."""
    given: dict[str, Any] = {"max_new_tokens": _new(options)}
    if options.temperature:
        given |= {"temperature": options.temperature, "seed": 0}
    if name != PLAIN:
        draft = completed(name, subject.lm, options.work)
        given |= {"draft": draft, "governor": not options.no_governor, "verification": options.verification}
    return given


def _new(options: argparse.Namespace) -> int:
    return int(options.new or (QUICK_NEW if options.quick else NEW))


def _case(options: argparse.Namespace, batch: int) -> str:
    """What distinguishes this run's rows from those of other settings."""
    changed = [
        f"temperature {options.temperature}" if options.temperature else "",
        options.verification or "",
        "no governor" if options.no_governor else "",
        "" if options.level is None else f"level {options.level}",
    ]
    return ", ".join(["speculate", f"batch {batch}", *filter(None, changed)])


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "temperature": options.temperature,
        "verification": options.verification or "match",
        "governor": not options.no_governor,
        "level": options.level,
    }


def figures(counts: DraftCounts) -> dict[str, Any]:
    """τ, rows per target forward of a text, acceptance by depth, and microseconds of drafting per step.

    Plain decoding counts no steps; its τ is 1.
    """
    steps = max(1, counts.steps)
    return {
        "tau": round(counts.emitted / counts.steps, 3) if counts.steps else 1.0,
        "tau_predicted": round(predicted(counts), 3),
        "rows": round(1 + counts.drafted / steps, 2),
        "acceptance": [round(k / max(1, t), 3) for t, k in zip(counts.tried, counts.kept, strict=True)],
        "tried": counts.tried,
        "draft_us": round(1e6 * counts.seconds / steps, 1),
    }


def predicted(counts: DraftCounts) -> float:
    """τ by the formula of the method cards, (1 - α^(γ + 1)) / (1 - α), averaged over the depths γ that were drafted.

    α is one number, the share of tried depths that were kept: the formula's assumption that acceptance depends neither
    on depth nor on context is what the comparison with the measured τ shows.
    """
    steps, tried = sum(counts.depths), sum(counts.tried)
    alpha = sum(counts.kept) / tried if tried else 0.0
    powers = [sum(alpha**i for i in range(depth + 1)) for depth in range(len(counts.depths))]
    return sum(n * tau for n, tau in zip(counts.depths, powers, strict=True)) / steps if steps else 1.0


def picture(found: Sequence[dict[str, Any]]) -> str:
    """An SVG of the ratios to plain decoding at batch 1: one panel per task, one bar per drafter."""
    panels: dict[str, list[tuple[str, float]]] = {}
    for row in found:
        if row["benchmark"] == "speculate" and row["case"] != CHECK and row["batch"] == 1:
            label = f"{task_and_settings(row['extra'])} ({row['model']})"
            panels.setdefault(label, []).append((row["extra"]["drafter"], row["ratio"]["median"]))
    return bars("tokens per second relative to plain decoding, batch 1", panels, reference=1.0)
