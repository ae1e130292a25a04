"""`bench speculate`: figures of drafting, texts and replay, rows and refusals. What it measures is never asserted."""

import json

import numpy as np
import pytest
import torch

from treille.bench import rows, speculate
from treille.bench.equality import Equality
from treille.bench.rounds import Decoding, Round, in_turns
from treille.bench.texts import BEGUN, CODE, Text, task_texts
from treille.errors import ParameterError
from treille.hooks import DraftCounts
from treille.language_model import load
from treille.sampling.path import Path


@pytest.fixture(scope="module")
def lm():
    """The bundled model."""
    return load(prefix_cache=False)


@pytest.fixture
def command(lm, monkeypatch, tmp_path):
    """Runs the command on the loaded model, in an empty folder; the rows that it wrote."""
    monkeypatch.setattr(speculate, "load", lambda *_, **__: lm)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        assert speculate.main(["--quick", *arguments]) == 0
        lines = (tmp_path / "benchmarks/out/speculate.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return run


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_of_a_run():
    """τ is tokens per forward; rows hold the text's own one; acceptance is kept over tried at each depth."""
    counts = DraftCounts(10, 20, 12, 22, tried=[10, 8], kept=[8, 4], depths=[0, 0, 10], seconds=0.001)
    found = speculate.figures(counts)
    assert (found["tau"], found["rows"], found["acceptance"], found["draft_us"]) == (2.2, 3.0, [0.8, 0.5], 100.0)
    nothing = speculate.figures(DraftCounts())
    assert (nothing["rows"], nothing["acceptance"]) == (1.0, [])


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("gamma", [0, 1, 3])
def test_the_prediction_is_the_formula_of_the_paper(alpha, gamma):
    """For one depth γ it is (1 - α^(γ + 1)) / (1 - α), γ + 1 where everything is accepted."""
    counts = DraftCounts(steps=8, tried=[400], kept=[int(400 * alpha)], depths=[0] * gamma + [8])
    formula = gamma + 1 if alpha == 1 else (1 - alpha ** (gamma + 1)) / (1 - alpha)
    assert speculate.predicted(counts) == pytest.approx(formula)


def test_the_prediction_averages_over_depths():
    """Steps without a draft count one token each."""
    counts = DraftCounts(steps=4, tried=[100], kept=[50], depths=[2, 0, 2])
    assert speculate.predicted(counts) == pytest.approx((2 * 1 + 2 * 1.75) / 4)


# --- texts ------------------------------------------------------------------------------------------------------------


def test_texts_are_questions_or_begun_functions(lm):
    """A text of a task is its question after the chat template; one of `code` is the beginning of a function."""
    lists = task_texts(lm, "lists", 3, 8)
    assert len(lists) == 3
    assert all(lm.tokenizer.decode(text.prompt) and 0 < len(text.answer) <= 8 for text in lists)
    code = task_texts(lm, CODE, 2, 8)
    assert [(len(text.prompt), len(text.answer)) for text in code] == [(BEGUN, 8)] * 2
    assert all(lm.tokenizer.decode(text.prompt).startswith(("def ", "class ", "@", "async ")) for text in code)


def test_a_replayed_text_is_written_by_any_model(lm):
    """The recorded answer comes out whatever the model would say, with a drafter as without."""
    text = Text(lm.encode("x = "), (5, 900, 17, 17, 2000, 5))
    options = {"logits_processor": text.replay, "max_new_tokens": 6, "eos_token_id": []}
    assert lm.generate(text.prompt, **options).tokens == text.answer
    assert lm.generate(text.prompt, draft="prompt_lookup", **options).tokens == text.answer


def test_replay_leaves_the_model_its_opinion_off_the_text():
    """After another token than the recorded one, or at its end, logits stay as they are."""
    replay = Text([1], (3, 4)).replay

    def path(*tokens):
        return Path(np.array([1, *tokens], dtype=np.int32), 1)

    for tokens in ((2,), (3, 4), (3, 4, 5)):
        assert replay(path(*tokens), torch.zeros(6)).tolist() == [0.0] * 6
    assert replay(path(), torch.zeros(6)).argmax() == 3
    assert replay(path(3), torch.zeros(6)).argmax() == 4


# --- rows -------------------------------------------------------------------------------------------------------------


def test_the_command_writes_rows_tables_and_a_picture(command, tmp_path, capsys):
    """A row per drafter, task and batch size, against plain decoding in the same rounds, and one of plain decoding."""
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- bench:speculate-{n} -->\n<!-- /bench:speculate-{n} -->\n" for n in (1, 2)))
    given = ["--tasks", "lists", "--drafters", "prompt_lookup:k=3", "suffix", "--batch", "1", "2"]
    rows = command(*given, "--picture", "ratios.svg", "--fill", str(page))
    named = [(row["extra"]["task"], row["batch"], row["extra"]["drafter"]) for row in rows]
    assert named == [("lists", batch, name) for batch in (1, 2) for name in ("plain", "prompt_lookup:k=3", "suffix")]
    for row in rows:
        assert (row["benchmark"], row["baseline"], row["repeats"], row["model"]) == ("speculate", "plain", 2, "bundled")
        assert row["extra"]["tau"] >= 1
        assert row["extra"]["rows"] >= 1
        assert row["extra"]["governor"] is True
        for summary in (row["value"], row["baseline_value"], row["ratio"], row["extra"]["after_prompt"]):
            assert 0 < summary["low"] <= summary["median"] <= summary["high"]
    assert "6 rows written" in capsys.readouterr().out
    assert page.read_text().count("| prompt_lookup:k=3 | lists | bundled |") == 2
    assert "lists (bundled)" in (tmp_path / "ratios.svg").read_text()


def test_sampling_is_measured_too(command):
    """With a temperature texts are drawn, and drafts verified as asked."""
    _, row = command(
        "--tasks", "lists", "--drafters", "prompt_lookup", "--batch", "1", "--temperature", "0.8",
        "--verification", "rejection", "--no-governor",
    )  # fmt: skip
    assert {key: row["extra"][key] for key in ("temperature", "verification", "governor")} == {
        "temperature": 0.8,
        "verification": "rejection",
        "governor": False,
    }


def test_rows_count_the_rounds_that_are_timed(lm, monkeypatch, tmp_path):
    """The first decoding and the one that warms up, in which the governor learns, are in no figure of a row."""

    class Learning:
        """Writes more per step in every round."""

        def __init__(self, *_):
            self.rounds = []

        def __call__(self):
            index = len(self.rounds)
            self.rounds.append(Round(2.0, 1.0, 8, DraftCounts(steps=1, emitted=10**index)))
            return 2.0

    monkeypatch.setattr(speculate, "load", lambda *_, **__: lm)
    monkeypatch.setattr(speculate, "Decoding", Learning)
    monkeypatch.setattr(speculate, "in_turns", lambda *sides: sum(side() for side in sides))
    monkeypatch.chdir(tmp_path)
    speculate.main(["--quick", "--tasks", "lists", "--drafters", "prompt_lookup", "--batch", "1"])
    _, row = rows.read(tmp_path / "benchmarks/out/speculate.jsonl")
    assert row["extra"]["tau"] == (100 + 1000) / 2


def test_what_plain_decoding_refuses_ends_the_run(lm, monkeypatch, tmp_path):
    """A drafter that cannot be run is left out; without plain decoding there is nothing to compare with."""

    class Refused:
        """Cannot be run."""

        def __init__(self, *_):
            pass

        def __call__(self):
            raise ParameterError("temperature: no")

    monkeypatch.setattr(speculate, "load", lambda *_, **__: lm)
    monkeypatch.setattr(speculate, "Decoding", Refused)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="temperature: no"):
        speculate.main(["--quick", "--tasks", "lists", "--drafters", "prompt_lookup", "--batch", "1"])


