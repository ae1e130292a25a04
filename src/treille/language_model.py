"""`load` and `LanguageModel`: the public face of the engine."""

from __future__ import annotations

import operator
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from treille.attention import merged
from treille.constraints.library import ConstraintLibrary
from treille.drafters.base import Host
from treille.drafters.speculation import Nothing, Speculation
from treille.engine.engine import Engine
from treille.engine.runner import ModelRunner
from treille.errors import BatchError, CapacityError, ParameterError
from treille.models.cpu_stack import accelerate
from treille.models.decoder import Decoder
from treille.models.loader import adapt_model, load_checkpoint
from treille.options import Defaults, PlainText, resolve, split
from treille.output import generation
from treille.requests import Forward, Hidden
from treille.sampling.parameters import PARAMETERS
from treille.sampling.random import Random
from treille.strategy import Configured, Hypothesis, Limits, Output, Run, StrategyInfo, configured, registry
from treille.stream import Stream
from treille.trace.recorder import Recorder
from treille.tree import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from treille.engine.instruments import Instrument
    from treille.engine.job import Job
    from treille.models.decoder import ModelShape
    from treille.models.loader import LoadedCheckpoint
    from treille.options import Options
    from treille.requests import Request

BUNDLED = Path(__file__).parent / "models" / "bundled"
BUNDLED_DRAFTS = {"draft": BUNDLED / "draft", "nested": BUNDLED / "nested"}

SHAPES_SAMPLING = frozenset(
    {
        "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_n_sigma", "top_h",
        "xtc",
    }
)  # fmt: skip

Message: TypeAlias = "Mapping[str, str]"
Prompt: TypeAlias = "str | Sequence[int] | Sequence[Message]"
StrategyLike: TypeAlias = "str | Configured | None"


def load(
    model: str | Path | Any | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tokenizer: str | Path | None = None,
    draft_model: str | Path | Mapping[str, str | Path] | None = None,
    **engine: Any,
) -> LanguageModel:
    """A language model ready to decode.

    Args:
        model: a checkpoint directory, a Hub name, None for the bundled model, or a causal language model of
            `transformers`, which is run unchanged (for architectures that have no family file here).
        device: `"cpu"` (the default), `"cuda"`, `"cuda:1"` …
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, or None for the checkpoint's own.
        tokenizer: only with a model of `transformers`: the directory of its `tokenizer.json`.
        draft_model: a checkpoint for drafters that run one, or several by name (`{"draft": …, "small": …}`); read when
            a drafter first asks for it. The bundled model brings its own.
        engine: see `LanguageModel`.

    Raises:
        CheckpointError: the checkpoint cannot be read; names the file and the key.
        ParameterError: an unknown device or dtype, or a model of `transformers` that cannot be run this way.
    """
    if model is None or isinstance(model, str | Path):
        if tokenizer is not None:
            raise ParameterError(f"tokenizer={tokenizer!r}: a checkpoint directory brings its own; leave it out")
        source = BUNDLED if model is None else model
        checkpoint = load_checkpoint(source, dtype=_dtype(dtype), device=_device(device or "cpu"))
        if isinstance(checkpoint.decoder, Decoder):
            accelerate(checkpoint.decoder, merged.attend)
        drafts = _draft_models(draft_model, BUNDLED_DRAFTS if model is None else {})
        return LanguageModel(checkpoint, draft_models=drafts, **engine)
    if device is not None or dtype is not None:
        raise ParameterError(
            "device and dtype of a transformers model are its own; call model.to(…) before load(model)"
        )
    return LanguageModel(adapt_model(model, tokenizer), draft_models=_draft_models(draft_model, {}), **engine)


def _draft_models(
    given: str | Path | Mapping[str, str | Path] | None, bundled: Mapping[str, Path]
) -> dict[str, str | Path]:
    """Checkpoints of draft models by name."""
    if given is None:
        return dict(bundled)
    named = {"draft": given} if isinstance(given, str | Path) else dict(given)
    if "target" in named:
        raise ParameterError("draft_model: 'target' names the target itself; choose another name")
    return {**bundled, **named}


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(dtype, str):
        if dtype not in known:
            raise ParameterError(
                f"dtype={dtype!r}: not supported; choose {', '.join(known)}, or None for the file's own"
            )
        return known[dtype]
    return dtype


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ParameterError(f"device={device!r}: not a device; give 'cpu', 'cuda' or 'cuda:1'") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ParameterError(f"device={device!r}: this machine or this build of torch has no CUDA; use device='cpu'")
    if found.type not in ("cpu", "cuda"):
        raise ParameterError(f"device={device!r}: only CPU and CUDA devices are supported")
    return found


