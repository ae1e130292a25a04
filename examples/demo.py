"""Decode one prompt by three strategies, one after the other and in one batch; `make demo` runs this."""

import sys
import time

import treille
from treille import beam, greedy, sample


def main(prompt: str = "def read_file(path):") -> None:
    """Print text, tokens per second and forwards per token of each strategy."""
    lm = treille.load()
    strategies = [greedy(), sample(temperature=0.7, top_p=0.9, seed=3), beam(width=4)]
    lm.generate("import", max_new_tokens=4)  # the first use compiles or loads the CPU kernels
    for strategy in strategies:
        out = lm.generate(prompt, strategy, max_new_tokens=64)
        tokens = len(out.tokens)
        print(f"--- {out.strategy}")
        print(prompt + out.text)
        print(
            f"    {tokens} tokens, {tokens / out.stats.seconds['total']:.0f} tokens/s, "
            f"{out.stats.forwards / tokens:.2f} forwards per token, log-probability {out.raw_logprob:.1f} nats\n"
        )
    started = time.perf_counter()
    outs = lm.generate([prompt] * len(strategies), strategies, max_new_tokens=64)
    seconds, tokens = time.perf_counter() - started, sum(len(out.tokens) for out in outs)
    print(f"--- all {len(outs)} in one batch: {tokens} tokens, {tokens / seconds:.0f} tokens/s")


if __name__ == "__main__":
    main(*sys.argv[1:2])
