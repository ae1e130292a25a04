"""`bench tasks`: combinations are parsed, refused or measured; accuracy is the checker's; rows, table, picture."""

import json
import re
from dataclasses import replace

import pytest

from treille.bench import tasks
from treille.bench.answer_shapes import SHAPES, shape
from treille.bench.entries import VOTES, parse
from treille.errors import BatchError, DecodingError, ParameterError
from treille.language_model import load
from treille.requests import ScoredText
from treille.train.accuracy import accuracy, held_out
from treille.train.tasks import TASKS

LISTS = (("lists", 0),)
COSTS = {"tokens", "forwards", "rows", "tau"}


@pytest.fixture(scope="module")
def lm():
    """The bundled model, which writes something in answer to every question."""
    return load(prefix_cache=False)


@pytest.fixture
def command(lm, monkeypatch, tmp_path):
    """Runs the command on the loaded model, in an empty folder."""
    monkeypatch.setattr(tasks, "load", lambda *_, **__: lm)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: tasks.main(list(arguments))


def example(name, level=0):
    """A held-out question."""
    return TASKS[name].example(0, split="held_out", level=level)


def text(written):
    """A text as a scorer sees it."""
    return ScoredText("", written, ())


# --- strategies as texts ----------------------------------------------------------------------------------------------


def test_a_strategy_is_read_with_its_parameters():
    """`name:key=value` gives the strategy's own parameters and generation parameters; the judge is kept apart."""
    entry = parse("best_of_n:n=8,temperature=0.7,judge=checker,extract=text")
    assert (entry.info.name, entry.judge) == ("best_of_n", "checker")
    assert entry.given == {"n": 8, "temperature": 0.7, "extract": VOTES["text"]}
    chosen = entry.configure(example("lists"), {"seed": 3})
    assert chosen.options == {"seed": 3, "temperature": 0.7}
    assert set(chosen.arguments) == {"n", "extract", "scorer"}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("beem", r"strategy='beem' is not known; choose one of beam,"),
        ("beam:4", r"'beam:4': '4' is no key=value; write beam:key=value"),
        ("beam:widht=4", r"widht=4: strategy 'beam' has no such parameter; did you mean width"),
        ("sample:seed=3", r"'sample:seed=3': seed is set by --seed"),
        ("greedy:draft=suffix", r"draft is set by --drafters"),
        ("best_of_n:scorer=x", r"scorer is set by judge=checker or judge=steps"),
        ("best_of_n:judge=me", r"judge=me is not known; choose checker, steps"),
        ("beam:judge=checker", r"strategy 'beam' cannot use judge=checker; these can: best_of_n"),
        ("self_consistency:extract=first", r"extract=first is not known; choose text, last_line, last_number"),
    ],
)
def test_a_strategy_that_cannot_be_honoured_is_refused(written, message):
    """Every refusal names the value, the reason and the way out."""
    with pytest.raises(ParameterError, match=message):
        parse(written)


def test_the_checker_judges():
    """`judge=checker` scores a text 1 if it answers the question of its prompt, else 0."""
    asked = example("lists")
    scorer = parse("best_of_n:judge=checker").configure(asked, {}).arguments["scorer"]
    assert scorer([text(asked.answer), text("nothing"), text("")]) == [1.0, 0.0, 0.0]


def test_the_steps_judge():
    """`judge=steps` scores the last line so far; lines are steps, and a text ranks by its worst line."""
    asked = example("arithmetic", level=2)
    first, second = asked.answer.split("\n")[:2]
    chosen = parse("best_of_n:judge=steps").configure(asked, {}).arguments
    assert (chosen["step_delimiter"], chosen["aggregate"]) == ("\n", "min")
    assert chosen["scorer"]([text(f"{first}\n"), text(f"{first}\n{second}"), text(f"{first}\nno")]) == [1.0, 1.0, 0.0]
    assert parse("best_of_n:judge=steps,aggregate=prod").configure(asked, {}).arguments["aggregate"] == "prod"


def test_answers_without_steps_are_not_judged_by_steps():
    """A task without a process reward refuses it, and says which tasks have one."""
    with pytest.raises(
        ParameterError, match=r"answers of lists have no steps to judge; those of arithmetic, countdown"
    ):
        parse("best_of_n:judge=steps").configure(example("lists"), {})


def test_votes():
    """What self-consistency votes on: the whole text, its last line or its last number."""
    assert [vote(" a 1\nb 2 \n") for vote in VOTES.values()] == ["a 1\nb 2", "b 2", "2"]


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_holds_every_reference_answer(name):
    """What the question tells about its answer's shape is true of the reference, at every level."""
    for level in range(TASKS[name].levels):
        for asked in held_out(name, level, 30):
            source = shape(asked)
            if name == "json":
                assert source.schema == asked.data["schema"]
            elif name == "extract":
                assert asked.answer in source.texts
            else:
                assert re.fullmatch(source.pattern, asked.answer), source.pattern


