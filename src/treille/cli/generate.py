"""`treille generate`."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer

import treille
from treille.cli.inputs import read_constraint, read_options, read_prompts
from treille.errors import BatchError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treille.language_model import LanguageModel
    from treille.output import Generation


@dataclass(frozen=True, slots=True)
class _Request:
    """What one `treille generate` was asked for."""

    prompts: list[Any]
    many: bool
    strategy: str
    options: dict[str, Any]
    as_json: bool
    trace: Path | None
    verbose: bool


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The text to continue; - reads it from stdin.")] = None,
    model: Annotated[str | None, typer.Option(help="Directory or Hub name [default: the bundled model].")] = None,
    strategy: Annotated[str | None, typer.Option(help="See `treille strategies` [default: greedy, or sample].")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Any parameter; see `strategies` and `processors`."),
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens generated at the most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Divides the logits; implies sampling.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    num_return_sequences: Annotated[int | None, typer.Option("-n", help="How many texts to return.")] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="Ends the text; can be repeated.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Take each prompt as a message of a user.")] = False,
    file: Annotated[Path | None, typer.Option(help="Many prompts: .txt, one a line, or .jsonl.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 [default: as stored].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per prompt and line.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Record the run: .html, .json or .txt.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Processors and figures on stderr.")] = False,
    draft: Annotated[
        str | None, typer.Option(metavar="NAME[:KEY=VALUE,…]", help="Drafts ahead; see `treille drafters`.")
    ] = None,
    draft_model: Annotated[str | None, typer.Option(help="Directory or Hub name of a draft model.")] = None,
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The text is JSON that fits this JSON Schema.")
    ] = None,
    regex: Annotated[str | None, typer.Option(metavar="PATTERN", help="The text matches this pattern.")] = None,
    grammar: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The text is one of this Lark-style grammar.")
    ] = None,
    choices: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXTS", help="The text is one of these: commas between, or a JSON list."),
    ] = None,
) -> None:
    """Decode a prompt, or many in one batch."""
    flags = {
        "draft": draft,
        "constraint": read_constraint(json_schema, regex, grammar, choices),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "num_return_sequences": num_return_sequences,
        "stop_strings": stop or None,
    }
    prompts = read_prompts(prompt, file, chat=chat)
    name, options = read_options(strategy, option or [], {k: v for k, v in flags.items() if v is not None})
    request = _Request(prompts, file is not None, name, options, as_json, trace, verbose)
    _check_trace(request)
    lm = _load(model, device, dtype, draft_model)
    if request.many:
        _decode_many(lm, request)
    else:
        _decode_one(lm, request)


def _check_trace(request: _Request) -> None:
    if request.trace is None:
        return
    from treille.trace.trace import check_path

    if request.many:
        raise ParameterError(f"--trace={request.trace}: a trace shows one run; give one prompt instead of --file")
    check_path(request.trace)


def _load(model: str | None, device: str, dtype: str | None, draft_model: str | None) -> LanguageModel:
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with _status("loading the model (the first time, kernels are compiled: about 20 s)"):
        return treille.load(model, device=device, dtype=dtype, draft_model=draft_model)


def _decode_one(lm: LanguageModel, request: _Request) -> None:
    """Decode one prompt; its text is written as it settles."""
    prompt, began = request.prompts[0], time.perf_counter()
    texts = int(request.options.get("num_return_sequences") or 1)
    if request.as_json or texts > 1 or lm.tokenizer is None:
        with _status("decoding"):
            result = lm.generate(prompt, request.strategy, trace=request.trace is not None, **request.options)
        _print_result(result, request)
    else:
        with lm.stream(prompt, request.strategy, trace=request.trace is not None, **request.options) as stream:
            for piece in stream:
                sys.stdout.write(piece)
                sys.stdout.flush()
            result = stream.result
        if not result.text.endswith("\n"):
            sys.stdout.write("\n")
    if request.trace is not None:
        try:
            result.trace.save(request.trace)
        except OSError as error:
            raise ParameterError(f"--trace={request.trace}: cannot be written ({error.strerror})") from error
    _summary([result], time.perf_counter() - began, request)


def _decode_many(lm: LanguageModel, request: _Request) -> None:
    """Decode all prompts in one batch; what some of them give is printed also when others fail."""
    began = time.perf_counter()
    failure: BatchError | None = None
    with _progress(lm, len(request.prompts)):
        try:
            results = lm.generate(request.prompts, request.strategy, **request.options)
        except BatchError as error:
            failure, results = error, error.results
    for index, result in enumerate(results):
        if index and not request.as_json:
            print("---")
        if isinstance(result, BaseException):
            print(json.dumps({"error": str(result)}, ensure_ascii=False) if request.as_json else "")
        else:
            _print_result(result, request)
    if failure is not None:
        raise failure
    _summary(results, time.perf_counter() - began, request)


def _print_result(result: Generation, request: _Request) -> None:
    if request.as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False))
        return
    for index, candidate in enumerate(result.candidates):
        if index:
            print("-")
        print(candidate.text or " ".join(map(str, candidate.tokens)))


def _summary(results: Sequence[Generation], seconds: float, request: _Request) -> None:
    """What it cost, on stderr, for people: one line, before it the settings in force if they were asked for."""
    if not request.verbose and not sys.stderr.isatty():
        return
    if request.verbose:
        first = results[0]
        print(f"strategy: {first.strategy}", *(first.processors or ("no processors",)), sep="\n", file=sys.stderr)
    emitted = sum(result.stats.emitted for result in results)
    forwards = sum(result.stats.forwards for result in results)
    print(
        f"{emitted} tokens in {seconds:.2f} s · {emitted / seconds:.1f} tokens/s · "
        f"{forwards / max(1, emitted):.2f} forwards per token",
        file=sys.stderr,
    )


def _status(doing: str) -> AbstractContextManager[Any]:
    """A spinner on stderr while something takes long, if stderr is a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(doing)


def _progress(lm: LanguageModel, count: int) -> AbstractContextManager[Any]:
    """A bar of finished prompts on stderr, if it is a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.progress import Progress

    from treille.engine.instruments import Instrument

    progress = Progress(console=Console(stderr=True), transient=True)
    task = progress.add_task("decoding", total=count)

    class Bar(Instrument):
        """Counts finished prompts."""

        def job_finished(self, job: Any) -> None:  # noqa: ARG002 - the hook's signature
            """One more."""
            progress.advance(task)

    lm.engine.instruments.append(Bar())
    return progress
