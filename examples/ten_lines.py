"""A decoding strategy of one's own in ten lines, registered under its name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import treille
from treille import Choice, Forward, Output, Run, TopK, strategy

if TYPE_CHECKING:
    from collections.abc import Generator

    from treille.requests import Request


@strategy(exactness="the most probable pair of tokens at every step", cost="k rows per token")
def two_steps(run: Run, k: int = 4) -> Generator[Request, Any, Output]:
    """Of the k best tokens the one that, with its own best successor, makes the most probable pair."""
    text = run.start
    (top,) = yield Forward([text.node], TopK(k))
    while text.finish_reason is None:
        grown = [run.extend(text, each) for each in map(Choice, top.tokens, top.logprobs, top.raw_logprobs)]
        tops = yield Forward([each.node for each in grown], TopK(k))
        pairs = [
            g.logprob + (t.logprobs[0] if g.finish_reason is None else 0) for g, t in zip(grown, tops, strict=True)
        ]
        text, top = grown[pairs.index(max(pairs))], tops[pairs.index(max(pairs))]
        run.settle(text.node)
    return Output((text,))


def main() -> None:
    lm = treille.load(sys.argv[1] if len(sys.argv) > 1 else None)
    prompt = "def first(items):"
    # By its name, as any strategy; `two_steps(k=4)` would do too. It streams, as it says what is settled.
    with lm.stream(prompt, "two_steps", k=4, max_new_tokens=32) as stream:
        print(prompt, end="")
        for piece in stream:
            print(piece, end="", flush=True)
    careful, plain = stream.result, lm.generate(prompt, "greedy", max_new_tokens=32)
    print("\n")
    for result in (plain, careful):
        rows = result.stats.rows - result.stats.prompt_rows
        print(f"{result.strategy:40} log-probability {result.logprob:7.2f}, {rows} rows computed")


if __name__ == "__main__":
    main()
