"""The checkers: wrong answers are refused, right ones are accepted in every form, no text makes them raise."""

from __future__ import annotations

import random
import re
import time

import pytest
from task_examples import some

from treille.train.tasks import TASKS, Example, knowledge_graph
from treille.train.tasks.json_schema import fits
from treille.train.tasks.python_edit import renamable, rename

# Corruptions that may be right answers, as a share: other orders of a shuffle, other values of a field that is left
# to the writer, x + y for y + x, the names of a query's variables. Everywhere else the budget is none.
BUDGET = {"python_fill": 0.07, "json": 0.12, "countdown": 0.04, "lists": 0.08, "knowledge_graph": 0.02}
NASTY = [
    "", " ", "\n\n", "\0", "\ud800", "é", "{", "}", "[" * 3000, "{" * 3000, '{"a":' * 700, "(" * 3000, "-" * 3900 + "1",
    "9" * 3999, "not " * 900, "a." * 1900 + "a", "x" * 10**6, "NaN", "1e999", "[]", "null", '"', "SELECT ?x { }",
    "SELECT ?x { ?x ?y ?z }", "return", "return (", "    return 1\n  return 2", "answer: ", "1 + 1 = 2, left",
    "SELECT ?a { " + "?a :boss ?b . ?c :boss ?d . ?e :boss ?f . ?g :boss ?h" + " }",
]  # fmt: skip


def data(task: str, **values: object) -> Example:
    """An example with this data, for the checkers that read nothing else."""
    return Example(task, 0, (), "", values)


def dropped(rng: random.Random, answer: str) -> str:
    """The answer without one of its words, numbers or signs."""
    tokens = re.findall(r"\w+|[^\w\s]|\s+", answer)
    place = rng.choice([i for i, token in enumerate(tokens) if token.strip()])
    return "".join(tokens[:place] + tokens[place + 1 :])


def swapped(rng: random.Random, answer: str) -> str:
    """The answer with two different words exchanged; one with a word appended when it has no two."""
    parts = re.split(r"(\W+)", answer)
    pairs = [(i, j) for i in range(0, len(parts), 2) for j in range(0, i, 2) if parts[i] != parts[j]]
    if not pairs:
        return f"{answer} {answer}"
    i, j = rng.choice(pairs)
    parts[i], parts[j] = parts[j], parts[i]
    return "".join(parts)


def redigited(rng: random.Random, answer: str) -> str:
    """The answer with one digit changed; one with a digit appended when it has none."""
    places = [i for i, letter in enumerate(answer) if letter.isdigit()]
    if not places:
        return f"{answer}1"
    place = rng.choice(places)
    digit = rng.choice([digit for digit in "0123456789" if digit != answer[place]])
    return answer[:place] + digit + answer[place + 1 :]


@pytest.mark.parametrize("name", TASKS)
def test_corrupted_answers_are_refused(name: str) -> None:
    """A dropped token, two swapped words or a changed digit make an answer wrong, but for the stated share."""
    rng = random.Random(name)
    accepted, tried = 0, 0
    for level in range(TASKS[name].levels):
        for example in some(name, level, 25):
            for corrupt in (dropped, swapped, redigited):
                head, _, last = example.answer.rpartition("\n") if name == "arithmetic" else ("", "", example.answer)
                accepted += TASKS[name].check(example, f"{head}\n{corrupt(rng, last)}")
                tried += 1
    assert accepted <= BUDGET.get(name, 0.0) * tried


@pytest.mark.parametrize("name", TASKS)
def test_checkers_never_raise_and_end_soon(name: str) -> None:
    """Any text is judged, and wrong, in less than a second: random letters, pieces of answers, what breaks parsers."""
    rng = random.Random(name)
    task = TASKS[name]
    example = some(name, task.levels - 1, 3)[-1]
    letters = [chr(code) for code in (*range(9, 127), 233, 0x1F600)]
    texts = ["".join(rng.choices(letters, k=rng.randint(1, 80))) for _ in range(100)]
    texts += ["".join(rng.sample(example.answer, len(example.answer))) for _ in range(20)]
    for text in [*texts, *NASTY]:
        start = time.process_time()
        assert not task.check(example, text) or text.split() == example.answer.split()
        steps = task.steps(example, text)
        assert steps is None or all(0 <= value <= 1 for value in steps)
        assert time.process_time() - start < 1