def test_a_shape_does_not_tell_the_answer():
    """More than one text fits the shape of a list, a calculation and a recommendation."""
    for name, wrong in (("lists", lambda a: a.partition(", ")[0]), ("arithmetic", lambda a: a + "1")):
        asked = example(name)
        assert re.fullmatch(shape(asked).pattern, wrong(asked.answer))
    assert len(shape(example("extract")).texts) > 5


def test_a_task_without_a_shape_says_so():
    """A constraint that does not exist is refused with those that do."""
    with pytest.raises(
        ParameterError, match=r"--constraint=task: answers of rewrite have no shape .* json, arithmetic"
    ):
        shape(example("rewrite"))


# --- measuring --------------------------------------------------------------------------------------------------------


def test_accuracy_is_that_of_the_trainer(lm):
    """Greedy decoding answers as many questions as `treille.train.accuracy` counts."""
    (row,) = tasks.measure(lm, tasks.Grid((("recommend", 0),), ("greedy",), samples=8, batch=5))
    counted = accuracy(lm, held_out("recommend", 0, 8), max_new_tokens=row.new[0])
    assert (row.extra["right"], row.extra["samples"]) == (counted.right, 8)
    assert row.extra["accuracy"] == counted.share
    assert (row.extra["low"], row.extra["high"]) == pytest.approx(counted.interval(), abs=1e-4)


def test_figures_repeat_and_a_drafter_changes_costs_only(lm):
    """All but the times is a function of the grid; a drafter changes neither answers nor their lengths."""
    grid = tasks.Grid(LISTS, ("sample:temperature=0.7",), ("none", "prompt_lookup"), samples=4)
    plain, drafted = (row.extra for row in tasks.measure(lm, grid))
    assert [plain, drafted] == [row.extra for row in tasks.measure(lm, grid)]
    assert {key for key in plain if plain[key] != drafted[key]} <= {"drafter", *COSTS - {"tokens"}}
    assert plain["tau"] == 1.0 <= drafted["tau"]
    assert drafted["forwards"] <= plain["forwards"] == plain["tokens"]


def test_questions_have_seeds_of_their_own(lm):
    """The same question asked twice would be drawn differently: answers are independent, as the interval supposes."""
    trial = tasks.Trial(
        lm, tasks.Grid(LISTS, ("sample:temperature=3.0",)).cells()[0], tasks.Grid(LISTS, samples=3), "bundled"
    )
    trial.examples = [trial.examples[0]] * 3
    trial.prompts = dict.fromkeys(range(3), trial.prompts[0])
    assert len({answer.tokens for _, answer in trial.run()}) == 3


def test_a_constraint_shapes_the_answers(lm):
    """Under its constraint, every answer of the list task consists of items that the question names."""
    grid = tasks.Grid(LISTS, ("greedy",), constraints=("task",), samples=4)
    trial = tasks.Trial(lm, grid.cells()[0], grid, "bundled")
    for asked, answer in trial.run():
        known = set(re.findall(r"\w+", asked.messages[-1]["content"]))
        assert set(answer.text.split(", ")[:-1]) <= known


def test_an_answer_may_be_longer_than_the_references(lm):
    """The limit is half as much again as the longest reference, and never more than half the context."""
    asked = held_out("lists", 0, 5)
    most = max(len(lm.tokenizer.encode(one.answer, add_special_tokens=False)) for one in asked)
    assert 1.5 * most <= tasks.longest(lm, asked) <= 1.5 * most + 17
    assert tasks.longest(lm, [replace(asked[0], answer="x " * 2000)]) == 512


def test_what_fails_or_does_not_fit_counts_as_wrong(lm, monkeypatch):
    """Answers that a dead end or the context prevented lower the accuracy, and are told."""
    grid = tasks.Grid(LISTS, ("greedy",), samples=4)
    trial = tasks.Trial(lm, grid.cells()[0], grid, "bundled")
    del trial.prompts[3]
    whole = lm.generate([trial.prompts[index] for index in range(3)], max_new_tokens=trial.limit)
    right = replace(whole[0], candidates=(replace(whole[0].candidates[0], text=trial.examples[0].answer),))

    def generate(*_, **__):
        raise BatchError("one failed", [right, DecodingError("dead end"), DecodingError("dead end")])

    monkeypatch.setattr(lm, "generate", generate)
    row = trial.row()
    assert (row.extra["right"], row.extra["samples"]) == (1, 4)
    assert row.note == "2 failed; 1 too long"
    assert row.extra["tokens"] == len(whole[0].tokens)


