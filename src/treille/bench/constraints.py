"""`treille bench constraints`: what masks cost next to plain llguidance, and what a schema does to throughput."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llguidance
import numpy as np
import torch

from treille.bench import rows
from treille.bench.arguments import LEAST_REPEATS, Parser, progress, repeats_of, work_folder
from treille.bench.measure import Summary, alternate, ratios, timed
from treille.bench.rows import Row, environment
from treille.bench.schemas import Case, generated, of_the_task
from treille.bench.shapes import TITLES, checkpoint
from treille.bench.texts import Text
from treille.bench.vocabularies import byte_level, spoken
from treille.constraints import Vocabulary, json_schema
from treille.language_model import BUNDLED, load
from treille.strategies import greedy

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from treille.constraints.base import Constraint

SIBLINGS = 8
PLAIN = "plain llguidance"


def _parser() -> Parser:
    parser = Parser("constraints", __doc__)
    add = parser.add_argument
    add("--schemas", type=int, default=120, help="schemas, half of the json task, half generated (default: 120)")
    add("--sizes", type=int, nargs="*", default=[128_000], help="sizes of byte-level BPEs to train (default: 128000)")
    add("--no-throughput", action="store_true", help="masks only")
    add("--batch", type=int, default=8, help="texts at once, for throughput (default: 8)")
    add("--repeats", type=int, help=f"rounds that count, at least {LEAST_REPEATS} (default: {LEAST_REPEATS})")
    add("--out", type=Path, default=Path("benchmarks/out/constraints.jsonl"), help="the rows (default: %(default)s)")
    add("--work", type=Path, default=work_folder(), help="where what is trained is kept (default: %(default)s)")
    add("--quick", action="store_true", help="few schemas, two rounds: shows that it runs, measures nothing")
    add("--fill", type=Path, nargs="+", metavar="DOCUMENT", help="put the tables of all rows in --out into these files")
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
    found: list[Row] = []
    with progress() as told:
        for row in _measure(options, told):
            rows.merge(options.out, [row])
            found.append(row)
    rows.show(row.to_json() for row in found)
    print(f"{len(found)} rows written to {options.out}")
    for document in options.fill or ():
        print(f"{document}: filled {', '.join(rows.fill(document, rows.read(options.out)))}")
    return 0


def _measure(options: argparse.Namespace, told: Callable[[str], None]) -> Iterator[Row]:
    repeats = repeats_of(options.repeats, quick=options.quick)
    count = 4 if options.quick else options.schemas
    cases = [*of_the_task(count // 2), *generated(count - count // 2)]
    lm = load(prefix_cache=False)
    assert lm.tokenizer is not None
    shape = lm.checkpoint.decoder.shape
    vocabularies = {"bundled": Vocabulary.of(lm.tokenizer, lm.checkpoint.eos_token_ids, shape.vocab_size)}
    for size in () if options.quick else options.sizes:
        told(f"training a tokenizer of {size}")
        vocabulary = byte_level(size, options.work)
        vocabularies[f"{len(vocabulary.tokens)} tokens"] = vocabulary
    for name, vocabulary in vocabularies.items():
        yield from _masks(name, vocabulary, cases, repeats, told)
    if not options.no_throughput:
        yield from _throughput(cases, options, repeats, told)


# --- masks ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Times:
    """Seconds of single calls, ours and those of plain llguidance, by what was done."""

    ours: dict[str, list[float]]
    plain: dict[str, list[float]]

    def add(self, figure: str, ours: float, plain: float) -> None:
        """One call of each."""
        self.ours.setdefault(figure, []).append(ours)
        self.plain.setdefault(figure, []).append(plain)


def _masks(
    name: str, vocabulary: Vocabulary, cases: Sequence[Case], repeats: int, told: Callable[[str], None]
) -> Iterator[Row]:
    """Rows of one vocabulary: each round walks every document, call by call beside plain llguidance."""
    vocabulary.environment  # noqa: B018 - the trie is built once, outside the times
    rounds: list[Times] = []
    for index in range(repeats + 1):
        told(f"masks, {name}: round {index}")
        times = Times({}, {})
        for case in cases:
            _walk(case, vocabulary, times)
        rounds.append(times)
    for figure in rounds[0].ours:
        for quantile in (50, 99):
            sides = [
                [1e6 * float(np.percentile(side[figure], quantile)) for side in (times.ours, times.plain)]
                for times in rounds[1:]
            ]
            ours, plain = zip(*sides, strict=True)
            yield _row(
                f"{figure}, p{quantile}", name, "µs", Summary.of(ours), repeats,
                baseline=PLAIN, baseline_value=Summary.of(plain), ratio=ratios(plain, ours),
                extra={"schemas": len(cases), "calls": len(rounds[0].ours[figure])},
            )  # fmt: skip


def _walk(case: Case, vocabulary: Vocabulary, times: Times) -> None:
    """Follow one document, token by token."""
    began = time.perf_counter()
    constraint = json_schema(case.schema, whitespace=1).compile(vocabulary)
    states = [constraint.start()]
    out = np.empty((SIBLINGS, vocabulary.words), np.int32)
    constraint.masks(states[:1], out[:1])
    between = time.perf_counter()
    grammar = {"%json": {**case.schema, "x-guidance": {"whitespace_pattern": "[\\x20\\x0A\\x0D\\x09]{0,1}"}}}
    text = f"%llguidance {json.dumps({'no_forcing': True})}\nstart: %json {json.dumps(grammar['%json'])}"
    lark = json.dumps({"grammars": [{"lark_grammar": text}]})
    matcher = llguidance.LLMatcher(vocabulary.environment, lark, log_level=0)
    matcher.unsafe_compute_mask_ptr(out.ctypes.data, 4 * vocabulary.words)
    times.add("compile and first mask", between - began, time.perf_counter() - between)
    for token in vocabulary.spell(case.document.encode()):
        _step(constraint, states, matcher, token, out, times)


def _step(
    constraint: Constraint[Any],
    states: list[Any],
    matcher: Any,
    token: int,
    out: np.ndarray[Any, np.dtype[np.int32]],
    times: Times,
) -> None:
    """One mask, one advance, one fork and the masks of siblings, each beside what plain llguidance does for it."""
    words, state, size = out.shape[1], states[-1], 4 * out.shape[1]
    constraint.masks([state], out[:1])
    others = [
        int(t) for t in constraint.vocabulary.tokens_of(out[0])[:2] if t != token and t not in constraint.vocabulary.eos
    ]
    sibling = others[0] if others else token
    marks: list[float] = []

    def mark() -> None:
        marks.append(time.perf_counter())

    copy = matcher.deep_copy()
    mark()
    constraint.masks([state], out[:1])
    mark()
    matcher.unsafe_compute_mask_ptr(out.ctypes.data, size)
    mark()
    after = constraint.advance(state, token)
    mark()
    matcher.consume_token(token)
    mark()
    fork = constraint.advance(state, sibling)  # `after` is held, so this is another line of descent
    mark()
    copy = copy.deep_copy()
    copy.consume_token(sibling)
    mark()
    constraint.masks([after, fork] * (SIBLINGS // 2), out)
    mark()
    for row in range(SIBLINGS):
        (copy if row % 2 else matcher).unsafe_compute_mask_ptr(out.ctypes.data + 4 * row * words, size)
    mark()
    assert after is not None, "the document does not follow its schema"
    spans = np.diff(marks).tolist()
    for place, figure in enumerate(("mask", "advance", "fork", "mask of a tree node")):
        share = SIBLINGS if figure.startswith("mask of") else 1
        times.add(figure, spans[2 * place] / share, spans[2 * place + 1] / share)
    states.append(after)


# --- throughput -------------------------------------------------------------------------------------------------------


def _throughput(
    cases: Sequence[Case], options: argparse.Namespace, repeats: int, told: Callable[[str], None]
) -> Iterator[Row]:
    """Tokens per second of recorded documents, which random weights are made to write, with and without the schema."""
    model = "bundled" if options.quick else TITLES["135m"]
    written = None if options.quick else spoken(checkpoint("135m", torch.bfloat16, options.work), BUNDLED)
    lm = load(written, prefix_cache=False)
    chosen = random.Random(0).sample(list(cases), min(options.batch, len(cases)))
    prompts = [lm.encode(f"A record for {json.dumps(case.schema)[:60]}:") for case in chosen]
    assert lm.tokenizer is not None
    answers = [lm.tokenizer.encode(case.document, add_special_tokens=False) for case in chosen]
    replays = [Text(p, tuple(a)).replay for p, a in zip(prompts, answers, strict=True)]

    def decode(*, constrained: bool, **more: Any) -> Callable[[], Any]:
        each = []
        for case, answer, replay in zip(chosen, answers, replays, strict=True):
            held = {"constraint": json_schema(case.schema, whitespace=1), "close": False} if constrained else {}
            each.append(greedy(logits_processor=replay, max_new_tokens=len(answer), **held, **more))
        return lambda: lm.generate(prompts, each)

    calls = {
        "without": decode(constrained=False),
        "schema": decode(constrained=True),
        "schema and prompt_lookup": decode(constrained=True, draft="prompt_lookup"),
    }
    tokens = {name: sum(result.stats.emitted for result in call()) for name, call in calls.items()}
    sides = {name: timed(call, torch.device("cpu")) for name, call in calls.items()}
    seconds = alternate(sides, repeats, lambda side: told(f"throughput: {side}"))
    for name in [name for name in calls if name != "without"]:
        count = tokens[name]
        yield _row(
            f"throughput, {name}", model, "tokens/s",
            Summary.of(count / s for s in seconds[name]), repeats, baseline="without",
            baseline_value=Summary.of(tokens["without"] / s for s in seconds["without"]),
            ratio=ratios([s / tokens["without"] for s in seconds["without"]], [s / count for s in seconds[name]]),
            extra={"tokens": count}, batch=len(chosen),
        )  # fmt: skip


def _row(figure: str, model: str, unit: str, value: Summary, repeats: int, *, batch: int = 1, **more: Any) -> Row:
    return Row(
        case="constraints", figure=figure, model=model, dtype="bfloat16" if unit == "tokens/s" else "", device="cpu",
        batch=batch, prompt=(), new=(), repeats=repeats, unit=unit, value=value,
        environment=environment(torch.device("cpu")), benchmark="constraints", **more,
    )  # fmt: skip
