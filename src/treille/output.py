"""What `generate` returns: texts, tokens, log-probabilities, and what they cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treille.constraints.base import Source
    from treille.engine.job import Job, Stats
    from treille.strategy import Codec, FinishReason, Hypothesis, Limits
    from treille.trace.trace import Trace

_WHOLE = ("eos", "constraint")
"""Ends of texts that are whole."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One generated text.

    Attributes:
        text: the generated text, cut before a stop string; empty without a tokenizer.
        tokens: all generated token ids, the end token included.
        logprob: sum of the tokens' log-probabilities in nats, after processors and constraint.
        raw_logprob: the same before them: the model's own.
        finish_reason: `eos`, `stop_string`, `constraint` (nothing may follow) or `length`.
        score: what the strategy ranked by, None if it does not rank.
    """

    text: str
    tokens: tuple[int, ...]
    logprob: float
    raw_logprob: float
    finish_reason: FinishReason | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Generation:
    """The result of one prompt. `text`, `tokens`, `logprob` … are those of the best candidate.

    Attributes:
        prompt: the prompt's text after the chat template; empty without a tokenizer.
        prompt_tokens: its token ids.
        strategy: the strategy with its parameters, as text.
        candidates: best first.
        stats: forwards, rows, tokens, seconds per phase.
        details: what else the strategy tells, e.g. the votes of self-consistency.
        processors: the chain of processors in force, one line each.
        trace: every event of the run if it was traced, else None.
        source: of the constraint, None without one.
    """

    prompt: str
    prompt_tokens: tuple[int, ...]
    strategy: str
    candidates: tuple[Candidate, ...]
    stats: Stats
    details: Mapping[str, Any] = field(default_factory=dict)
    processors: tuple[str, ...] = ()
    trace: Trace | None = None
    source: Source | None = None

    @property
    def parsed(self) -> Any:
        """What the best candidate stands for under its constraint: a document, or an object of the pydantic model.

        None without a constraint, and for a text that was cut before its end.

        Raises:
            ValueError: the pydantic model's own validators refuse the document.
        """
        if self.source is None or self.finish_reason not in _WHOLE:
            return None
        return self.source.parse(self.text)

    @property
    def text(self) -> str:
        """Text of the best candidate."""
        return self.candidates[0].text

    @property
    def tokens(self) -> tuple[int, ...]:
        """Token ids of the best candidate."""
        return self.candidates[0].tokens

    @property
    def logprob(self) -> float:
        """Log-probability of the best candidate under p, in nats."""
        return self.candidates[0].logprob

    @property
    def raw_logprob(self) -> float:
        """Log-probability of the best candidate under the model alone, in nats."""
        return self.candidates[0].raw_logprob

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the best candidate ended."""
        return self.candidates[0].finish_reason

    def to_dict(self) -> dict[str, Any]:
        """The fields as strict JSON has them, as `treille generate --json` prints them (the trace is left out)."""
        best = dataclasses.asdict(self.candidates[0])
        fields = {
            "prompt": self.prompt,
            **best,
            "strategy": self.strategy,
            "candidates": [dataclasses.asdict(candidate) for candidate in self.candidates],
            "prompt_tokens": self.prompt_tokens,
            "processors": self.processors,
            "details": self.details,
            "stats": dataclasses.asdict(self.stats),
        }
        if self.source is not None:
            fields["parsed"] = _as_json(self)
        return {name: plain(value) for name, value in fields.items()}


def _as_json(result: Generation) -> Any:
    """What was parsed, as JSON; None where the pydantic model refuses it."""
    try:
        parsed = result.parsed
    except ValueError:
        return None
    return parsed.model_dump(mode="json") if hasattr(parsed, "model_dump") else parsed


def plain(value: Any) -> Any:
    """`value` as strict JSON has it: no infinities, keys are texts, unknown objects as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def cut(text: str, limits: Limits) -> str:
    """The shortest prefix of `text` before any stop string."""
    ends = [text.find(s) for s in limits.stop_strings]
    return text[: min((end for end in ends if end >= 0), default=len(text))]


def candidate(hypothesis: Hypothesis, prompt_length: int, codec: Codec | None, limits: Limits) -> Candidate:
    """What the caller sees of a hypothesis."""
    tokens = tuple(hypothesis.node.path[prompt_length:].tolist())
    text = "" if codec is None else cut(codec.decode(limits.spoken(tokens)), limits)
    return Candidate(
        text, tokens, hypothesis.logprob, hypothesis.raw_logprob, hypothesis.finish_reason, hypothesis.score
    )


def generation(job: Job, trace: Trace | None = None) -> Generation:
    """The result of a finished job; raises its error if it failed."""
    output, run = job.result(), job.run
    tokens = tuple(run.tip.path.tolist())
    candidates = tuple(candidate(h, run.tip.length, run.codec, run.limits) for h in output.candidates)
    source = None if run.constraint is None else run.constraint.source
    if source is not None:
        for each in candidates:
            if each.finish_reason in _WHOLE:
                source.check(each.text)
    return Generation(
        "" if run.codec is None else run.codec.decode(tokens),
        tokens,
        repr(job.configured),
        candidates,
        job.stats,
        output.details,
        tuple(job.chain.describe()) if job.chain is not None else (),
        trace,
        source,
    )
