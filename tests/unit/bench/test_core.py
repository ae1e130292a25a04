"""The command: it runs on a tiny shape and writes valid rows. What it measures is never asserted."""

import json

import pytest
import torch

from treille.bench import core, shapes
from treille.errors import ParameterError
from treille.language_model import load

FIELDS = {
    "benchmark", "case", "figure", "model", "dtype", "device", "batch", "prompt", "new", "repeats", "unit", "value",
    "baseline", "baseline_value", "ratio", "aim", "note", "extra", "environment",
}  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Where the random checkpoint is kept."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def measured(work, tmp_path):
    """Runs cases on the tiny shape; their rows."""

    def run(*cases):
        out = tmp_path / "rows.jsonl"
        arguments = ["--quick", "--model", "tiny", "--only", ",".join(cases), "--out", str(out), "--work", str(work)]
        assert core.main(arguments) == 0
        return [json.loads(line) for line in out.read_text().splitlines()]

    return run


def check(row):
    """A row has all fields, and its spread holds its median."""
    assert set(row) == FIELDS
    assert (row["model"], row["dtype"], row["device"], row["repeats"]) == ("tiny shape", "bfloat16", "cpu", 2)
    for summary in (row["value"], row["baseline_value"], row["ratio"]):
        assert summary is None or 0 < summary["low"] <= summary["median"] <= summary["high"]


def test_the_shape_is_written_once_and_both_sides_read_it(work):
    """A random checkpoint is kept, loads, and has the sizes of its shape."""
    directory = shapes.checkpoint("tiny", torch.bfloat16, work)
    written = (directory / "model.safetensors").stat().st_mtime_ns
    assert shapes.checkpoint("tiny", torch.bfloat16, work) == directory
    assert (directory / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in work.iterdir()] == ["tiny-bfloat16"]
    shape = load(directory).checkpoint.decoder.shape
    assert (shape.layers, shape.hidden, shape.kv_heads, shape.vocab_size) == (2, 64, 2, 256)


def test_forward_and_overhead_write_rows(measured):
    """These cases need no `transformers`: a row per number of rows, and one per figure of the overhead."""
    rows = measured("forward", "overhead")
    for row in rows:
        check(row)
    assert [row["batch"] for row in rows if row["case"] == "forward"] == [1, 2, 4, 8, 16, 32]
    assert {row["figure"] for row in rows if row["case"] == "overhead"} == {"engine", "everything outside the kernels"}
    assert all(0 < row["value"]["median"] < 100 for row in rows if row["case"] == "overhead")


def test_decoding_is_measured_against_transformers(measured):
    """Greedy, beam search and best of n write rows with a baseline; the prompt of best of n is computed once."""
    pytest.importorskip("transformers")
    rows = measured("greedy", "beam", "best_of")
    for row in rows:
        check(row)
    assert [row["case"] for row in rows] == ["greedy", "greedy", "beam", "best_of"]
    assert rows[3]["extra"]["prompt_rows"] == rows[3]["prompt"][0]
    assert rows[3]["extra"]["slots_held"] <= rows[3]["prompt"][0] + rows[3]["batch"] * rows[3]["new"][0]


@pytest.mark.slow
def test_samples_are_measured_against_both_ways_of_batching(measured):
    """The row of many samples knows what padded and continuous batching reached."""
    pytest.importorskip("transformers")
    (row,) = measured("samples")
    check(row)
    assert any(name.startswith("padded batch") for name in row["extra"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "gredy"], r"--only=gredy: there is no case 'gredy'; choose from greedy, "),
        (["--repeats", "3"], r"--repeats=3: a median and its spread need at least 5"),
        (["--device", "tpu"], r"--device=tpu: choose cpu or cuda"),
        (["--threads", "0"], r"--threads=0: must be at least 1"),
        (["--frob"], r"bench core: unrecognized arguments: --frob; `treille bench core --help`"),
        (["--render", "--out", "missing.jsonl"], r"missing\.jsonl: cannot be read"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_measured(arguments, message):
    """Every refusal names the value, the reason and the way out."""
    with pytest.raises(ParameterError, match=message):
        core.main(arguments)


def test_the_cases_can_be_listed(capsys):
    """`--list` names every case; `--help` names every option."""
    assert core.main(["--list"]) == core.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in [*core.CASES, "--quick", "--out", "--fill"])


def test_a_missing_baseline_is_named(measured, monkeypatch):
    """Without `transformers`, the cases that need it say so and how to get it."""
    monkeypatch.setattr("treille.bench.baseline.find_spec", lambda _: None)
    with pytest.raises(ParameterError, match=r"transformers is not installed.*pip install 'treille\[transformers\]'"):
        measured("greedy")
