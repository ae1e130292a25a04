"""The public names of the package."""

import subprocess
import sys
import tomllib
from pathlib import Path

import treille


def test_public_names_are_decided():
    """`__all__` is sorted and equals the names without underscore that the package defines or re-exports."""
    lazy = set(treille._LAZY)
    found = {
        name
        for name, value in vars(treille).items()
        if not name.startswith("_") and str(getattr(value, "__module__", "")).startswith("treille")
    }
    assert treille.__all__ == sorted(treille.__all__)
    assert set(treille.__all__) == found | lazy | {"__version__"}
    assert all(getattr(treille, name) is not None for name in treille.__all__)
    assert dir(treille) == treille.__all__


def test_unknown_names_are_refused():
    """A name that is not public raises AttributeError, as in any module."""
    assert not hasattr(treille, "beem")


def test_the_version_is_the_packages():
    """The version is the one in `pyproject.toml`."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert treille.__version__ == project["version"]


def test_importing_does_not_import_torch():
    """`import treille` and the command's help stay quick: torch is imported when a model is."""
    code = "import sys, treille.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
