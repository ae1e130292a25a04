"""`treille bench speculate`: every drafter on every task, against the engine's own plain decoding in the same run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from treille.bench import rows
from treille.bench.arguments import LEAST_REPEATS, Parser, progress, repeats_of, work_folder
from treille.bench.bars import bars, save
from treille.bench.equality import compare
from treille.bench.measure import Summary, alternate, ratios, timed
from treille.bench.rows import Row, environment
from treille.bench.shapes import SHAPES, TITLES, checkpoint
from treille.bench.texts import CODE, Text, completed, task_texts
from treille.drafters import parse, registry
from treille.errors import ParameterError
from treille.hooks import DraftCounts
from treille.language_model import load
from treille.train.tasks import TASKS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from treille.language_model import LanguageModel

PLAIN = "plain"
BATCHES = (1, 8)


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
    add("--texts", type=int, default=8, help="texts of each task (default: 8)")
    add("--new", type=int, default=96, help="tokens of each text at the most (default: 96)")
    add("--temperature", type=float, default=0.0, help="0: greedy; else sampling (default: 0)")
    add("--verification", choices=("match", "rejection"), help="see `draft=` (default: match)")
    add("--no-governor", action="store_true", help="draft as much as draft_rows allows")
    add("--repeats", type=int, help=f"rounds that count, at least {LEAST_REPEATS} (default: {LEAST_REPEATS})")
    add("--out", type=Path, default=Path("benchmarks/out/speculate.jsonl"), help="the rows (default: %(default)s)")
    add("--picture", type=Path, help="draw the ratios of batch 1 as SVG into this file")
    add("--work", type=Path, default=work_folder(), help="where random checkpoints are kept (default: %(default)s)")
    add("--quick", action="store_true", help="tiny texts, two rounds: shows that it runs, measures nothing")
    add("--fill", type=Path, nargs="+", metavar="DOCUMENT", help="put the tables of all rows in --out into these files")
    add("--check", type=int, metavar="PROMPTS", help="compare greedy texts of 128 tokens with plain ones, and no times")
    add("--render", action="store_true", help="measure nothing: show, draw and --fill the rows that --out holds")
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
    if options.check is not None:
        return _check(options)
    if not options.render:
        fresh: list[Row] = []
        for found in _measure(options):
            rows.merge(options.out, found)
            fresh += found
        rows.show(row.to_json() for row in fresh)
        print(f"{len(fresh)} rows written to {options.out}")
    else:
        rows.show(rows.read(options.out))
    if options.picture is not None:
        save(options.picture, picture(rows.read(options.out)))
        print(f"{options.picture}: drawn")
    for document in options.fill or ():
        print(f"{document}: filled {', '.join(rows.fill(document, rows.read(options.out)))}")
    return 0


def _check(options: argparse.Namespace) -> int:
    """Compare texts; 1 if any differs elsewhere than at a tie."""
    if options.check < 1:
        raise ParameterError(f"--check={options.check}: at least one prompt is wanted")
    lm = load(dtype="float32", prefix_cache=False)
    with progress() as told:
        drafts = options.drafters or sorted(info.name for info in registry)
        drafts = [completed(draft, lm, options.work) for draft in drafts]
        found = compare(lm, drafts, options.check, 8 if options.quick else 128, told)
    for one in found:
        outcome = one.refusal or f"{one.texts - one.ties - one.wrong} equal, {one.ties} ties, {one.wrong} wrong"
        print(f"{one.drafter}: {outcome} (of {one.texts} texts, {one.tokens} tokens; τ {one.tau:.2f})")
    return int(any(one.wrong for one in found))


def _measure(options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of one task and batch size after the other."""
    repeats = repeats_of(options.repeats, quick=options.quick)
    with progress() as told:
        subject = _subject(options)
        drafts = options.drafters or [info.name for info in registry]
        for draft in drafts:
            parse(draft)  # what is wrong is said before anything is measured
        for task, texts in subject.texts.items():
            for batch in options.batch:
                yield _task(subject, task, texts, batch, drafts, options, repeats, told)


