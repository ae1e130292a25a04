"""Rows: as JSON lines, as tables in documents."""

import json

import pytest
import torch

from treille.bench import rows
from treille.bench.measure import Summary
from treille.errors import ParameterError


def row(**changes):
    """A row about nothing."""
    known = {
        "case": "greedy",
        "figure": "greedy",
        "model": "bundled",
        "dtype": "bfloat16",
        "device": "cpu",
        "batch": 1,
        "prompt": (4,),
        "new": (8,),
        "repeats": 5,
        "unit": "tokens/s",
        "value": Summary(200.0, 190.0, 210.0),
        "baseline": "generate",
        "baseline_value": Summary(50.0, 45.0, 55.0),
        "ratio": Summary(4.0, 3.5, 4.5),
        "aim": "≥ 2×",
        "environment": rows.environment(torch.device("cpu")),
    }
    return rows.Row(**{**known, **changes})


def test_a_row_names_everything_it_depends_on():
    """Commit, date, hardware, threads and versions are part of every row."""
    found = row().to_json()
    assert found["benchmark"] == "core"
    wanted = {"commit", "date", "hardware", "threads", "load", "python", "torch", "transformers"}
    assert set(found["environment"]) == wanted
    assert all(found["environment"][name] for name in wanted - {"load"})


def test_merging_replaces_the_same_figure_and_keeps_the_others(tmp_path):
    """A file holds one row per case, figure, model, dtype and device: the last one measured."""
    file = tmp_path / "new folder/core.jsonl"
    rows.merge(file, [row(), row(figure="beam", case="beam")])
    rows.merge(file, [row(value=Summary(1.0, 1.0, 1.0))])
    assert [(r["figure"], r["value"]["median"]) for r in rows.read(file)] == [("greedy", 1.0), ("beam", 200.0)]


@pytest.mark.parametrize("text", ["{", "[]", '{"case": 1}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    """A file that holds no rows is named with the way out."""
    file = tmp_path / "core.jsonl"
    file.write_text(text)
    with pytest.raises(ParameterError, match=r"core\.jsonl: holds no rows .* --out"):
        rows.read(file)
    with pytest.raises(ParameterError, match=r"missing\.jsonl: cannot be read"):
        rows.read(tmp_path / "missing.jsonl")


def test_tables_stand_between_their_markers(tmp_path):
    """`fill` replaces what is between the markers of the tables there are, and leaves the rest alone."""
    document = tmp_path / "page.md"
    text = (
        "before\n<!-- bench:core -->\nold\n<!-- /bench:core -->\n<!-- bench:cuda -->\nkept\n<!-- /bench:cuda -->\nafter"
    )
    document.write_text(text)
    known = [row(note="a | b").to_json(), row(case="forward", figure="8 rows").to_json()]
    known[1]["extra"]["relative"] = {"median": 2.0, "low": 1.5, "high": 2.5}
    for _ in range(2):  # filling again changes nothing
        assert rows.fill(document, known) == ["bench:core"]
        lines = document.read_text().splitlines()
        assert lines[0] == "before"
        assert lines[-4:] == ["<!-- bench:cuda -->", "kept", "<!-- /bench:cuda -->", "after"]
        cells = "greedy | bundled, bfloat16 | 200 tokens/s | generate: 50 tokens/s | 4× (3.5 to 4.5) | ≥ 2× | a \\| b"
        assert f"| {cells} |" in lines
        assert "old" not in lines


def test_a_document_without_markers_is_refused(tmp_path):
    """Tables that would go nowhere are an error."""
    document = tmp_path / "page.md"
    document.write_text("nothing here")
    with pytest.raises(ParameterError, match=r"page\.md: has no marker such as <!-- bench:core -->"):
        rows.fill(document, [row().to_json()])


def test_tables_are_sorted_by_device_and_kind():
    """Rows of a GPU have tables of their own."""
    extra = {"step": {"median": 1.0, "low": 1.0, "high": 1.0}}
    known = [
        row(),
        row(device="cuda"),
        row(case="overhead", extra=extra),
        row(case="overhead", device="cuda", extra=extra),
    ]
    markers = [table.marker for table in rows.tables([r.to_json() for r in known])]
    assert markers == ["bench:core", "bench:cuda", "bench:overhead", "bench:cuda-overhead"]


def test_a_row_of_a_drafter_names_what_is_not_the_default():
    """Task, level, temperature, verification, governor; rows of texts that were compared have a table of their own."""
    plain = {"task": "lists", "level": None, "temperature": 0.0, "verification": "match", "governor": True}
    assert rows.task_and_settings(plain) == rows.task_and_settings({"task": "lists"}) == "lists"
    changed = {"level": 2, "temperature": 0.8, "verification": "rejection", "governor": False}
    assert rows.task_and_settings(plain | changed) == "lists, level 2, temperature 0.8, rejection, no governor"
    counts = {"drafter": "suffix", "texts": 9, "tokens": 72, "equal": 7, "ties": 2, "wrong": 0, "tau": 1.25}
    (table,) = rows.tables([row(benchmark="speculate", case="check", batch=16, extra=counts).to_json()])
    assert table.marker == "bench:check"
    assert table.cells == (("suffix", "9", "72", "7", "2", "0", "1.25", ""),)


def test_rows_are_plain_values():
    """A row survives JSON."""
    assert json.loads(json.dumps(row().to_json()))["value"] == {"median": 200.0, "low": 190.0, "high": 210.0}