class LanguageModel:
    """A loaded checkpoint and the engine that decodes with it.

    Safe to use from several threads: they share the engine, and their prompts its batches.

    Args:
        checkpoint: from `treille.models.load_checkpoint`.
        kv_slots: tokens of KV memory (default: what fits 2 GiB).
        budget: token rows of one forward at the most; long prompts are computed in chunks of it.
        prefix_cache: keep computed prompts and answers for later prompts that begin with them.
        debug: check every plan and the slot accounts after every step, and poison freed slots.
        instruments: listeners of the engine.
        draft_models: checkpoints of draft models by name, read when a drafter first asks for them.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        *,
        kv_slots: int | None = None,
        budget: int = 512,
        prefix_cache: bool = True,
        debug: bool = False,
        instruments: Sequence[Instrument] = (),
        draft_models: Mapping[str, str | Path] | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = checkpoint.tokenizer
        runner = ModelRunner("target", checkpoint.decoder, slots=kv_slots, prefix_cache=prefix_cache, debug=debug)
        self.engine = Engine({"target": runner}, budget=budget, instruments=instruments, debug=debug)
        self.lock = threading.RLock()
        self.draft_models = dict(draft_models or {})
        self._draft_memory: dict[str, Any] = {}
        self._library = ConstraintLibrary(self.tokenizer, checkpoint.decoder.shape.vocab_size)
        self._debug = debug
        shape = checkpoint.decoder.shape
        plain = None if self.tokenizer is None else PlainText(self.tokenizer)
        self._defaults = Defaults(
            tuple(checkpoint.eos_token_ids), shape.vocab_size, shape.context_length, self.tokenizer, plain
        )

    # --- decoding -----------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        strategy: StrategyLike | Sequence[StrategyLike] = None,
        *,
        trace: bool = False,
        **options: Any,
    ) -> Any:
        """Decode one prompt, or many in one batch.

        Args:
            prompt: text, token ids, or chat messages (`[{"role": "user", "content": …}]`); or a list of such prompts.
            strategy: a name, a configured strategy (`beam(width=4)`), or one for each prompt. Default: `"sample"` if a
                sampling parameter is given, else `"greedy"`.
            trace: record every event of the run in `Generation.trace`.
            options: the strategy's own parameters and generation parameters (`max_new_tokens`, `seed` …).

        Returns:
            A `Generation`, or a list of them if a list of prompts was given.

        Raises:
            UserError: before the first token, if any prompt or parameter cannot be honoured.
            BatchError: some of many prompts failed while decoding; `results` holds what the others gave.
        """
        many = _is_many(prompt)
        prompts: list[Any] = list(prompt) if many else [prompt]
        each = _one_each(strategy, len(prompts) if many else None)
        prepared = [self._prepare(one, by, options) for one, by in zip(prompts, each, strict=True)]
        with self.lock:
            jobs: list[Job] = []
            recorders: list[Recorder | None] = []
            try:
                for start in prepared:
                    job, recorder = start(trace, None)
                    jobs.append(job)
                    recorders.append(recorder)
            except BaseException:
                for job in jobs:
                    self.engine.cancel(job)
                raise
        self._drive(jobs)
        traces = [None if recorder is None else recorder.trace for recorder in recorders]
        if not many:
            return generation(jobs[0], traces[0])
        failures = [job.error for job in jobs if job.error is not None]
        results = [job.error or generation(job, trace) for job, trace in zip(jobs, traces, strict=True)]
        if failures:
            raise BatchError(f"{len(failures)} of {len(jobs)} prompts failed: {failures[0]}", results) from failures[0]
        return results

    def stream(self, prompt: Prompt, strategy: StrategyLike = None, *, trace: bool = False, **options: Any) -> Stream:
        """Decode one prompt and iterate over its text as it settles; `.result` is the `Generation` afterwards.

        Text is settled once every output the strategy can still return begins with it, so every strategy streams.
        """
        start = self._prepare(prompt, strategy, options)
        with self.lock:
            stream = Stream(self.tokenizer, self._step, self._cancel)
            job, recorder = start(trace, stream.settle)
            stream.attach(job, recorder)
        return stream

    def _prepare(
        self, prompt: Prompt, strategy: StrategyLike, options: Mapping[str, Any]
    ) -> Callable[[bool, Callable[[Node], None] | None], tuple[Job, Recorder | None]]:
        """Check everything about one prompt; the function returned starts it."""
        chosen = _configure(strategy, options)
        tokens = self.encode(prompt)
        settings = resolve(chosen, len(tokens), self._defaults)
        source, limits = settings.constraint, settings.limits
        if settings.heal:
            tokens, source = self._library.healed(tokens, source, limits.eos_token_ids)
        draft = self._speculation(settings)
        bind = None
        if source is not None:
            close = limits.max_new_tokens if settings.close else None
            bind = self._library.binder(source, settings.tokenization, limits.eos_token_ids, close)

        def start(trace: bool, settled: Callable[[Node], None] | None) -> tuple[Job, Recorder | None]:
            tip = Node.root(tokens)
            run = Run(
                tip,
                Random(settings.seed),
                settings.limits,
                do_sample=settings.do_sample,
                num_return_sequences=settings.num_return_sequences,
                codec=self.tokenizer,
                settled=settled,
                draft=draft,
                gumbel=settings.gumbel,
                constraint=None if bind is None else bind(tip),
            )
            recorder = Recorder(run, self.engine.instruments) if trace else None
            try:
                return self.engine.submit(chosen, run, settings.chain), recorder
            except BaseException:
                if recorder is not None:
                    recorder.close()
                raise

        return start

    def _speculation(self, settings: Options) -> Speculation | None:
        """A drafter opened for one run; it refuses here what it cannot honour.

        A constraint is speculated for without a drafter too: what it forces needs no forward of its own.
        """
        drafting = settings.drafting
        if drafting is None and settings.constraint is None and not settings.heal:
            return None
        host = Host(
            self.checkpoint.decoder.shape,
            self._find_model,
            self._draft_memory,
            self.tokenizer,
            settings.limits.eos_token_ids,
            settings.do_sample,
        )
        if drafting is None:
            return Speculation(Nothing(host), rows=0)
        return Speculation(
            drafting.drafter.open(host),
            rows=drafting.rows,
            verification=drafting.verification,
            governor=self.engine.governor if drafting.governor else None,
        )

    def forget_drafts(self) -> None:
        """Drop what drafters have learned from earlier runs; texts are not affected, only how fast they come."""
        with self.lock:
            self._draft_memory.clear()

    def _find_model(self, name: str) -> ModelShape:
        """Sizes of a draft model, which is loaded the first time it is asked for."""
        with self.lock:
            if name not in self.engine.runners:
                if name not in self.draft_models:
                    known = ", ".join(sorted(self.draft_models)) or "none"
                    raise ParameterError(
                        f"draft: model={name!r}: there is no such draft model (known: {known}); give its directory to "
                        "load(…, draft_model=…)"
                    )
                target = self.engine.runners["target"]
                shape = target.decoder.shape
                checkpoint = load_checkpoint(self.draft_models[name], dtype=shape.dtype, device=shape.device)
                if isinstance(checkpoint.decoder, Decoder):
                    accelerate(checkpoint.decoder, merged.attend)
                slots, cached = target.memory.slots, target.prefix is not None
                self.engine.add(
                    ModelRunner(name, checkpoint.decoder, slots=slots, prefix_cache=cached, debug=self._debug)
                )
            return self.engine.runners[name].decoder.shape

    def _drive(self, jobs: Sequence[Job]) -> None:
        try:
            while not all(job.done for job in jobs):
                self._step()
        finally:
            for job in jobs:
                self._cancel(job)

    def _step(self) -> None:
        self.engine.wait()  # without the lock: a call may take long, or need this model itself
        with self.lock:
            self.engine.step()

    def _cancel(self, job: Job) -> None:
        with self.lock:
            self.engine.cancel(job)

    # --- tokens -------------------------------------------------------------------------------------------------------

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt: text (with the tokenizer's special tokens), ids as they are, chat by its template.

        Raises:
            ParameterError: an empty prompt, ids outside the vocabulary, text without a tokenizer, chat without a
                template.
        """
        is_chat = isinstance(_first(prompt), Mapping)
        if not is_chat and not isinstance(prompt, str):
            return self._ids("prompt", prompt)
        if self.tokenizer is None:
            raise ParameterError("the checkpoint has no tokenizer.json; give the prompt as a list of token ids")
        if isinstance(prompt, str):
            return self._ids("prompt", self.tokenizer.encode(prompt))
        if not all(isinstance(message, Mapping) for message in prompt):
            raise ParameterError(f"prompt={prompt!r}: every chat message must be {{'role': …, 'content': …}}")
        chat = self.tokenizer.chat(prompt)  # type: ignore[arg-type]
        return self._ids("prompt", self.tokenizer.encode(chat, add_special_tokens=False))

    def _ids(self, name: str, value: Any) -> list[int]:
        """`value` as token ids of the vocabulary, at least one."""
        try:
            tokens = [operator.index(token) for token in value]
        except TypeError:
            forms = "text or a list of token ids" + (", or a list of chat messages" if name == "prompt" else "")
            raise ParameterError(f"{name}={value!r}: is no {name}; give {forms}") from None
        if not tokens:
            raise ParameterError(f"{name}={value!r}: has no tokens; give at least one")
        size = self.checkpoint.decoder.shape.vocab_size
        for token in tokens:
            if not 0 <= token < size:
                raise ParameterError(f"{name}: token id {token} is outside the vocabulary (0 to {size - 1})")
        return tokens

    # --- scoring ------------------------------------------------------------------------------------------------------

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """Teacher-forced logits, float32 `[T, V]`: row t describes the token after `token_ids[: t + 1]`."""
        with torch.no_grad():  # not inference mode: the caller may write to what is returned
            return self.checkpoint.decoder.logits(self._hidden(self._ids("token_ids", token_ids), 0))

    def score(self, prompt: Prompt, continuation: str | Sequence[int]) -> list[float]:
        """Log-probability (nats) of each token of `continuation` after `prompt`, under the model alone."""
        before = self.encode(prompt)
        if isinstance(continuation, str):
            if self.tokenizer is None:
                raise ParameterError("the checkpoint has no tokenizer.json; give the continuation as token ids")
            continuation = self.tokenizer.encode(continuation, add_special_tokens=False)
        after = self._ids("continuation", continuation)
        hidden = self._hidden(before + after[:-1], len(before) - 1)
        scores: list[float] = []
        with torch.inference_mode():
            for begin in range(0, len(after), 64):  # vocabulary-sized rows, a few at a time
                logprobs = torch.log_softmax(self.checkpoint.decoder.logits(hidden[begin : begin + 64]), -1)
                index = torch.tensor(after[begin : begin + 64], device=logprobs.device).unsqueeze(1)
                scores.extend(logprobs.gather(1, index).squeeze(1).tolist())
        return scores

    def _hidden(self, tokens: list[int], first: int) -> Tensor:
        """Hidden states after the final norm at positions `first …` of `tokens`, `[T - first, H]`."""
        context = self.checkpoint.decoder.shape.context_length
        if len(tokens) > context:
            raise CapacityError(f"{len(tokens)} tokens exceed the model's context of {context}; shorten the text")
        found: list[Tensor] = []

        def teacher_forced(run: Run) -> Generator[Request, Any, Output]:
            nodes = [run.tip]
            for token in tokens[first + 1 :]:
                nodes.append(nodes[-1].child(token))
            found.extend((yield Forward(nodes, Hidden())))
            return Output((Hypothesis(nodes[-1]),))

        info = StrategyInfo("teacher_forced", teacher_forced, "", "exact", "one forward", do_sample=False)
        with self.lock:
            run = Run(Node.root(tokens[: first + 1]), Random(0), Limits(len(tokens) - first - 1))
            job = self.engine.submit(Configured(info, {}, {}), run)
        self._drive([job])
        job.result()
        return torch.cat(found).to(self.checkpoint.decoder.shape.dtype)


