"""The interpreter that runs untrusted function bodies: it agrees with Python, and refuses what is not in its subset."""

from __future__ import annotations

import resource
import time

import pytest
from task_examples import some

from treille.train.tasks import sandbox

REFUSED = [
    "import os",
    "from os import system",
    "return __import__('os')",
    "return open('f')",
    "return eval('1')",
    "return x.__class__",
    "return ().__class__.__bases__[0].__subclasses__()",
    "return '{0.__class__}'.format(x)",
    "return '%1000000000d' % x",
    "return f'{x:>1000000000}'",
    "return f'{x!r}'",
    "return (lambda: 1)()",
    "def g():\n        return 1\n    return g()",
    "class A:\n        pass",
    "while True:\n        pass",
    "while True:\n        x = [x]",
    "for i in range(10**12):\n        pass",
    "return sum(i for i in range(4000) for j in range(4000))",
    "return 9**9**9**9",
    "return 2**(2**60)",
    "return 1 << 10**9",
    "x = 3\n    while True:\n        x = x * x",
    "return 'a' * 10**10",
    "return [0] * 10**10",
    "return [[0] * 3000] * 3000",
    "return ('a' * 3000).replace('a', 'b' * 3000)",
    "return ('a' * 3000).replace('', 'b' * 3000)",
    "return ('a' * 3000).join(['b'] * 3000)",
    "l = [1, 2]\n    while True:\n        l.extend(l)",
    "l = []\n    l.append(l)\n    return l == l",
    "l = [1]\n    while True:\n        l = [l, l]",
    "return str([1])",
    "return round(5, -10**9)",
    "return sorted([4000] * 3000, key=range)",
    "return int('9' * 4000)",
    "return {1, 2}",
    "return x is 5",
    "return [*range(10)]",
    "return max(*[1, 2])",
    "return sorted([1], **{'reverse': True})",
    "del x",
    "global y",
    "yield x",
    "assert x",
    "with x:\n        pass",
    "try:\n        x = 1\n    except ValueError:\n        pass",
    "return (y := 1)",
    "return b'x'",
    "return 1j",
    "return ...",
    "len = 3\n    return len(x)",
    "return len",
    "return unknown",
    "return x.upper()",
    "return 1 / 0",
    "return [1][5]",
    "return [i for i in range(3)][i]",
    "break",
    "continue",
]

PROGRAMS = [
    ("a, b", "return a // b + a % b - a / b + a ** 2 + (a << 1) + (a >> 1) + (a & b) + (a | b) + (a ^ b) + ~a", [7, 2]),
    (
        "a",
        "return [a < 3 <= 5, a == 1 or None, a and 'x', not a, -a, +a, 1 if a else 2, a is None, a is not None]",
        [1],
    ),
    ("xs", "return [x * 2 for x in xs if x > 1], {x: str(x) for x in xs}, sum(x for x in xs)", [[1, 2]]),
    ("xs", "return xs[0], xs[-1], xs[1:], xs[::-1], xs[:2], sorted(xs, reverse=True), max(xs), min(xs)", [[3, 1, 2]]),
    (
        "s",
        "return s.upper(), s[::-1], s.split(' '), '-'.join(s.split()), s.replace('a', 'oo'), 'a' in s",
        ["a bad cat"],
    ),
    (
        "s",
        "return sorted(s.split(), key=len), max(s.split(), key=len), min([], default=0), f'{s}: {len(s)}'",
        ["ccc b a"],
    ),
    (
        "n",
        (
            "t = 0\n    for i in range(n):\n        if i == 2:\n            continue\n        if i == 6:\n"
            "            break\n        t += i\n    return t"
        ),
        [9],
    ),
    ("n", "t, k = 0, n\n    while k:\n        k -= 1\n        t += k\n    return t", [9]),
    (
        "s",
        "d = {}\n    for i, x in enumerate(s):\n        d[x] = d.get(x, 0) + i\n    return list(d.items()), d",
        ["aba"],
    ),
    (
        "xs",
        (
            "out = []\n    for x, y in zip(xs, xs[1:]):\n        out.append((x, y))\n    out.sort(reverse=True)\n"
            "    return out"
        ),
        [[1, 3, 2]],
    ),
    ("xs", "xs.append(9)\n    xs[0] = 5\n    xs.insert(1, 7)\n    return xs, xs.pop(), xs.index(7)", [[1, 2]]),
    ("xs", "return [x for x in xs for y in range(x)], all(x > 0 for x in xs), any(xs), list(reversed(xs))", [[1, 2]]),
    (
        "x",
        "x = [x for x in x]\n    return x, int('7'), float(2), bool(x), chr(97), divmod(7, 2), round(2.567, 1)",
        [[1]],
    ),
    ("x", "pass", [1]),
    ("x", "'text'\n    return", [1]),
]


def run(arguments: str, body: str, values: list[object]) -> object:
    """The result of a function in the interpreter."""
    function = sandbox.parse(f"def f({arguments}):\n    {body}")
    assert function is not None
    return sandbox.call(function, values)


@pytest.mark.parametrize("body", REFUSED)
def test_refused(body: str) -> None:
    """Harmful, endless, huge and unknown things are refused within two seconds and without much memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ValueError, match="the call failed"):
        run("x", body, [1])
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB


@pytest.mark.parametrize(("arguments", "body", "values"), PROGRAMS)
def test_agrees_with_python(arguments: str, body: str, values: list[object]) -> None:
    """A program of the subset gives what Python gives, values and types, and does not change its arguments."""
    space: dict[str, object] = {}
    exec(f"def f({arguments}):\n    {body}", space)
    before = repr(values)
    result = run(arguments, body, values)
    assert repr(values) == before
    assert repr(result) == repr(space["f"](*values))  # type: ignore[operator]


def test_reference_bodies_agree_with_python() -> None:
    """The expected results of python_fill's tests are what Python gives."""
    for example in (example for level in range(5) for example in some("python_fill", level, 8)):
        space: dict[str, object] = {}
        exec(f"{example.data['head']}\n{example.answer}", space)
        function = next(value for name, value in space.items() if name != "__builtins__")
        for values, expected in example.data["tests"]:
            assert repr(function(*values)) == repr(expected)  # type: ignore[operator]


@pytest.mark.parametrize(
    "source",
    ["", "x", "def f(:", "def f(): pass\ndef g(): pass", "@d\ndef f(): pass", "def f(*a): pass", "def f(a=1): pass",
     "async def f(): pass", "class f: pass", "def f(x):\n    return '\0'"],
)  # fmt: skip
def test_only_one_plain_function_is_parsed(source: str) -> None:
    """Anything but one function with positional arguments, without decorators and defaults, is no function."""
    assert sandbox.parse(source) is None


def test_odd_escapes_do_not_warn() -> None:
    """Text that would make Python's parser warn is parsed silently; warnings are errors here."""
    assert run("x", r"return '\d'", [1]) == r"\d"
