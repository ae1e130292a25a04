"""Processors: what changes the distribution before a token is drawn, a function of one's own among them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import treille

if TYPE_CHECKING:
    from torch import Tensor

    from treille.sampling.path import Path


def main() -> None:
    lm = treille.load(sys.argv[1] if len(sys.argv) > 1 else None)
    assert lm.tokenizer is not None
    quotes = [token for token in range(lm.tokenizer.vocab_size) if '"""' in lm.tokenizer.decode([token])]

    def no_docstring(path: Path, logits: Tensor) -> Tensor:
        """No triple quotes among the first five tokens of the output."""
        if len(path.output) < 5:
            logits[quotes] = -float("inf")
        return logits

    prompt = "def save(self, path):"
    settings: dict[str, Any] = {"temperature": 0.6, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 3}
    variants: dict[str, dict[str, Any]] = {
        "as it comes": {},
        "with a function of one's own": {"logits_processor": no_docstring},
        "in the order of llama.cpp": {"preset": "llamacpp"},
    }
    for title, more in variants.items():
        result = lm.generate(prompt, max_new_tokens=32, **settings, **more)
        print(f"--- {title}")
        print(prompt + result.text.rstrip(), end="\n\n")
        print(*result.processors, sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
