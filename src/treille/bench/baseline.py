"""The other side: `transformers` on the same weights, asked for the same numbers of tokens."""

from __future__ import annotations

import time
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from treille.errors import DecodingError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE = 256  # tokens per page of the continuous batching
TOKENS_PER_BATCH = 512  # of its forwards; as many as the engine's budget
PATIENCE = 60.0  # seconds without a result after which it is given up


class Baseline:
    """A checkpoint in `transformers`, with everything that could end a text early switched off.

    Args:
        directory: The checkpoint.
        dtype: Of the weights.
        device: Where it runs.

    Raises:
        ParameterError: `transformers` is not installed.
    """

    def __init__(self, directory: Path, dtype: torch.dtype, device: torch.device) -> None:
        self._source = (directory, dtype, device)
        self._device = device
        self.model = self._load()
        self._paged: Any = None  # continuous batching changes its model's attention

    def _load(self) -> Any:
        transformers = _transformers()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        directory, dtype, device = self._source
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).to(device).eval()
        # The checkpoint's own settings (end tokens, top_k ...) would be merged into every call.
        model.generation_config = transformers.GenerationConfig(pad_token_id=0)
        model.config.eos_token_id = None
        return model

    def greedy(self, prompt: Sequence[int], new: int) -> list[int]:
        """The `new` tokens of `generate(do_sample=False)`."""
        return self._generate([prompt], new, do_sample=False)[0]

    def beam(self, prompt: Sequence[int], new: int, width: int) -> list[int]:
        """The `new` tokens of the best beam of `generate(num_beams=width)`."""
        return self._generate([prompt], new, do_sample=False, num_beams=width)[0]

    def many(self, prompt: Sequence[int], new: int, count: int) -> list[list[int]]:
        """The `new` tokens of each of `count` samples of one prompt, `generate(num_return_sequences=count)`."""
        return self._generate([prompt], new, num_return_sequences=count, do_sample=True, top_k=0)

    def padded(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> list[list[int]]:
        """One sample of each prompt by a batch that is padded on the left and runs as long as its longest text."""
        rows = self._generate(prompts, max(new), do_sample=True, top_k=0)
        return [row[:count] for row, count in zip(rows, new, strict=True)]

    def _generate(self, prompts: Sequence[Sequence[int]], new: int, **options: Any) -> list[list[int]]:
        width = max(map(len, prompts))
        tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=self._device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        found = self.model.generate(tokens, attention_mask=mask, max_new_tokens=new, **options)[:, width:]
        if found.shape[1] != new:
            raise DecodingError(f"transformers returned {found.shape[1]} tokens where {new} were asked for")
        rows: list[list[int]] = found.tolist()
        return rows

    def continuous(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> float:
        """Seconds that continuous batching takes for one sample of each prompt; starting its manager does not count.

        Raises:
            DecodingError: it does not run here; the message says what happened.
        """
        transformers = _transformers()
        self._paged = self._paged or self._load()
        pages = sum((len(p) + count) // PAGE + 2 for p, count in zip(prompts, new, strict=True))
        config = transformers.ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=pages, max_batch_tokens=TOKENS_PER_BATCH
        )
        settings = transformers.GenerationConfig(
            do_sample=True, top_k=0, eos_token_id=-1, pad_token_id=0, max_new_tokens=max(new)
        )
        with self._paged.continuous_batching_context_manager(
            generation_config=settings, continuous_batching_config=config, timeout=5
        ) as manager:
            start = time.perf_counter()
            for prompt, count in zip(prompts, new, strict=True):
                manager.add_request(list(prompt), max_new_tokens=count)
            total = sum(_result(manager) for _ in prompts)
            seconds = time.perf_counter() - start
        if total != sum(new):
            raise DecodingError(f"continuous batching returned {total} tokens where {sum(new)} were asked for")
        return seconds


def _transformers() -> Any:
    if find_spec("transformers") is None:
        raise ParameterError(
            "transformers is not installed, and it is what this case measures against; "
            "pip install 'treille[transformers]', or choose --only=forward,overhead"
        )
    return import_module("transformers")


def _result(manager: Any) -> int:
    """How many tokens the next finished request has."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        result = manager.get_result(timeout=1)
        if result is not None and result.error is not None:
            raise DecodingError(f"continuous batching failed: {result.error}")
        if result is not None and result.is_finished():
            return len(result.generated_tokens)
        if result is None and not manager.is_running():
            raise DecodingError("continuous batching stopped by itself")
    raise DecodingError(f"continuous batching gave no result in {PATIENCE:.0f} s")