def _configure(strategy: StrategyLike, options: Mapping[str, Any]) -> Configured:
    """The strategy a caller means, with the call's options."""
    if isinstance(strategy, Configured):
        own = [name for name in options if name in strategy.info.parameters]
        if own:
            raise ParameterError(f"{own[0]}={options[own[0]]!r}: set it on the strategy itself, {strategy!r}")
        return strategy.with_options(options)
    if strategy is not None and not isinstance(strategy, str):
        raise ParameterError(
            f"strategy={strategy!r}: give a name such as 'beam' or a configured strategy, beam(width=4)"
        )
    info = registry[strategy or default_strategy(options)]
    split(options, info)
    return configured(info, options)


def _one_each(strategy: StrategyLike | Sequence[StrategyLike], prompts: int | None) -> list[StrategyLike]:
    """A strategy for each of so many prompts; None: for the one prompt that was given by itself."""
    if not isinstance(strategy, list | tuple):
        return [strategy] * (prompts or 1)  # type: ignore[list-item]  # anything else is refused when it is configured
    if prompts is None or len(strategy) != prompts:
        given = "one prompt" if prompts is None else f"{prompts} prompts"
        raise ParameterError(
            f"strategy: a list of {len(strategy)} for {given}; give one strategy, or a list of prompts and as many"
        )
    return list(strategy)


def default_strategy(options: Mapping[str, Any]) -> str:
    """`"sample"` if a parameter that shapes sampling is given, else `"greedy"`."""
    given = (PARAMETERS[name].processor for name in options if name in PARAMETERS and options[name] is not None)
    several = options.get("num_return_sequences") not in (None, 1)
    return "sample" if several or any(processor in SHAPES_SAMPLING for processor in given) else "greedy"


def _is_many(prompt: Prompt | Sequence[Prompt]) -> bool:
    """Whether this is a list of prompts rather than one prompt."""
    first = _first(prompt)
    one = first is None or isinstance(first, Mapping) or hasattr(first, "__index__")
    return not one and hasattr(first, "__len__")


def _first(prompt: Any) -> Any:
    """The first element of a list, or of what can be indexed like one; None for anything else."""
    listed = hasattr(prompt, "__getitem__") and not isinstance(prompt, str | Mapping)
    return prompt[0] if listed and len(prompt) else None


__all__ = ["PARAMETERS", "LanguageModel", "load"]