def test_a_question_that_leaves_no_room_is_not_asked(lm, monkeypatch):
    """Prompts longer than the context less the answer's limit are left out; none left is refused."""
    monkeypatch.setattr(tasks, "longest", lambda lm, _: lm.checkpoint.decoder.shape.context_length)
    with pytest.raises(ParameterError, match=r"no question leaves room for an answer"):
        list(tasks.measure(lm, tasks.Grid(LISTS, ("greedy",), samples=2)))


def test_combinations_that_cannot_be_are_told_and_the_others_measured(lm):
    """A refused combination is named with its reason; without anyone to tell it to, it is raised."""
    grid = tasks.Grid(LISTS, ("greedy", "beam:width=2"), ("prompt_lookup",), samples=1)
    told = []
    found = list(tasks.measure(lm, grid, refused=lambda cell, error: told.append((cell.name, str(error)))))
    assert [row.extra["strategy"] for row in found] == ["greedy"]
    ((name, reason),) = told
    assert name == "beam:width=2 + prompt_lookup on lists, level 0"
    assert "strategy 'beam' looks at several tokens of every step" in reason
    with pytest.raises(ParameterError, match="looks at several tokens"):
        list(tasks.measure(lm, grid))
    with pytest.raises(ParameterError, match="looks at several tokens"):
        list(tasks.measure(lm, replace(grid, strategies=("beam",)), refused=lambda *_: None))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_rows_a_table_and_a_picture(command, tmp_path, capsys):
    """Rows are JSON lines that name the sample size and the interval; table, picture and documents are made of them."""
    page = tmp_path / "page.md"
    page.write_text("<!-- bench:tasks -->\n<!-- /bench:tasks -->\n")
    given = ["--quick", "--tasks", "lists,rewrite", "--level", "0", "--constraint", "none", "task"]
    more = ["--strategies", "greedy", "--picture", "bars.svg", "--fill", str(page)]
    assert command(*given, *more) == 0
    said = capsys.readouterr().out
    assert "not measured: greedy + constraint on rewrite: --constraint=task" in said
    assert "3 rows written" in said
    written = [json.loads(line) for line in (tmp_path / "benchmarks/out/tasks.jsonl").read_text().splitlines()]
    assert [(row["extra"]["task"], row["extra"]["constraint"]) for row in written] == [
        ("lists", "none"),
        ("lists", "task"),
        ("rewrite", "none"),
    ]
    for row in written:
        assert {"right", "samples", "accuracy", "low", "high", "seed", "governor", *COSTS} <= set(row["extra"])
        assert 0 <= row["extra"]["low"] <= row["extra"]["accuracy"] <= row["extra"]["high"] <= 1
        assert row["repeats"] == 1
    assert page.read_text().count("| lists | 0 | greedy |") == 2
    assert "one run." in page.read_text()
    assert (tmp_path / "bars.svg").read_text().count("lists, level 0") == 1
    assert command("--render", "--picture", "again.svg") == 0
    assert (tmp_path / "again.svg").read_text() == (tmp_path / "bars.svg").read_text()


def test_levels_are_the_published_one_all_or_a_number():
    """`--level` is resolved for each task."""
    levels = range(TASKS["json"].levels)
    assert tasks._levels("json", "published") == (TASKS["json"].published_level,)
    assert tasks._levels("json", "all") == levels
    assert tasks._levels("json", "1") == (1,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "lists,jsn"], r"--tasks=lists,jsn: there is no task 'jsn'; choose from python_edit,"),
        (["--level", "9"], r"--level=9: python_edit has levels 0 to 4; or say published or all"),
        (["--level", "easy"], r"--level=easy: python_edit has levels 0 to 4"),
        (["--samples", "0"], r"--samples=0: must be at least 1"),
        (["--batch", "0"], r"--batch=0: must be at least 1"),
        (["--strategies", "beem"], r"strategy='beem' is not known"),
        (["--drafters", "promt_lookup"], r"draft='promt_lookup' is not known; did you mean 'prompt_lookup'"),
        (["--constraint", "regex"], r"--constraint=regex: choose none or task"),
        (["--frob"], r"bench tasks: unrecognized arguments: --frob; `treille bench tasks --help`"),
        (["--render", "--out", "missing.jsonl"], r"missing\.jsonl: cannot be read"),
    ],
)
def test_bad_arguments_are_refused_before_a_model_is_loaded(arguments, message, monkeypatch):
    """Every refusal names the value, the reason and the way out."""
    monkeypatch.setattr(tasks, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(ParameterError, match=message):
        tasks.main(arguments)


def test_help_names_the_options(capsys):
    """`--help` shows every option."""
    assert tasks.main(["--help"]) == 0
    said = capsys.readouterr().out
    wanted = ("--tasks", "--level", "--strategies", "--drafters", "--constraint", "--samples", "--quick", "--picture")
    assert all(name in said for name in wanted)
