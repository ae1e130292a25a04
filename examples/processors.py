"""Processors: what changes the distribution before a token is drawn, a function of one's own among them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import treille

if TYPE_CHECKING:
    from torch import Tensor

    from treille.sampling.path import Path


def main() -> None:
    lm = treille.load(sys.argv[1] if len(sys.argv) > 1 else None)
    assert lm.tokenizer is not None
    quote = set(lm.tokenizer.encode('"""') + lm.tokenizer.encode(' """') + lm.tokenizer.encode('    """'))

    def no_docstring(path: Path, logits: Tensor) -> Tensor:
        """No triple quotes among the first five tokens of the output."""
        if len(path.output) < 5:
            logits[list(quote)] = -float("inf")
        return logits

    prompt = "def save(self, path):\n"
    settings = {"temperature": 0.6, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 3}
    for title, more in {
        "as it comes": {},
        "with a function of one's own": {"logits_processor": no_docstring},
        "in the order of llama.cpp": {"preset": "llamacpp"},
    }.items():
        result = lm.generate(prompt, max_new_tokens=32, **settings, **more)
        print(f"--- {title}")
        print(prompt + result.text.rstrip(), end="\n\n")
        print(*result.processors, sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
