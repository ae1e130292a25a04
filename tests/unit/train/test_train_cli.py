"""`treille train model` as a process."""

import subprocess
import sys

import pytest

from treille.cli import main


def run(*arguments, cwd):
    """The finished process of a command line."""
    return subprocess.run(
        [sys.executable, "-m", "treille", "train", "model", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_a_model_is_trained_and_named(tmp_path):
    """The command trains, exports and prints the model's directory; the card names the recipe."""
    done = run("--config", "tiny", "--out", "r", "--steps", "3", "--questions", "0", "--threads", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "r/model"
    assert "--config tiny" in (tmp_path / "r/model/README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "huge", "--out", "r"], "config huge"),
        (["--config", "tiny", "--out", "r", "--device", "tpu"], "device='tpu'"),
        (["--config", "tiny", "--out", "r", "--dtype", "int8"], "dtype='int8'"),
        (["--config", "tiny", "--out", "r", "--steps", "0"], "steps=0"),
        (["--config", "tiny", "--out", "r", "--questions", "-1"], "questions=-1"),
        (["--config", "tiny", "--out", "r", "--threads", "0"], "threads=0"),
        (["--config", "tiny", "--out", "file"], "out='file' is a file"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, part):
    """What cannot be honoured is one line on stderr with exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as done:
        main(["train", "model", *arguments])
    assert done.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert part in captured.err
    assert not (tmp_path / "r").exists()
