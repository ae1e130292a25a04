"""Four strategies decode the same prompt in one batch; the token tree of one of them is drawn.

The runs share every forward pass, and the keys and values of the prompt are computed and stored once.
"""

from __future__ import annotations

import sys

import treille

PROMPT = "def read_lines(path):"


def main() -> None:
    lm = treille.load(sys.argv[1] if len(sys.argv) > 1 else None)
    strategies = [
        treille.greedy(),
        treille.beam(width=3, num_return_sequences=2),
        treille.sample(temperature=0.7, top_p=0.9, seed=7, num_return_sequences=2),
        treille.first_finish(n=3, temperature=0.7, seed=7, stop_strings=["\n\n"]),
    ]
    results = lm.generate([PROMPT] * len(strategies), strategies, max_new_tokens=32, trace=True)
    for result in results:
        print(f"--- {result.strategy}")
        for candidate in result.candidates:
            print(PROMPT + candidate.text.rstrip())
            print(f"    # {len(candidate.tokens)} tokens, log-probability {candidate.logprob:.2f}\n")
    print("--- the token tree of beam search: ◆ returned, ✗ dropped before that step, at the right log-probabilities\n")
    print(results[1].trace.text(width=100))
    print("\nresult.trace.save('beam.html') writes a page that replays it step by step.")


if __name__ == "__main__":
    main()
