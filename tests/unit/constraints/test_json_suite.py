"""The official JSON Schema test suite through both layers, mask and validator together."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from treille.constraints import Vocabulary, json_schema
from treille.errors import ParameterError

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
import schema_suite

EOS = 256
VOCABULARY = Vocabulary((*(bytes([byte]) for byte in range(256)), b"", b'{"', b'":', b"12"), frozenset((EOS,)), 260)


@pytest.fixture(scope="module")
def folder() -> Path:
    """The suite; without a network, TREILLE_OFFLINE=1 says so, and nothing else does."""
    if os.environ.get("TREILLE_OFFLINE") == "1" and not (schema_suite.cache_folder() / "tests").is_dir():
        pytest.skip("TREILLE_OFFLINE=1 and the official JSON Schema test suite is not in the cache")
    return schema_suite.fetch()


def judge(case, registry, *, ordered) -> str:
    """right, refused, under or over; under the default order, only compact and spaced documents must be taken."""
    try:
        constraint = json_schema(
            case.schema, ordered=ordered, formats=case.part == "format", registry=registry
        ).compile(VOCABULARY)
    except ParameterError:
        return "refused" if any(test["valid"] for test in case.tests) else "right"
    outcome = "right"
    for test in case.tests:
        for index, document in enumerate(schema_suite.spellings(test["data"])):
            tokens = (*document, EOS)
            taken = constraint.accepted(constraint.start(), tokens) == len(tokens)
            if taken and not test["valid"]:
                return "under"
            if test["valid"] and not taken and not (ordered and index == 2):
                outcome = "over"
    return outcome


@pytest.mark.parametrize(("ordered", "least"), [(False, 366), (True, 340)])
def test_no_schema_is_weakened(folder, ordered, least) -> None:
    """No invalid instance of the required schemas is taken; nearly all schemas are fully right, and none is refused."""
    registry = schema_suite.remotes(folder)
    cases = [case for case in schema_suite.cases(folder, ["draft2020-12"]) if case.part == "required"]
    judged = {f"{case.keyword}: {case.description}": judge(case, registry, ordered=ordered) for case in cases}
    counts = Counter(judged.values())
    assert not counts["under"], [name for name, outcome in judged.items() if outcome == "under"]
    assert counts["right"] >= least, [f"{name}: {found}" for name, found in judged.items() if found != "right"]
