"""The official JSON Schema test suite through both layers, mask and validator together."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
import schema_suite


@pytest.fixture(scope="module")
def folder() -> Path:
    """The suite; without a network, TREILLE_OFFLINE=1 says so, and nothing else does."""
    if os.environ.get("TREILLE_OFFLINE") == "1" and not (schema_suite.cache_folder() / "tests").is_dir():
        pytest.skip("TREILLE_OFFLINE=1 and the official JSON Schema test suite is not in the cache")
    return schema_suite.fetch()


@pytest.mark.parametrize(("ordered", "least"), [(False, 367), (True, 354)])
def test_no_schema_is_weakened(folder, ordered, least) -> None:
    """No invalid instance is taken and no schema refused; valid ones are not taken only for order and spelling."""
    registry = schema_suite.remotes(folder)
    cases = [case for case in schema_suite.cases(folder, ["draft2020-12"]) if case.part == "required"]
    judged = {
        f"{case.keyword}: {case.description}": schema_suite.judge_layers(case, registry, ordered=ordered)
        for case in cases
    }
    counts = Counter(judged.values())
    assert not counts["under"], [name for name, outcome in judged.items() if outcome == "under"]
    assert not counts["refused"]
    assert counts["right"] >= least, [f"{name}: {found}" for name, found in judged.items() if found != "right"]
