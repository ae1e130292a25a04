"""The official test suite, every schema and every instance, byte by byte and in pieces."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from treille.constraints.json import Program, SchemaRefused

SCRIPT = Path(__file__).resolve().parents[4] / "scripts/schema_suite.py"


def load_script() -> Any:
    """The script that fetches and runs the suite."""
    spec = importlib.util.spec_from_file_location("schema_suite", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


schema_suite = load_script()


@pytest.fixture(scope="module")
def folder() -> Path:
    """The suite; without a network, TREILLE_OFFLINE=1 says so, and nothing else does."""
    if os.environ.get("TREILLE_OFFLINE") == "1" and not (schema_suite.cache_folder() / "tests").is_dir():
        pytest.skip("TREILLE_OFFLINE=1 and the official JSON Schema test suite is not in the cache")
    return schema_suite.fetch()


@pytest.mark.parametrize("draft", sorted(schema_suite.DRAFTS))
@pytest.mark.parametrize("part", ["required", "optional", "format"])
def test_every_schema_of_the_suite_is_right(folder: Path, draft: str, part: str) -> None:
    """With the documents it refers to at hand, no schema is refused and no instance judged wrongly."""
    suite = [case for case in schema_suite.cases(folder, [draft]) if case.part == part]
    registry = schema_suite.remotes(folder)
    wrong = [
        f"{case.keyword}: {case.description}: {outcome}"
        for case in suite
        if (outcome := schema_suite.judge(case, registry)) != "right"
    ]
    assert suite
    assert not wrong, "\n".join(wrong)


def test_without_documents_only_references_to_them_are_refused(folder: Path) -> None:
    """What the validator refuses of the required schemas, run alone, names a document that it does not have."""
    for case in schema_suite.cases(folder, ["draft2020-12"]):
        try:
            Program.compile(case.schema, formats=False)
        except SchemaRefused:
            assert schema_suite.REMOTE in repr(case.schema), f"{case.keyword}: {case.description}"
