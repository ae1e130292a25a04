"""What is measured: one model on one device, loaded on both sides, and how long and how often."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from treille.bench.baseline import Baseline
from treille.bench.measure import Summary, alternate, best_threads, ratios, timed
from treille.bench.rows import Row, environment
from treille.bench.shapes import SHAPES, TITLES, checkpoint
from treille.errors import ParameterError
from treille.language_model import BUNDLED, LanguageModel, load
from treille.models.decoder import Decoder
from treille.models.loader import find_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from treille.bench.measure import Side


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Attributes:
        device: On both sides.
        dtype: Of the weights; None: bfloat16 for random shapes, else what the checkpoint says.
        repeats: Rounds that count.
        quick: Few and short texts: shows that the command works, measures nothing.
        work: Folder where random checkpoints are kept.
        progress: Told what is being run.
    """

    device: torch.device
    dtype: torch.dtype | None
    repeats: int
    quick: bool
    work: Path
    progress: Callable[[str], None]


class Subject:
    """One model on both sides.

    Args:
        name: `bundled`, a key of `SHAPES`, a directory, or a name on the Hub.
        settings: How to measure.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        if name in SHAPES:
            self.directory = checkpoint(name, settings.dtype or torch.bfloat16, settings.work)
        else:
            self.directory = BUNDLED if name == "bundled" else find_directory(name)

    @cached_property
    def ours(self) -> LanguageModel:
        """The model in Treille; without prefix cache, or every round after the first would skip its prompts."""
        return load(self.directory, device=self.settings.device, dtype=self.settings.dtype, prefix_cache=False)

    @cached_property
    def decoder(self) -> Decoder:
        """The network of our side.

        Raises:
            ParameterError: `transformers` computes it on our side too.
        """
        decoder = self.ours.checkpoint.decoder
        if not isinstance(decoder, Decoder):
            raise ParameterError(
                f"--model={self.name}: runs through the adapter of transformers, so there is nothing to compare; "
                "choose a model of a built-in family"
            )
        return decoder

    @cached_property
    def theirs(self) -> Baseline:
        """The model in `transformers`."""
        shape = self.decoder.shape
        return Baseline(self.directory, shape.dtype, shape.device)

    @cached_property
    def title(self) -> str:
        """The model's name in tables; a checkpoint on disk goes by its folder's name."""
        if self.name in TITLES:
            return TITLES[self.name]
        return self.name if self.name == "bundled" else self.directory.resolve().name

    @property
    def context(self) -> int:
        """The longest text in tokens."""
        return self.decoder.shape.context_length

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        """Random tokens: what they say does not change what they cost. The lowest ids are left to special tokens."""
        generator = torch.Generator().manual_seed(seed)
        vocabulary = self.decoder.shape.vocab_size
        return torch.randint(min(16, vocabulary // 2), vocabulary, (length,), generator=generator).tolist()

    def alternate(self, case: str, sides: Mapping[str, Side]) -> dict[str, list[float]]:
        """`measure.alternate` with this run's repeats and progress."""
        told = self.settings.progress
        return alternate(sides, self.settings.repeats, lambda side: told(f"{case}: {self.title}, {side}"))

    def side(self, call: Callable[[], object]) -> Side:
        """Our side of a comparison."""
        return timed(call, self.settings.device)

    def their_side(
        self, name: str, call: Callable[[], object], probe: Callable[[], object] | None = None
    ) -> tuple[str, Side]:
        """The other side with the number of threads that suits it best, and a name that says how many these are.

        Args:
            name: What runs.
            call: Runs it.
            probe: A shorter run of the same kind, which decides the number of threads.
        """
        if self.settings.device.type != "cpu":
            return name, timed(call, self.settings.device)
        threads = best_threads(probe or call, self.settings.device)
        return f"{name}, {threads} thread{'s' * (threads > 1)}", timed(call, self.settings.device, threads)

    def row(self, case: str, figure: str, unit: str, value: Sequence[float], **known: Any) -> Row:
        """A row about this model; `known` are the further fields of `Row`."""
        shape = self.decoder.shape
        return Row(
            case=case,
            figure=figure,
            model=self.title,
            dtype=str(shape.dtype).removeprefix("torch."),
            device=shape.device.type,
            repeats=self.settings.repeats,
            unit=unit,
            value=Summary.of(value),
            environment=environment(shape.device),
            **known,
        )

    def compared(
        self, case: str, figure: str, tokens: int, seconds: tuple[list[float], list[float]], **known: Any
    ) -> Row:
        """A row of tokens per second of both sides, from the seconds `(ours, theirs)` of each round."""
        ours, theirs = seconds
        return self.row(
            case,
            figure,
            "tokens/s",
            [tokens / s for s in ours],
            baseline_value=Summary.of(tokens / s for s in theirs),
            ratio=ratios(theirs, ours),
            **known,
        )
