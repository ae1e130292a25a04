"""`bench constraints`: its schemas and its rows. What it measures is never asserted."""

from __future__ import annotations

import json

import jsonschema
import pytest

from treille.bench import constraints
from treille.bench.rows import tables
from treille.bench.schemas import generated, of_the_task
from treille.errors import ParameterError


def test_every_document_satisfies_its_schema():
    """By the package `jsonschema`; the same seed gives the same schemas."""
    cases = [*of_the_task(12), *generated(60)]
    for case in cases:
        jsonschema.Draft202012Validator(case.schema).validate(json.loads(case.document))
    assert generated(5) == generated(5)
    assert len({json.dumps(case.schema) for case in cases}) > 60


def test_a_wrong_argument_is_refused():
    """In one line, with the way out."""
    with pytest.raises(ParameterError, match=r"bench constraints: .*--help"):
        constraints.main(["--schemas", "many"])
    with pytest.raises(ParameterError, match=r"bench constraints: .*choose from"):
        constraints.main(["--parts", "speed"])
    assert constraints.main(["--help"]) == 0


def test_rows_fill_a_table():
    """A row of the benchmark is a line of the table of constraints."""
    summary = constraints.Summary(1.0, 0.5, 2.0)
    row = constraints._row(
        "mask, p50", "bundled", "µs", summary, 5, baseline="plain", baseline_value=summary, ratio=summary
    )
    (table,) = tables([json.loads(json.dumps(row.to_json()))])
    assert table.marker == "bench:constraints"
    assert table.cells[0][:3] == ("mask, p50", "bundled", "µs")


def test_a_part_by_itself_writes_its_rows(tmp_path):
    """Masks of every kind beside plain llguidance, which follow every document to its end."""
    out = tmp_path / "rows.jsonl"
    assert constraints.main(["--quick", "--parts", "masks", "--out", str(out)]) == 0
    figures = [json.loads(line)["figure"] for line in out.read_text(encoding="utf-8").splitlines()]
    kinds = ("compile and first mask", "mask", "advance", "fork", "mask of a tree node")
    assert figures == [f"{kind}, p{quantile}" for kind in kinds for quantile in (50, 95, 99)]


def test_questions_of_the_json_task_are_answered_within_their_schemas(tmp_path):
    """A row per side and unit, each with the number of valid answers; the baseline is decoding without the schema."""
    out = tmp_path / "rows.jsonl"
    assert constraints.main(["--quick", "--parts", "json", "--draft", "prompt_lookup", "--out", str(out)]) == 0
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["unit"] for row in found] == ["tokens/s", "answers/s"] * 2
    assert all(row["note"].startswith("valid 5 of 5") and row["baseline"] == "without" for row in found)
    assert set(found[0]["extra"]["tokens"]) == {"without", "schema", "schema and prompt_lookup"}