def test_sides_take_turns_batch_by_batch(lm, monkeypatch):
    """Each decodes every text once a round, the second one first in every other batch and round."""
    texts = task_texts(lm, "lists", 4, 4)
    first, second = (Decoding(lm, texts, 2, {"max_new_tokens": 4}, replayed=False) for _ in range(2))
    order = []
    decode = Decoding.decode
    monkeypatch.setattr(Decoding, "decode", lambda side, at: (order.append((side is first, at)), decode(side, at)))
    for _ in range(2):
        assert in_turns(first, second) > 0
    assert order == [
        (False, 0), (True, 0), (True, 2), (False, 2),
        (True, 0), (False, 0), (False, 2), (True, 2),
    ]  # fmt: skip
    for side in (first, second):
        assert [one.tokens for one in side.rounds] == [16, 16]
        assert all(0 < one.after_prompt < one.seconds for one in side.rounds)


def test_a_second_ratio_leaves_the_prompts_out():
    """Both ratios are of tokens per second within a round; the second counts the time after the prompts only."""
    plain = [Round(10.0, 8.0, 16, DraftCounts()), Round(20.0, 16.0, 16, DraftCounts())]
    drafted = [Round(6.0, 4.0, 16, DraftCounts()), Round(10.0, 4.0, 8, DraftCounts())]
    found = speculate.compared(drafted, plain, {"task": "t"})
    assert (found["ratio"].low, found["ratio"].high) == pytest.approx((1.0, 10 / 6))
    after = found["extra"]["after_prompt"]
    assert (after.low, after.high) == pytest.approx((2.0, 2.0))
    assert found["extra"]["task"] == "t"


