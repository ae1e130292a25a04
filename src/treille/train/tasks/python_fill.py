"""Fill in the body of a function from its signature and docstring; tests decide, run by an interpreter of a subset."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from treille.train.tasks import python_parts, sandbox, words
from treille.train.tasks.base import Drawn, Example, Task, ask

if TYPE_CHECKING:
    import random

    from treille.train.tasks.python_parts import Spec

TESTS = 8
MAX_TESTS = 60  # drawn until every rival fails one
INDENT = "    "
# Lower-case texts that start and end with each of the letters that conditions name.
TEXTS = (
    *("area", "apple", "eel", "ski", "iron", "nine", "onion", "orange", "rose", "river", "salt", "stone", "tree"),
    *("taxi", "piano", "door", "cats", "hat", "idea", "no", "extra", "radio", "North-East", *words.NAMES[:6]),
)


def head(spec: Spec) -> str:
    """Signature and docstring."""
    return f'def {spec.name}({", ".join(spec.arguments)}):\n{INDENT}"""{spec.docstring}"""'


def body(spec: Spec) -> str:
    """The body, indented."""
    return "\n".join(INDENT + line for line in spec.body)


def function(rng: random.Random, level: int) -> str:
    """The source of a random whole function."""
    spec = rng.choice(python_parts.LEVELS[level])(rng)
    return f"{head(spec)}\n{body(spec)}"


def _argument(rng: random.Random, kind: str) -> Any:
    """A value for an argument of this kind."""
    match kind:
        case "number":
            return rng.randint(-12, 24)
        case "numbers":
            return [rng.randint(-12, 24) for _ in range(rng.randint(2, 7))]
        case "text":
            return rng.choice(TEXTS)
        case _:
            return rng.sample(TEXTS, rng.randint(2, 6))


def _rivals(spec: Spec) -> list[Spec]:
    """Functions that are nearly right: an argument returned as it is, a condition that always or never holds."""
    found = [spec._replace(body=[f"return {name}"]) for name in spec.arguments]
    if spec.condition:
        found += [
            spec._replace(body=[line.replace(spec.condition, constant) for line in spec.body])
            for constant in ("True", "False")
        ]
    return found


def _parsed(spec: Spec) -> ast.FunctionDef:
    parsed = sandbox.parse(f"{head(spec)}\n{body(spec)}")
    assert parsed is not None, spec
    return parsed


def _result(function: ast.FunctionDef, arguments: list[Any]) -> str | None:
    """The result as text, so that 1, 1.0 and True differ; None for a failure."""
    try:
        return repr(sandbox.call(function, arguments))
    except ValueError:
        return None


def _tests(rng: random.Random, spec: Spec) -> list[list[Any]] | None:
    """Arguments and expected results that every rival fails; None when the function or the search fails."""
    right = _parsed(spec)
    rivals = [_parsed(rival) for rival in _rivals(spec)]
    tests: list[list[Any]] = []
    for number in range(MAX_TESTS):
        arguments = [_argument(rng, kind) for kind in spec.arguments.values()]
        expected = _result(right, arguments)
        if expected is None:
            return None
        left = [rival for rival in rivals if _result(rival, arguments) == expected]
        if number < TESTS or len(left) < len(rivals):
            tests.append([arguments, ast.literal_eval(expected)])
        rivals = left
        if number >= TESTS - 1 and not rivals:
            return tests
    return None


def draw(rng: random.Random, level: int) -> Drawn:
    """A signature with its docstring, the body, and tests that the body passes."""
    tests = None
    while tests is None:
        spec = rng.choice(python_parts.LEVELS[level])(rng)
        tests = _tests(rng, spec)
    start = head(spec)
    return Drawn(ask(f"Write the body:\n{start}"), body(spec), {"head": start, "tests": tests})


def accepts(example: Example, answer: str) -> bool:
    """Whether the function with this body passes all tests, results equal in value and in type."""
    parsed = sandbox.parse(f"{example.data['head']}\n{INDENT}{answer}")
    if parsed is None:
        return False
    return all(_result(parsed, arguments) == repr(expected) for arguments, expected in example.data["tests"])


PYTHON_FILL = Task(
    "python_fill", "the body of a function from signature and docstring; tests decide", len(python_parts.LEVELS), 3,
    draw, accepts,
)  # fmt: skip