def test_only_whitespace_around_an_answer_is_free() -> None:
    """Whitespace inside an answer counts: two spaces after a comma are another text."""
    example = some("lists", 3, 1)[0]
    assert TASKS["lists"].check(example, f"\n{example.answer}  ")
    assert not TASKS["lists"].check(example, example.answer.replace(", ", ",  "))


def test_steps_of_arithmetic() -> None:
    """Each line has value 1 when it is the right next step, the answer included; a later line can be right again."""
    task = TASKS["arithmetic"]
    example = data("arithmetic", first=7, chain=[["+", 5], ["-", 3]])
    assert task.check(example, "7 + 5 = 12\n12 - 3 = 9\nanswer: 9")
    assert task.steps(example, "7 + 5 = 12\n12 - 3 = 9\nanswer: 9") == [1.0, 1.0, 1.0]
    assert task.steps(example, "7 + 5 = 13\n12 - 3 = 9\nanswer: 8\nanswer: 9") == [0.0, 1.0, 0.0, 0.0]
    assert task.check(example, "7 + 5 = 13\nanswer: 9")  # judged by its last line alone
    assert not task.check(example, "answer: 9\n7 + 5 = 12")


def test_steps_of_countdown() -> None:
    """A step has value 1 when it is valid and the target can still be reached after it."""
    task = TASKS["countdown"]
    example = data("countdown", numbers=[5, 3, 2], target=16)
    assert task.check(example, "5 + 3 = 8, left 2 8\n8 * 2 = 16, left 16")
    assert task.check(example, "5 + 3 = 8, left 8 2\n2 * 8 = 16, left 16")
    assert task.steps(example, "5 + 3 = 8, left 2 8\n8 * 2 = 16, left 16") == [1.0, 1.0]
    assert task.steps(example, "5 - 3 = 2, left 2 2\n2 + 2 = 4, left 4") == [0.0, 0.0]  # valid, but a dead end
    assert task.steps(example, "5 + 4 = 9, left 2 9\n9 * 2 = 18, left 18") == [0.0, 0.0]  # there is no 4
    for wrong in ("5 + 3 = 8, left 2 8", "8 * 2 = 16, left 16", "5 + 3 = 8, left 8\n8 + 8 = 16, left 16"):
        assert not task.check(example, wrong)


def test_only_two_tasks_have_steps() -> None:
    """steps() is None where a task's answer is not written in steps."""
    have = [name for name, task in TASKS.items() if task.steps(some(name, 0, 1)[0], "x") is not None]
    assert have == ["arithmetic", "countdown"]


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ({"n": 5, "s": "a", "l": ["x"]}, True),
        ({"l": ["y"], "s": "b", "n": 3}, True),
        ({"n": 6, "s": "a", "l": ["x"]}, False),
        ({"n": 2, "s": "a", "l": ["x"]}, False),
        ({"n": True, "s": "a", "l": ["x"]}, False),
        ({"n": 5.0, "s": "a", "l": ["x"]}, False),
        ({"n": 5, "s": "c", "l": ["x"]}, False),
        ({"n": 5, "s": "a", "l": []}, False),
        ({"n": 5, "s": "a", "l": ["x", "y"]}, False),
        ({"n": 5, "s": "a", "l": [1]}, False),
        ({"n": 5, "s": "a"}, False),
        ({"n": 5, "s": "a", "l": ["x"], "m": 1}, False),
        ([], False),
        (None, False),
    ],
)
def test_json_schema(value: object, right: bool) -> None:
    """A value fits when each property is there, has the type, and is in its range, its list of values, its length."""
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 3, "maximum": 5},
            "s": {"type": "string", "enum": ["a", "b"]},
            "l": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1},
        },
    }
    assert fits(value, schema) is right


def test_json_records() -> None:
    """Keys in any order, one JSON value, no key twice, given values as given."""
    schema = {"type": "object", "properties": {"age": {"type": "integer", "enum": [31]}, "job": {"type": "string"}}}
    check, example = TASKS["json"].check, data("json", schema=schema)
    assert check(example, '{"job": "x", "age": 31}')
    for wrong in ('{"job": "x", "age": 30}', '{"age": 31, "job": "x", "age": 31}', '{"age": 31, "job": "x"} {}'):
        assert not check(example, wrong)


