"""Streaming: settled tokens become text as soon as it can no longer change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from treille.models.tokenizer import TextStream
from treille.output import Generation, cut, generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from treille.engine.job import Job
    from treille.models.tokenizer import Tokenizer
    from treille.trace.recorder import Recorder
    from treille.tree import Node


class Stream:
    """Iterates over the pieces of one answer; drives the engine while it waits.

    Text is held back while it could be the beginning of a stop string. Closing the iterator early, or leaving its
    `with` block, cancels the run.
    """

    def __init__(self, tokenizer: Tokenizer | None, step: Callable[[], None], cancel: Callable[[Job], None]) -> None:
        self._text = None if tokenizer is None else TextStream(tokenizer)
        self._step = step
        self._cancel = cancel
        self._job: Job | None = None
        self._recorder: Recorder | None = None
        self._settled: Node | None = None
        self._pushed = 0  # tokens of the path that were turned into text
        self._held = ""  # settled text that is not handed out yet: the only part a stop string can still begin in
        self._sent = 0  # characters that were handed out

    def attach(self, job: Job, recorder: Recorder | None) -> None:
        """Say which job this is the text of."""
        self._job, self._recorder = job, recorder

    def settle(self, node: Node) -> None:
        """Every output will go through `node`."""
        self._settled = node

    @property
    def result(self) -> Generation:
        """The finished `Generation`; runs to the end first if the iteration was not finished."""
        for _ in self:
            pass
        assert self._job is not None
        return generation(self._job, None if self._recorder is None else self._recorder.trace)

    def __iter__(self) -> Iterator[str]:
        job = self._job
        assert job is not None, "attached by the model that made this stream"
        try:
            while not job.done:
                self._step()
                piece = self._take(job)
                if piece:
                    yield piece
            if job.error is None and job.output is not None and self._text is not None:
                best = generation(job).text
                if len(best) > self._sent:
                    piece, self._sent = best[self._sent :], len(best)
                    yield piece
            job.result()
        finally:
            self._cancel(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._job is not None
        self._cancel(self._job)

    def _take(self, job: Job) -> str:
        """Text that has settled since the last time and is no part of a stop string."""
        node, start = self._settled, job.run.tip.length
        if node is None or self._text is None or node.length <= max(self._pushed, start):
            return ""
        for token in job.run.limits.spoken(node.path[max(self._pushed, start) :].tolist()):
            self._held += self._text.push(token)
        self._pushed = node.length
        safe = _safe_length(self._held, job.run.limits.stop_strings)
        safe = min(safe, len(cut(self._held, job.run.limits)))
        piece, self._held = self._held[:safe], self._held[safe:]
        self._sent += len(piece)
        return piece


def _safe_length(text: str, stops: tuple[str, ...]) -> int:
    """Length of `text` without its longest tail that begins a stop string."""
    longest = max((len(s) for s in stops), default=0)
    for held in range(min(longest - 1, len(text)), 0, -1):
        if any(s.startswith(text[-held:]) for s in stops):
            return len(text) - held
    return len(text)
