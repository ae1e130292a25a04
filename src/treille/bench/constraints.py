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

from treille.bench.answer_shapes import shape
from treille.bench.arguments import (
    LEAST_REPEATS,
    Parser,
    add_output,
    collect,
    progress,
    publish,
    repeats_of,
    work_folder,
)
from treille.bench.measure import Summary, alternate, ratios, timed
from treille.bench.rows import Row, environment
from treille.bench.schemas import Case, generated, of_the_task
from treille.bench.shapes import TITLES, checkpoint
from treille.bench.texts import Text
from treille.bench.vocabularies import byte_level, spoken
from treille.constraints import Vocabulary, json_schema
from treille.language_model import BUNDLED, load
from treille.strategies import greedy
from treille.train.tasks import TASKS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from treille.bench.measure import Side
    from treille.constraints.base import Constraint
    from treille.language_model import LanguageModel
    from treille.output import Generation

PARTS = ("masks", "throughput", "json")
SIBLINGS = 8
PLAIN = "plain llguidance"
QUANTILES = (50, 95, 99)
NOTES = dict.fromkeys(("advance", "fork"), "with a check of the token")
WITHOUT = "without"
ROOM = 256
"""Tokens that an answer of the json task may have: more than any needs, so that its end in time is never in doubt."""
RECORDED = range(32, 65)
"""Tokens of the documents for throughput: of about one length, so that the batch stays full nearly to its end."""


def _parser() -> Parser:
    parser = Parser("constraints", __doc__)
    add = parser.add_argument
    add("--schemas", type=int, default=120, help="schemas, half of the json task, half generated (default: 120)")
    add("--sizes", type=int, nargs="*", default=[128_000], help="sizes of byte-level BPEs to train (default: 128000)")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help=f"of {', '.join(PARTS)} (default: all)")
    add("--questions", type=int, default=60, help="questions of the json task (default: 60)")
    add("--batch", type=int, default=8, help="texts at once, for throughput and json (default: 8)")
    add("--draft", default="suffix", help="the drafter beside the schema (default: %(default)s)")
    add("--repeats", type=int, help=f"rounds that count, at least {LEAST_REPEATS} (default: {LEAST_REPEATS})")
    add("--work", type=Path, default=work_folder(), help="where what is trained is kept (default: %(default)s)")
    add("--quick", action="store_true", help="few schemas, two rounds: shows that it runs, measures nothing")
    add_output(parser, "constraints")
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
    collect(options, _measured(options))
    publish(options)
    return 0


