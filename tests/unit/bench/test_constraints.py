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
