"""Compiling hostile input within bounds: a large grammar is tried in a process of its own first.

llguidance bounds most of the work of a grammar by itself (fuel, items, symbols), whatever the text says. What it does
not bound grows with the size of the text, so a grammar of more than `SMALL` characters is first compiled in a process
with limits on time and memory; only what passes is compiled here.
"""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

from treille.constraints.messages import first_line
from treille.constraints.vocabulary import Vocabulary
from treille.errors import ParameterError

SMALL = 8192
"""Characters of a grammar that is compiled without trying it first: up to 0.25 s on one core."""
SECONDS = 2.5
"""Processor time of the trial; compiling again afterwards takes as long at most."""
PATIENCE = 4
"""How many times as long it may take on a busy machine."""
MEMORY = 1 << 30
"""Bytes of address space of the trial."""


class TooLarge(ParameterError):
    """A grammar needs more time or memory to compile than it may have."""


def check_bounded(grammar: str, vocabulary: Vocabulary, name: str) -> None:
    """Nothing, if `grammar` is small or compiles within the limits.

    Args:
        grammar: What llguidance reads.
        vocabulary: Its tokens.
        name: What messages call the source.

    Raises:
        TooLarge: It does not compile within the limits.
        ParameterError: It does not compile.
    """
    if len(grammar) <= SMALL:
        return
    task = json.dumps(
        {
            "tokens": [token.decode("latin-1") for token in vocabulary.guidance_tokens],
            "special": sorted(vocabulary.special),
            "eos": sorted(vocabulary.eos),
            "memory": MEMORY,
            "seconds": math.ceil(SECONDS),
            "grammar": grammar,
        }
    )
    command = [sys.executable, "-I", str(Path(__file__).with_name("worker.py"))]
    too_large = f"{name}: {len(grammar)} characters need more than"
    way_out = "split the language, or list strings with trie(), which has no such limit"
    try:
        trial = subprocess.run(  # noqa: S603
            command, input=task, capture_output=True, text=True, timeout=PATIENCE * SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TooLarge(f"{too_large} {SECONDS} s to compile; {way_out}") from error
    if trial.returncode == -signal.SIGXCPU:
        raise TooLarge(f"{too_large} {SECONDS} s to compile; {way_out}")
    if trial.returncode:
        raise TooLarge(f"{too_large} {MEMORY >> 20} MiB to compile; {way_out}")
    if message := json.loads(trial.stdout):
        raise ParameterError(f"{name}: {first_line(message)}")
