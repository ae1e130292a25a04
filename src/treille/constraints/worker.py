"""The process in which `treille.constraints.bounded` tries a grammar; run as a script, so that it imports little.

Reads one JSON object from standard input (the vocabulary, the grammar, the limits on memory in bytes and on time in
seconds), compiles the grammar and computes its first mask, and writes llguidance's message, empty where there is none,
as JSON.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import llguidance


def main() -> None:
    """Compile the grammar of standard input."""
    task = json.load(sys.stdin)
    limit(task["memory"], task["seconds"])
    wrapper = llguidance.TokenizerWrapper(_Table(task))
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer(wrapper, eos_token=task["eos"]), task["grammar"], log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()
    json.dump(matcher.get_error(), sys.stdout)


class _Table:
    """A vocabulary; it spells byte by byte, which plays no part in compiling."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.tokens = [token.encode("latin-1") for token in task["tokens"]]
        self.special_token_ids = task["special"]
        self.eos_token_id = task["eos"][0]
        self.bos_token_id = None
        self._ids = {token: index for index, token in enumerate(self.tokens)}

    def __call__(self, text: bytes) -> list[int]:
        return [self._ids[bytes([byte])] for byte in text if bytes([byte]) in self._ids]


def limit(size: int, seconds: int) -> None:
    """Bound this process's address space and processor time, where the system can."""
    try:
        import resource
    except ImportError:  # pragma: no cover  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    main()
