"""The examples and the demonstration run offline and print what they promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAYS = {
    "examples/demo.py": ["--- greedy", "--- sample", "--- beam", "tokens/s", "in one batch"],
    "examples/four_strategies.py": ["--- greedy", "--- beam", "--- sample", "--- first_finish", "◆ 1", "└ "],
    "examples/ten_lines.py": ["two_steps(k=4", "greedy(", "rows computed"],
    "examples/processors.py": ["no_docstring", "temperature", "llama.cpp"],
}


def test_every_example_is_run():
    """A new example gets its line in the table above."""
    found = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}
    assert found == {name for name in SAYS if name.startswith("examples/")}


@pytest.mark.parametrize("name", SAYS)
def test_it_runs_and_prints_what_it_promises(name):
    """Exit code 0, nothing on stderr, the announced words on stdout, without a network."""
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / name], capture_output=True, env=os.environ | offline, check=False
    )
    out = done.stdout.decode()
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert [words for words in SAYS[name] if words not in out] == []