def _subject(options: argparse.Namespace) -> Subject:
    names = [*TASKS, CODE] if options.tasks is None else options.tasks.split(",")
    for name in names:
        if name not in (*TASKS, CODE):
            raise ParameterError(
                f"--tasks={options.tasks}: there is no task {name!r}; choose from {', '.join(TASKS)}, code"
            )
    count, new = 2 if options.quick else options.texts, _new(options)
    bundled = load(prefix_cache=False)
    texts = {name: task_texts(bundled, name, count, new, options.level) for name in names}
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
    """Rows of all drafters on one task: rounds alternate between them and plain decoding."""
    sides: dict[str, Callable[[], float]] = {}
    counts: dict[str, DraftCounts] = {}
    emitted: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for name in (PLAIN, *drafts):
        decode = _decode(subject, texts, batch, name, options)
        try:
            results = decode()
        except ParameterError as refusal:
            skipped[name] = str(refusal)
            continue
        counts[name] = total([result.stats.drafts for result in results])
        emitted[name] = sum(result.stats.emitted for result in results)
        sides[name] = timed(decode, torch.device("cpu"))
    seconds = alternate(sides, repeats, lambda side: told(f"{task}, batch {batch}: {side}"))
    found = []
    for name in sides:
        if name != PLAIN:
            rate = [emitted[name] / s for s in seconds[name]]
            found.append(
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
                    value=Summary.of(rate),
                    baseline=PLAIN,
                    baseline_value=Summary.of(emitted[PLAIN] / s for s in seconds[PLAIN]),
                    ratio=ratios(seconds[PLAIN], seconds[name]),
                    note="replayed texts" if subject.replayed else "",
                    extra={"task": task, "drafter": name, **figures(counts[name]), **_settings(options)},
                    environment=environment(torch.device("cpu")),
                    benchmark="speculate",
                )
            )
    for name, reason in skipped.items():
        print(f"not measured: {name} on {task}: {reason}", file=sys.stderr)
    return found


def _new(options: argparse.Namespace) -> int:
    return 8 if options.quick else int(options.new)


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


def _decode(
    subject: Subject, texts: Sequence[Text], batch: int, name: str, options: argparse.Namespace
) -> Callable[[], list[Any]]:
    """Decodes all texts, `batch` at once."""
    given: dict[str, Any] = {"max_new_tokens": _new(options)}
    if options.temperature:
        given |= {"temperature": options.temperature, "seed": 0}
    if name != PLAIN:
        draft = completed(name, subject.lm, options.work)
        given |= {"draft": draft, "governor": not options.no_governor, "verification": options.verification}
    strategy = "sample" if options.temperature else "greedy"

    def decode() -> list[Any]:
        subject.lm.forget_drafts()  # or a round would find the texts of the one before in the drafters' tables
        results: list[Any] = []
        for start in range(0, len(texts), batch):
            chosen = texts[start : start + batch]
            if subject.replayed:
                from treille.strategies import greedy, sample

                kind = sample if options.temperature else greedy
                each = [kind(logits_processor=text.replay, max_new_tokens=max(1, len(text.answer))) for text in chosen]
                more = {key: value for key, value in given.items() if key != "max_new_tokens"}
                results += subject.lm.generate([text.prompt for text in chosen], each, eos_token_id=[], **more)
            else:
                results += subject.lm.generate([text.prompt for text in chosen], strategy, **given)
        return results

    return decode


def total(counts: Sequence[DraftCounts]) -> DraftCounts:
    """The sum over runs."""
    whole = DraftCounts()
    for one in counts:
        for name in ("steps", "drafted", "accepted", "emitted", "forced", "seconds"):
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
        for name in ("tried", "kept", "depths"):
            sums, more = getattr(whole, name), getattr(one, name)
            sums.extend([0] * (len(more) - len(sums)))
            sums[: len(more)] = [a + b for a, b in zip(sums, more, strict=False)]
    return whole


def figures(counts: DraftCounts) -> dict[str, Any]:
    """τ, rows per target forward of a text, acceptance by depth, and microseconds of drafting per step."""
    steps = max(1, counts.steps)
    return {
        "tau": round(counts.emitted / steps, 3),
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
    return sum(n * tau for n, tau in zip(counts.depths, powers, strict=True)) / max(1, steps)


def picture(found: Sequence[dict[str, Any]]) -> str:
    """An SVG of the ratios to plain decoding at batch 1: one panel per task, one bar per drafter."""
    panels: dict[str, list[tuple[str, float]]] = {}
    for row in found:
        if row["benchmark"] == "speculate" and row["batch"] == 1:
            label = f"{row['extra']['task']} ({row['model']})"
            panels.setdefault(label, []).append((row["extra"]["drafter"], row["ratio"]["median"]))
    return bars("tokens per second relative to plain decoding, batch 1", panels, reference=1.0)
