"""What the benchmarks' command lines share."""

import sys

import pytest
import torch

from treille.bench import arguments
from treille.errors import ParameterError


def test_the_parser_raises_what_is_wrong():
    """A complaint names the benchmark, what was given, and where the options are listed; nothing exits."""
    parser = arguments.Parser("core", "What it is.")
    parser.add_argument("--size", type=int)
    with pytest.raises(
        ParameterError, match=r"bench core: argument --size: invalid int value: 'x'; `treille bench core"
    ):
        parser.parse_args(["--size", "x"])
    assert parser.parse_args(["-h"]).help
    assert "What it is." in parser.format_help()


@pytest.mark.parametrize(("given", "quick", "rounds"), [(None, False, 5), (None, True, 2), (9, False, 9), (2, True, 2)])
def test_repeats_are_enough_for_a_spread(given, quick, rounds):
    """Without a number, the least that a median and its spread need; more on request."""
    assert arguments.repeats_of(given, quick=quick) == rounds


@pytest.mark.parametrize(("given", "quick"), [(4, False), (1, True), (0, False), (-3, True)])
def test_too_few_repeats_are_refused(given, quick):
    """The refusal names the value and the least."""
    with pytest.raises(ParameterError, match=rf"--repeats={given}: a median and its spread need at least \d"):
        arguments.repeats_of(given, quick=quick)


def test_a_device_is_there_or_refused(monkeypatch):
    """The CPU always; CUDA only where there is one; nothing else."""
    assert arguments.device_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert arguments.device_of("cuda:1") == torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParameterError, match=r"--device=cuda: this machine or this build of torch has no CUDA"):
        arguments.device_of("cuda")
    with pytest.raises(ParameterError, match=r"--device=tpu: choose cpu or cuda"):
        arguments.device_of("tpu")


def test_users_do_not_share_a_work_folder(monkeypatch):
    """Random checkpoints of another user cannot be in the way."""
    folders = []
    for user in ("ada", "ben"):
        monkeypatch.setattr(arguments.getpass, "getuser", lambda user=user: user)
        folders.append(arguments.work_folder())
    assert folders[0] != folders[1]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_terminals(terminal, monkeypatch, capsys):
    """What is running is said on stderr if someone looks at it; a file or a pipe stays clean."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with arguments.progress() as told:
        told("greedy")
    assert capsys.readouterr().out == ""