def _measured(options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows, one by one."""
    with progress() as told:
        for row in _measure(options, told):
            yield [row]


def _measure(options: argparse.Namespace, told: Callable[[str], None]) -> Iterator[Row]:
    repeats = repeats_of(options.repeats, quick=options.quick)
    count = 4 if options.quick else options.schemas
    cases = [*of_the_task(count // 2), *generated(count - count // 2)]
    if "masks" in options.parts:
        for name, vocabulary in _vocabularies(options, told):
            yield from _masks(name, vocabulary, cases, repeats, told)
    if "throughput" in options.parts:
        yield from _throughput(cases, options, repeats, told)
    if "json" in options.parts:
        yield from _json_task(options, repeats, told)


def _vocabularies(options: argparse.Namespace, told: Callable[[str], None]) -> Iterator[tuple[str, Vocabulary]]:
    """The bundled tokenizer's, and those of the byte-level BPEs, with their names."""
    lm = load(prefix_cache=False)
    assert lm.tokenizer is not None
    yield "bundled", Vocabulary.of(lm.tokenizer, lm.checkpoint.eos_token_ids, lm.checkpoint.decoder.shape.vocab_size)
    for size in () if options.quick else options.sizes:
        told(f"training a tokenizer of {size}")
        vocabulary = byte_level(size, options.work)
        yield f"{len(vocabulary.tokens)} tokens", vocabulary


# --- masks ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Times:
    """Seconds of single calls, ours and those of plain llguidance, by what was done."""

    ours: dict[str, list[float]]
    plain: dict[str, list[float]]

    def take(
        self,
        figure: str,
        ours: Callable[[], Any],
        plain: Callable[[], Any],
        *,
        swapped: bool = False,
        share: int = 1,
    ) -> tuple[Any, Any]:
        """The results of one call of each, whose seconds divided by `share` are kept; `swapped`: plain first."""
        results: list[Any] = []
        seconds: list[float] = []
        for call in (plain, ours) if swapped else (ours, plain):
            began = time.perf_counter()
            results.append(call())
            seconds.append((time.perf_counter() - began) / share)
        if swapped:
            results.reverse()
            seconds.reverse()
        self.ours.setdefault(figure, []).append(seconds[0])
        self.plain.setdefault(figure, []).append(seconds[1])
        return results[0], results[1]


def _masks(
    name: str, vocabulary: Vocabulary, cases: Sequence[Case], repeats: int, told: Callable[[str], None]
) -> Iterator[Row]:
    """Rows of one vocabulary: each round walks every document, call by call beside plain llguidance."""
    vocabulary.environment  # noqa: B018 - the trie is built once, outside the times
    rounds: list[Times] = []
    for index in range(repeats + 1):
        told(f"masks, {name}: round {index}")
        times = Times({}, {})
        for number, case in enumerate(cases):
            _walk(case, vocabulary, times, swapped=number % 2 == 1)
        rounds.append(times)
    for figure in rounds[0].ours:
        for quantile in QUANTILES:
            sides = [
                [1e6 * float(np.percentile(side[figure], quantile)) for side in (times.ours, times.plain)]
                for times in rounds[1:]
            ]
            ours, plain = zip(*sides, strict=True)
            yield _row(
                f"{figure}, p{quantile}", name, "µs", Summary.of(ours), repeats,
                baseline=PLAIN, baseline_value=Summary.of(plain), ratio=ratios(plain, ours), note=NOTES.get(figure, ""),
                extra={"schemas": len(cases), "calls": len(rounds[0].ours[figure])},
            )  # fmt: skip


def _walk(case: Case, vocabulary: Vocabulary, times: Times, *, swapped: bool) -> None:
    """Follow one document, token by token."""
    out = np.empty((SIBLINGS, vocabulary.words), np.int32)

    def ours() -> tuple[Constraint[Any], Any]:
        constraint = json_schema(case.schema, whitespace=1).compile(vocabulary)
        state = constraint.start()
        constraint.masks([state], out[:1])
        return constraint, state

    def plain() -> Any:
        schema = {**case.schema, "x-guidance": {"whitespace_pattern": "[\\x20\\x0A\\x0D\\x09]{0,1}"}}
        text = f"%llguidance {json.dumps({'no_forcing': True})}\nstart: %json {json.dumps(schema)}"
        grammar = json.dumps({"grammars": [{"lark_grammar": text}]})
        matcher = llguidance.LLMatcher(vocabulary.environment, grammar, log_level=0)
        matcher.unsafe_compute_mask_ptr(out.ctypes.data, 4 * vocabulary.words)
        return matcher

    (constraint, state), matcher = times.take("compile and first mask", ours, plain, swapped=swapped)
    states = [state]
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
    """One mask, one advance, one fork and the masks of siblings, each beside what plain llguidance does for it.

    Both sides fill rows of the same matrix and look up its address, and both ask first for the mask: what a recognizer
    computes once per place and then knows is in the times of both. They take turns at being first.
    """
    state, size = states[-1], 4 * out.shape[1]
    swapped = len(states) % 2 == 0
    copy = matcher.deep_copy()
    row = out[:1]
    times.take(
        "mask", lambda: constraint.masks([state], row), lambda: matcher.unsafe_compute_mask_ptr(row.ctypes.data, size),
        swapped=swapped,
    )  # fmt: skip
    sibling = _another(constraint.vocabulary, out[0], token)
    after, _ = times.take(
        "advance", lambda: constraint.advance(state, token), lambda: matcher.consume_token(token), swapped=swapped
    )
    # `after` is held, so this is another line of descent.
    fork, other = times.take(
        "fork", lambda: constraint.advance(state, sibling), lambda: _forked(copy, sibling), swapped=swapped
    )

    def siblings() -> None:
        address = out.ctypes.data
        for index in range(SIBLINGS):
            (other if index % 2 else matcher).unsafe_compute_mask_ptr(address + index * size, size)

    nodes = [after, fork] * (SIBLINGS // 2)
    times.take("mask of a tree node", lambda: constraint.masks(nodes, out), siblings, share=SIBLINGS, swapped=swapped)
    assert after is not None, "the document does not follow its schema"
    states.append(after)


def _forked(matcher: Any, token: int) -> Any:
    """A copy that has consumed `token`."""
    copy = matcher.deep_copy()
    copy.consume_token(token)
    return copy


def _another(vocabulary: Vocabulary, mask: NDArray[np.int32], token: int) -> int:
    """A token that the mask allows and that is neither `token` nor an end, if one of the first few is."""
    others = [int(t) for t in vocabulary.tokens_of(mask)[: 2 + len(vocabulary.eos)]]
    return next((t for t in others if t != token and t not in vocabulary.eos), token)


# --- throughput -------------------------------------------------------------------------------------------------------


def _throughput(
    cases: Sequence[Case], options: argparse.Namespace, repeats: int, told: Callable[[str], None]
) -> Iterator[Row]:
    """Tokens per second of recorded documents, which random weights are made to write, with and without the schema."""
    model = "bundled" if options.quick else TITLES["135m"]
    written = None if options.quick else spoken(checkpoint("135m", torch.bfloat16, options.work), BUNDLED)
    lm = load(written, prefix_cache=False)
    assert lm.tokenizer is not None
    documents = [(case, lm.tokenizer.encode(case.document, add_special_tokens=False)) for case in cases]
    even = [(case, answer) for case, answer in documents if len(answer) in RECORDED]
    chosen = random.Random(0).sample(even, min(options.batch, len(even))) or documents[: options.batch]
    prompts = [lm.encode(f"A record for {json.dumps(case.schema)[:60]}:") for case, _ in chosen]
    replays = [Text(p, tuple(a)).replay for p, (_, a) in zip(prompts, chosen, strict=True)]

    def decode(*, constrained: bool, **more: Any) -> Callable[[], list[Generation]]:
        each = []
        for (case, answer), replay in zip(chosen, replays, strict=True):
            held = {"constraint": json_schema(case.schema, whitespace=1), "close": False} if constrained else {}
            each.append(greedy(logits_processor=replay, max_new_tokens=len(answer), **held, **more))
        return lambda: list(lm.generate(prompts, each))

    sides = {
        WITHOUT: decode(constrained=False),
        "schema": decode(constrained=True),
        f"schema and {options.draft}": decode(constrained=True, draft=options.draft),
    }
    rounds = Rounds(lm, sides, repeats, len(chosen), lambda side: told(f"throughput: {side}"))
    for name in rounds.constrained:
        yield rounds.row("throughput", name, model, "tokens/s")


def _json_task(options: argparse.Namespace, repeats: int, told: Callable[[str], None]) -> Iterator[Row]:
    """Questions of the json task by the bundled model, with and without the schema that each describes in words.

    The schema says all that a question asks, so an answer is right if and only if it satisfies it. Schemas are compiled
    in the round that warms up, as long as the language model keeps that many.
    """
    lm = load(prefix_cache=False)
    task = TASKS["json"]
    count = task.levels if options.quick else options.questions
    examples = [task.example(i // task.levels, split="held_out", level=i % task.levels) for i in range(count)]
    prompts = [lm.encode(list(example.messages)) for example in examples]

    def decode(*, constrained: bool, **more: Any) -> Callable[[], list[Generation]]:
        each = [greedy(**({"constraint": shape(example)} if constrained else {}), **more) for example in examples]
        parts = [slice(first, first + options.batch) for first in range(0, count, options.batch)]
        return lambda: [g for part in parts for g in lm.generate(prompts[part], each[part], max_new_tokens=ROOM)]

    sides = {
        WITHOUT: decode(constrained=False),
        "schema": decode(constrained=True),
        f"schema and {options.draft}": decode(constrained=True, draft=options.draft),
    }
    rounds = Rounds(lm, sides, repeats, options.batch, lambda side: told(f"json task: {side}"))
    valid = {
        name: sum(task.check(example, one.text) for example, one in zip(examples, rounds.last[name], strict=True))
        for name in sides
    }
    for name in rounds.constrained:
        note = f"valid {valid[name]} of {count}, {WITHOUT} {valid[WITHOUT]}"
        for unit in ("tokens/s", "answers/s"):
            yield rounds.row("json task", name, "bundled", unit, note)


class Rounds:
    """Rounds of decoding by sides that alternate, after one that warms up.

    Args:
        lm: the model.
        sides: what decodes all texts, by name; `WITHOUT` is the baseline.
        repeats: rounds that count.
        batch: texts at once.
        told: the name of every side before it runs.

    Attributes:
        last: what each side wrote last.
    """

    def __init__(
        self,
        lm: LanguageModel,
        sides: Mapping[str, Callable[[], list[Generation]]],
        repeats: int,
        batch: int,
        told: Callable[[str], None],
    ) -> None:
        self.last: dict[str, list[Generation]] = {}
        self._tokens: dict[str, list[int]] = {name: [] for name in sides}
        self._lm = lm
        self._repeats = repeats
        self._batch = batch
        self._seconds = alternate({name: self._side(name, call) for name, call in sides.items()}, repeats, told)

    @property
    def constrained(self) -> list[str]:
        """The sides that are compared with the baseline."""
        return [name for name in self._seconds if name != WITHOUT]

    def row(self, figure: str, name: str, model: str, unit: str, note: str = "") -> Row:
        """The row of a side: tokens or answers per second."""
        texts = {side: [len(last)] * self._repeats for side, last in self.last.items()}
        counts = texts if unit == "answers/s" else {side: n[-self._repeats :] for side, n in self._tokens.items()}
        ours, plain = (
            [n / s for n, s in zip(counts[side], self._seconds[side], strict=True)] for side in (name, WITHOUT)
        )
        forwards = {side: sum(one.stats.forwards for one in last) for side, last in self.last.items()}
        return _row(
            f"{figure}, {name}, batch {self._batch}, {unit}", model, unit, Summary.of(ours), self._repeats,
            baseline=WITHOUT, baseline_value=Summary.of(plain), ratio=ratios(ours, plain), note=note,
            extra={"tokens": {side: n[-1] for side, n in self._tokens.items()}, "forwards": forwards},
            batch=self._batch,
            dtype=str(self._lm.checkpoint.decoder.shape.dtype).removeprefix("torch."),
        )  # fmt: skip

    def _side(self, name: str, call: Callable[[], list[Generation]]) -> Side:
        def decode() -> None:
            self._lm.forget_drafts()  # or a drafter would know the texts of the round before
            self.last[name] = call()
            self._tokens[name].append(sum(one.stats.emitted for one in self.last[name]))

        return timed(decode, torch.device("cpu"))


def _row(
    figure: str, model: str, unit: str, value: Summary, repeats: int, *, batch: int = 1, dtype: str = "", **more: Any
) -> Row:
    return Row(
        case="constraints", figure=figure, model=model, dtype=dtype, device="cpu", batch=batch, prompt=(), new=(),
        repeats=repeats, unit=unit, value=value, environment=environment(torch.device("cpu")),
        benchmark="constraints", **more,
    )  # fmt: skip
