"""The corpus of the first bundled model: standard library sources and three generated tasks with a checkable answer."""

from __future__ import annotations

import ast
import json
import operator
import random
import sysconfig
import textwrap
from pathlib import Path

EVERY_SPECIAL = ("<|pad|>", "<|end|>", "<|mask|>", "<|user|>", "<|assistant|>")
# Tests repeat themselves; the other folders hold tables or tools that are not part of the library.
EXCLUDED = {"test", "tests", "idle_test", "site-packages", "idlelib", "lib2to3", "encodings", "pydoc_data"}
LONGEST_LINE = 160  # characters; files with longer lines hold data

FIELDS: dict[str, tuple[str, ...]] = {
    "name": ("Ada", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Lena", "Mia", "Noah"),
    "city": ("Oslo", "Paris", "Rome", "Vienna", "Lisbon", "Prague", "Dublin", "Athens", "Bern", "Madrid"),
    "color": ("red", "green", "blue", "white", "black", "yellow", "orange"),
    "animal": ("cat", "dog", "horse", "owl", "fox", "bear", "wolf"),
    "title": ("engineer", "teacher", "doctor", "painter", "writer", "baker"),
    "status": ("open", "closed", "pending"),
}
NUMBERS = {"age": 99, "count": 20, "year": 2030, "id": 999, "size": 50, "score": 100}
FLAGS = ("active", "member", "public", "verified")
SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def sources() -> list[str]:
    """Texts of the standard library's modules on this machine, in the order of their paths."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(p for p in root.rglob("*.py") if not EXCLUDED.intersection(p.relative_to(root).parts))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    return [text for text in texts if text.strip() and max(map(len, text.splitlines())) <= LONGEST_LINE]


def functions(text: str) -> list[str]:
    """Sources of all functions, methods and classes with a body of three lines or more, at indentation zero."""
    lines = text.splitlines(keepends=True)
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            end = node.end_lineno or node.lineno
            if 3 <= end - node.lineno <= 80:
                found.append(textwrap.dedent("".join(lines[node.lineno - 1 : end])).rstrip() + "\n")
    return found


def code_documents(held_out: float, seed: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Training and held-out documents, by kind: whole ``files`` and their ``functions``; files are held out whole."""
    rng = random.Random(seed)
    texts = sources()
    rng.shuffle(texts)
    cut = int(held_out * len(texts))
    parts = []
    for part in (texts[cut:], texts[:cut]):
        pieces = [piece for text in part for piece in functions(text)]
        rng.shuffle(pieces)
        parts.append({"files": part, "functions": pieces})
    return parts[0], parts[1]


def json_task(rng: random.Random) -> tuple[str, str]:
    """A request for a record with given fields and types, and one record that fits."""
    names = rng.sample([*FIELDS, *NUMBERS, *FLAGS, "tags"], rng.randint(2, 5))
    kinds: list[str] = []
    record: dict[str, str | int | list[str]] = {}
    value: str | int | list[str]
    for name in names:
        if name in FIELDS:
            kind, value = "string", rng.choice(FIELDS[name])
        elif name in NUMBERS:
            kind, value = "integer", rng.randint(1, NUMBERS[name])
        elif name in FLAGS:
            kind, value = "boolean", rng.random() < 0.5
        else:
            kind, value = "list", rng.sample(FIELDS["color"], rng.randint(1, 3))
        kinds.append(f"{name} ({kind})")
        record[name] = value
    return f"Write a JSON record with {', '.join(kinds)}.", json.dumps(record)


def arithmetic_task(rng: random.Random) -> tuple[str, str]:
    """A chain of two to four numbers, worked from the left, one step a line, and the answer on the last line."""
    total = rng.randint(1, 60)
    question, steps = str(total), []
    for _ in range(rng.randint(1, 3)):
        sign = rng.choice("++--*")
        number = rng.randint(2, 5) if sign == "*" else rng.randint(1, 60)
        result = SIGNS[sign](total, number)
        question += f" {sign} {number}"
        steps.append(f"{total} {sign} {number} = {result}")
        total = result
    note = " from left to right" if "*" in question else ""
    return f"Compute {question}{note}.", "\n".join([*steps, f"answer: {total}"])


def list_task(rng: random.Random) -> tuple[str, str]:
    """One operation on a short list of numbers or words, and the resulting list."""
    size = rng.randint(2, 7)
    words = [word for name in ("color", "animal") for word in FIELDS[name]]
    items: list[int] | list[str] = rng.sample(range(1, 100), size) if rng.random() < 0.7 else rng.sample(words, size)
    one, new = rng.choice(items), rng.choice(words) if isinstance(items[0], str) else rng.randint(1, 99)
    tasks: list[tuple[str, object]] = [
        (f"Copy {items}.", items),
        (f"Reverse {items}.", items[::-1]),
        (f"Sort {items}.", sorted(items)),
        (f"Remove {one} from {items}.", [item for item in items if item != one]),
        (f"Replace {one} with {new} in {items}.", [new if item == one else item for item in items]),
        (f"Append {new} to {items}.", [*items, new]),
    ]
    question, answer = rng.choice(tasks)
    return question.replace("'", '"'), str(answer).replace("'", '"')


def task_documents(seed: int, count: int) -> list[str]:
    """``count`` documents, a third of each task; three in four in chat form, the others as plain lines."""
    rng = random.Random(f"tasks {seed}")
    documents = []
    for index in range(count):
        question, answer = (json_task, arithmetic_task, list_task)[index % 3](rng)
        chat = rng.random() < 0.75
        documents.append(f"<|user|>{question}<|assistant|>{answer}<|end|>" if chat else f"# {question}\n{answer}\n")
    rng.shuffle(documents)
    return documents
