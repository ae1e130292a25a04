"""What `make demo` shows: the bundled model decodes one prompt by three strategies in one batch."""

from __future__ import annotations

import argparse
import time

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table

import treille


def main() -> None:
    """Decode, and print texts and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="def read_lines(path):", help="text to continue")
    parser.add_argument("--model", help="directory or Hub name [default: the bundled model]")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    arguments = parser.parse_args()
    console = Console(highlight=False)
    strategies = [
        treille.greedy(),
        treille.beam(width=4),
        treille.sample(temperature=0.7, top_p=0.9, seed=1),
    ]
    with console.status("loading the model, compiling its kernels (once per machine)"):
        lm = treille.load(arguments.model)
        lm.generate(arguments.prompt, "beam", width=4, max_new_tokens=4)
    prompts = [arguments.prompt] * len(strategies)
    began = time.perf_counter()
    with console.status("decoding"):
        results = lm.generate(prompts, strategies, max_new_tokens=arguments.max_new_tokens)
    seconds = time.perf_counter() - began
    table = Table("strategy", "tokens", "forwards per token", "rows per token", "log-probability", box=None)
    for result in results:
        code = Syntax(arguments.prompt + result.text.rstrip(), "python", background_color="default", word_wrap=True)
        console.print(Panel(code, title=result.strategy, title_align="left", border_style="green"))
        stats, count = result.stats, len(result.tokens)
        rows = (stats.rows - stats.prompt_rows) / count
        figures = (f"{count}", f"{stats.forwards / count:.2f}", f"{rows:.2f}", f"{result.logprob:.2f}")
        table.add_row(result.strategy.split("(")[0], *figures)
    console.print(table)
    emitted = sum(len(result.tokens) for result in results)
    console.print(
        f"\n{emitted} tokens in {seconds:.2f} s, all three runs in one batch: "
        f"[bold]{emitted / seconds:.0f} tokens/s[/bold]. The prompt was computed once."
    )
    console.print("Next: `treille strategies`, `treille generate --help`, examples/, docs/.", markup=False)


if __name__ == "__main__":
    main()
