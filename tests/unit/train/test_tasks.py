"""The task suite: keys, levels, splits, training documents, sources."""

from __future__ import annotations

import hashlib
import itertools
import json

import pytest
from task_examples import some

from treille.errors import ParameterError
from treille.train.tasks import (
    TASKS,
    Example,
    documents,
    pieces,
    python_files,
    python_functions,
    split_of,
    training_examples,
)

EVERY_LEVEL = [(name, level) for name, task in TASKS.items() for level in range(task.levels)]
# What the examples of the released models' training data are: to change a generator is to retrain them.
# python_edit is left out: its functions are those of the running Python's library.
GOLDEN = {
    "python_fill": "a76fd38d0dc2",
    "json": "991ff4781147",
    "arithmetic": "adade5ffe1b6",
    "countdown": "981408834a36",
    "lists": "2c2d02539559",
    "extract": "fe40edf61fdd",
    "rewrite": "867eb8c930f8",
    "knowledge_graph": "c14523b9395b",
    "recommend": "54eab5270285",
    "revise": "fef5a5221c4a",
}


def test_names_and_levels() -> None:
    """A task stands under its own name, and its published level exists."""
    assert list(TASKS) == [
        "python_edit", "python_fill", "json", "arithmetic", "countdown", "lists", "extract", "rewrite",
        "knowledge_graph", "recommend", "revise",
    ]  # fmt: skip
    assert all(task.name == name and 0 <= task.published_level < task.levels for name, task in TASKS.items())


@pytest.mark.parametrize(("name", "level"), EVERY_LEVEL)
def test_reference_answers_are_right(name: str, level: int) -> None:
    """check() accepts the reference answer, with whitespace around it too, also after the data went through JSON."""
    for example in some(name, level):
        task = TASKS[name]
        again = Example(name, level, example.messages, example.answer, json.loads(json.dumps(example.data)))
        assert (example.task, example.level) == (name, level)
        assert task.check(example, example.answer)
        assert task.check(again, f"\n  {example.answer} \n")


@pytest.mark.parametrize("name", TASKS)
def test_equal_keys_give_equal_examples(name: str) -> None:
    """An example is a function of (index, seed, split, level); another index or seed gives other questions."""
    examples = some(name, 2)
    split = split_of(examples[0].messages)
    assert [TASKS[name].example(index, split=split, level=2) for index in reversed(range(10))] == examples[::-1]
    assert len({str(example.messages) for seed in (0, 1) for example in some(name, 2, seed=seed)}) > 15


@pytest.mark.parametrize("name", TASKS)
def test_difficulty_grows_with_the_level(name: str) -> None:
    """Answers get longer from the lowest level to the highest; where they are short spans, questions do."""
    whole = name in ("extract", "recommend")
    first, last = (
        sum(len(e.messages[0]["content"] if whole else e.answer) for e in some(name, level, 30))
        for level in (0, TASKS[name].levels - 1)
    )
    assert last > 1.3 * first


@pytest.mark.parametrize("name", [name for name in TASKS if name != "python_edit"])
def test_splits_are_disjoint(name: str) -> None:
    """The text of a question decides its split, so no held-out question is ever trained on."""
    for split, level in itertools.product(("train", "held_out"), range(TASKS[name].levels)):
        examples = [TASKS[name].example(index, split=split, level=level) for index in range(15)]
        assert all(split_of(example.messages) == split for example in examples)


def test_the_library_is_split_by_file() -> None:
    """Files and functions of the library are in one split only, functions once; python_edit uses its split's."""
    files, functions = ([source(held_out) for held_out in (False, True)] for source in (python_files, python_functions))
    for train, held_out in (files, functions):
        assert len(train) > 4 * len(held_out) > 100
        assert not set(train) & set(held_out)
    assert all(len(set(part)) == len(part) for part in functions)
    library = {text.rstrip() for text in functions[1]}
    for example in some("python_edit", 3):
        assert example.data["source"] in library
    example = TASKS["python_edit"].example(0, split="train", level=3)
    assert example.data["source"] in {text.rstrip() for text in functions[0]}


def test_training_draws_more_of_the_low_levels() -> None:
    """Without a level, training examples have levels with weights n, …, 2, 1, and held-out ones the published level."""
    levels = [example.level for example in some("lists", None, 600)]
    counts = [levels.count(level) for level in range(5)]
    assert counts == sorted(counts, reverse=True)
    assert abs(counts[0] / 600 - 5 / 15) < 0.08  # four standard deviations
    assert TASKS["lists"].example(0, split="held_out").level == TASKS["lists"].published_level


@pytest.mark.parametrize("arguments", [{"split": "test"}, {"level": 9}, {"level": -1}, {"index": -1}])
def test_keys_that_do_not_exist_are_refused(arguments: dict[str, object]) -> None:
    """A split, a level or an index that does not exist is refused with the value and the way out."""
    with pytest.raises(ParameterError, match=r"use|numbered"):
        TASKS["json"].example(**{"index": 0, "split": "train", **arguments})


def test_examples_stay_as_they_are() -> None:
    """The generators give what the released models were trained on: a change needs new models and new digests."""
    digests = {}
    for name in TASKS:
        if name != "python_edit":
            examples = [example for level in range(TASKS[name].levels) for example in some(name, level)]
            text = json.dumps([[example.messages, example.answer] for example in examples])
            digests[name] = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    assert digests == GOLDEN


def test_pieces_mark_the_answers() -> None:
    """Joined, the pieces are the chat in the template's form; the answers, earlier turns' too, are marked."""
    example = next(example for example in some("extract", 2, 30) if len(example.messages) == 3)
    question, earlier, last = (message["content"] for message in example.messages)
    assert pieces(example) == [
        (f"<|user|>{question}<|assistant|>", False),
        (f"{earlier}<|end|>", True),
        (f"<|user|>{last}<|assistant|>", False),
        (f"{example.answer}<|end|>", True),
    ]
    assert pieces(example, chat=False) == [
        (f"{question}\n", False), (f"{earlier}\n", True), (f"{last}\n", False), (f"{example.answer}\n", True)
    ]  # fmt: skip


def test_documents_have_the_shares_asked_for() -> None:
    """Documents repeat by seed, four in five are chats, and tasks come with the given shares."""
    shares = {"json": 3.0, "lists": 1.0}
    texts = ["".join(text for text, _ in document) for document in documents(400, seed=4, shares=shares)]
    assert texts[:20] == ["".join(t for t, _ in d) for d in documents(20, seed=4, shares=shares)]
    assert abs(sum("<|user|>" in text for text in texts) / 400 - 0.8) < 0.08
    tasks = [example.task for example in training_examples(400, seed=4, shares=shares)]
    assert abs(tasks.count("json") / 400 - 0.75) < 0.09
    assert set(tasks) == set(shares)


@pytest.mark.parametrize("shares", [{"chess": 1.0}, {"json": -1.0, "lists": 2.0}, {"json": 0.0}])
def test_shares_that_cannot_be_drawn_are_refused(shares: dict[str, float]) -> None:
    """A share of an unknown task, a negative one, or no positive one is refused."""
    with pytest.raises(ParameterError, match="shares"):
        next(training_examples(1, shares=shares))
