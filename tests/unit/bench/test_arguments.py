"""What the benchmarks' command lines share."""

import sys

import pytest
import torch

from treille.bench import arguments, rows
from treille.bench.measure import Summary
from treille.errors import ParameterError


def row(figure):
    """A row about nothing."""
    return rows.Row(
        case="greedy", figure=figure, model="bundled", dtype="bfloat16", device="cpu", batch=1, prompt=(), new=(),
        repeats=1, unit="tokens/s", value=Summary.of([1.0]), ratio=Summary.of([1.0]),
        environment=rows.environment(torch.device("cpu")),
    )  # fmt: skip


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


def test_what_was_written_is_told_from_what_is_the_default():
    """Also an option that is given its default value; a switch, a list and what is left out."""
    parser = arguments.Parser("core", None)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--no-governor", action="store_true")
    parser.add_argument("--model", default="bundled")
    assert arguments.written(parser, []) == set()
    assert arguments.written(parser, ["--batch", "1", "8"]) == {"batch"}
    assert arguments.written(parser, ["--no-governor", "--model", "bundled"]) == {"no_governor", "model"}


def test_output_is_kept_part_by_part(tmp_path, monkeypatch, capsys):
    """Rows go to `--out` as they come, then to a picture and documents; `--render` measures nothing."""
    monkeypatch.chdir(tmp_path)
    parser = arguments.Parser("core", None)
    arguments.add_output(parser, "core", "the bars")
    page = tmp_path / "page.md"
    page.write_text("<!-- bench:core -->\n<!-- /bench:core -->\n")

    def parts():
        yield [row("one")]
        yield [row("two"), row("three")]
        msg = "the machine fell over"
        raise OSError(msg)

    options = parser.parse_args(["--picture", "bars.svg", "--fill", str(page)])
    with pytest.raises(OSError, match="fell over"):
        arguments.collect(options, parts())
    assert [kept["figure"] for kept in rows.read(options.out)] == ["one", "two", "three"]
    assert [kept.figure for kept in arguments.collect(options, [[row("two")]])] == ["two"]
    assert "1 rows written to benchmarks/out/core.jsonl" in capsys.readouterr().out
    arguments.publish(options, lambda found: f"<svg>{len(found)}</svg>")
    assert (tmp_path / "bars.svg").read_text() == "<svg>3</svg>"
    assert page.read_text().count("| bundled, bfloat16 |") == 3
    assert arguments.collect(parser.parse_args(["--render"]), parts()) == []


def test_a_benchmark_without_a_picture_has_no_option_for_one():
    """What cannot be drawn is refused like any unknown option."""
    parser = arguments.Parser("core", None)
    arguments.add_output(parser, "core")
    with pytest.raises(ParameterError, match=r"unrecognized arguments: --picture"):
        parser.parse_args(["--picture", "bars.svg"])


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