def test_the_picture_shows_batch_1():
    """One panel per task, one bar per drafter; other batch sizes and other benchmarks are left out."""
    rows = [
        {
            "benchmark": name,
            "case": case,
            "batch": batch,
            "model": "m",
            "ratio": {"median": ratio},
            "extra": {"task": "t", "drafter": d},
        }
        for name, case, batch, d, ratio in (
            ("speculate", "speculate, batch 1", 1, "good", 1.5),
            ("speculate", "speculate, batch 1", 1, "bad", 0.9),
            ("speculate", "speculate, batch 8", 8, "many", 3.0),
            ("speculate", "check", 1, "compared", 1.0),
            ("core", "greedy", 1, "other", 2.0),
        )
    ]
    svg = speculate.picture(rows)
    assert all(text in svg for text in ("t (m)", "good", "1.50", "bad", "0.90"))
    assert not any(text in svg for text in ("many", "compared", "other"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "jsn"], r"--tasks=jsn: there is no task 'jsn'; choose from python_edit,.* code"),
        (["--drafters", "promt_lookup"], r"draft='promt_lookup' is not known; did you mean 'prompt_lookup'"),
        (["--drafters", "prompt_lookup:l=3"], r"draft='prompt_lookup': has no parameter l=3"),
        (["--repeats", "3"], r"--repeats=3: a median and its spread need at least 5"),
        (["--model", "7b", "--tasks", "lists", "--texts", "1"], r"--model=7b: choose bundled, "),
        (["--texts", "0"], r"--texts=0: must be at least 1"),
        (["--new", "-1"], r"--new=-1: must be at least 1"),
        (["--batch", "1", "0"], r"--batch=0: must be at least 1"),
        (["--level", "-1"], r"--level=-1: the easiest level is 0"),
        (["--tasks", "code", "--new", "100000"], r"--new=100000: no text of code is that long"),
        (["--check", "0"], r"--check=0: at least one prompt is wanted"),
        (["--check", "2", "--drafters", "suffx"], r"draft='suffx' is not known"),
        (["--check", "2", "--batch", "1", "8"], r"--check compares greedy texts, and has no use for --batch; leave"),
        (["--check", "2", "--tasks", "lists", "--no-governor"], r"has no use for --no-governor, --tasks; leave"),
        (["--check", "2", "--picture", "p.svg"], r"has no use for --picture; leave"),
        (["--frob"], r"bench speculate: unrecognized arguments: --frob; `treille bench speculate --help`"),
        (["--render", "--out", "missing.jsonl"], r"missing\.jsonl: cannot be read"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_measured(arguments, message, lm, monkeypatch):
    """Every refusal names the value, the reason and the way out."""
    monkeypatch.setattr(speculate, "load", lambda *_, **__: lm)
    monkeypatch.setattr(speculate, "alternate", lambda *_: pytest.fail("something was measured"))
    monkeypatch.setattr(speculate, "compare", lambda *_: pytest.fail("something was compared"))
    with pytest.raises(ParameterError, match=message):
        speculate.main(arguments)


# --- equal texts ------------------------------------------------------------------------------------------------------


def test_checked_texts_are_rows_and_a_table(monkeypatch, tmp_path, capsys):
    """`--check` says of each drafter how many greedy texts are the plain ones, and of no text how fast it came."""
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("<!-- bench:check -->\n<!-- /bench:check -->\n")
    given = ["--check", "3", "--quick", "--drafters", "prompt_lookup:k=3", "suffix", "--fill", str(page)]
    assert speculate.main(given) == 0
    found = rows.read(tmp_path / "benchmarks/out/speculate.jsonl")
    assert [row["extra"]["drafter"] for row in found] == ["prompt_lookup:k=3", "suffix"]
    for row in found:
        assert (row["case"], row["dtype"], row["new"], len(row["prompt"])) == ("check", "float32", [8], 3)
        assert (row["extra"]["texts"], row["extra"]["tokens"], row["extra"]["wrong"]) == (3, 24, 0)
        assert row["value"]["median"] == row["extra"]["equal"] == 3 - row["extra"]["ties"]
    assert "| prompt_lookup:k=3 | 3 | 24 |" in page.read_text()
    said = capsys.readouterr().out
    assert "suffix: 3 equal, 0 ties, 0 wrong (of 3 texts, 24 tokens" in said
    assert speculate.main(["--check", "3", "--render", "--drafters", "suffix"]) == 0


def test_a_wrong_text_is_an_error_code(lm, monkeypatch, tmp_path):
    """The exit code is 1 if a text differs where there is no tie; ties and refusals are none of that."""
    monkeypatch.setattr(speculate, "load", lambda *_, **__: lm)
    monkeypatch.chdir(tmp_path)
    for outcome, code in (
        (Equality("suffix", 2, 8, ties=1), 0),
        (Equality("suffix", 2, 8, wrong=1), 1),
        (Equality("suffix", refusal="no"), 0),
    ):
        monkeypatch.setattr(speculate, "compare", lambda *_, outcome=outcome: iter([outcome]))
        assert speculate.main(["--check", "2", "--quick", "--drafters", "suffix"]) == code


def test_help_names_the_options(capsys):
    """`--help` shows every option."""
    assert speculate.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("--drafters", "--tasks", "--batch", "--verification", "--no-governor"))