def test_queries_are_judged_by_what_they_find() -> None:
    """Another order of the patterns and other names of the variables are the same query; another relation is not."""
    check = TASKS["knowledge_graph"].check
    example = data("knowledge_graph", query="SELECT ?b { :Ada :mother ?a . ?a :city ?b }")
    assert check(example, "SELECT ?y { ?x :city ?y . :Ada :mother ?x }")
    for wrong in (
        "SELECT ?a { :Ada :mother ?a . ?a :city ?b }",
        "SELECT ?b { :Ada :father ?a . ?a :city ?b }",
        "SELECT ?b { :Ada :mother ?a . ?a :job ?b }",
        "SELECT ?b { ?a :city ?b }",
        "SELECT ?c { :Ada :mother ?a . ?a :city ?b }",
        "SELECT ?b { :Ada :mother ?a . ?a ?r ?b }",
    ):
        assert not check(example, wrong)


def test_queries_equal_a_search_over_all_triples() -> None:
    """The results of generated queries are those of trying every triple for every pattern."""
    for example in [example for level in range(3) for example in some("knowledge_graph", level, 8)]:
        wanted, patterns = knowledge_graph.parse(example.answer) or pytest.fail("the reference is no query")
        bindings: list[dict[str, str]] = [{}]
        for subject, relation, value in patterns:
            bindings = [
                {**known, **{term: f":{name}" for term, name in ((subject, s), (value, v)) if term[0] == "?"}}
                for known in bindings
                for s, r, v in knowledge_graph.graph()
                if r == relation and known.get(subject, f":{s}" if subject[0] == "?" else subject) == f":{s}"
                and known.get(value, f":{v}" if value[0] == "?" else value) == f":{v}"
            ]  # fmt: skip
        assert {bound[wanted][1:] for bound in bindings} == knowledge_graph.run(example.answer)


def test_rename_keeps_attributes_keywords_and_texts() -> None:
    """Variables and arguments are renamed wherever they stand; what only looks like them is left alone."""
    source = "def f(x, y=1):\n    x.x = [x for x in y]  # x\n    return g(x=x, z='x')"
    assert rename(source, "x", "new") == (
        "def f(new, y=1):\n    new.x = [new for new in y]  # x\n    return g(x=new, z='x')"
    )


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return f'{x}'",
        "def f():\n    global x\n    x = 1",
        "def f():\n    import x\n    x = x.y",
        "def f():\n    try:\n        x = 1\n    except E as x:\n        pass",
        "def f(x):\n    match x:\n        case [x]:\n            pass",
        "def f():\n    def x():\n        pass\n    x = 1",
        "def f(self):\n    pass",
        "def f(x):\n    return 'é'",
    ],
)
def test_what_cannot_be_renamed_safely_is_not_asked_for(source: str) -> None:
    """A name that the syntax tree gives without a column, or that others rely on, is no candidate."""
    assert renamable(source) == []


def test_the_body_alone_or_indented() -> None:
    """python_fill accepts any body that passes the tests, with or without the first line's indentation."""
    tests = [[[2, 3], 5], [[-1, 1], 0], [[7, 0], 7]]
    check, example = TASKS["python_fill"].check, data("python_fill", head="def f(a, b):", tests=tests)
    for right in ("return a + b", "    return b + a", "if a == 7:\n        return 7\n    return sum([a, b])"):
        assert check(example, right)
    for wrong in ("return a - b", "return a + b + 0.0", "a + b", "return a + b\ndef g():\n    pass", "import os", ""):
        assert not check(example, wrong)


def test_the_tests_of_a_body_tell_it_from_its_rivals() -> None:
    """No body that ignores the condition, or returns an argument as it is, passes the tests."""
    for example in (example for level in range(5) for example in some("python_fill", level, 10)):
        arguments = re.findall(r"\((.*)\)", example.data["head"])[0].split(", ")
        rivals = [f"return {name}" for name in arguments]
        if " if " in example.answer:
            rivals.append(re.sub(r" if [^\]\n]*", " if True", example.answer))
        if "    if " in example.answer and "found" not in example.answer:
            rivals.append(re.sub(r"if .*:", "if True:", example.answer))
        assert not any(TASKS["python_fill"].check(example, rival) for rival in rivals)
