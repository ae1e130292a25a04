"""Types of parameters: what a signature says of plain values and of sequences of them is checked, the rest is not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from treille.errors import ParameterError
from treille.parameters import checked_value


def parameter(annotation: object, default: object = None) -> inspect.Parameter:
    """A keyword parameter `p` of that annotation."""
    return inspect.Parameter("p", inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [0, -3], [True, 1.5, "1", None, [1]]),
        ("float", [0, 1.5], [True, "1", None]),
        ("bool", [True], [1, "true"]),
        ("str", [""], [1, None]),
        ("int | None", [None, 4], ["x", True, []]),
        ("Sequence[int]", [(), [1, 2], (3,)], [1, "12", [True], [1.5], ["x"], None]),
        ("list[float] | None", [None, [1, 0.5]], [0.5, [True], "x"]),
        ("tuple[int, ...]", [(1, 2)], [1, ["x"]]),
        ("str | Sequence[str]", ["a", ["a", "b"]], [1, [1], None]),
        (Sequence[int], [[1]], [1]),
        (int | None, [None, 1], ["x"]),
        ("Sequence[str | Thing]", [["a", object()]], [3, "a"]),
        ("Callable[[str], int] | None", [len, None], [1, "len", [len]]),
        ("Literal['a', 'b']", ["a", "c"], [1, ["a"], None]),
        ("Thing", [1, "x", None], []),
        ("Literal[Color.RED]", [1, "x", None], []),
        ("owner.<locals>.Thing", [1, "x", None], []),
        (Literal["a", "b"], ["a", "c"], [1, ["a"], None]),
        (Callable[[str], int], [len], [1, "len"]),
        (Any, [1, "x", None], []),
        (inspect.Parameter.empty, [1, "x", None], []),
    ],
)
def test_types(annotation, good, bad):
    """What fits comes back; what does not is refused with the name, the value and the default."""
    for value in good:
        assert checked_value("owner", parameter(annotation), value) == value
    for value in bad:
        with pytest.raises(ParameterError, match=r"owner\(p=.*\): not a value of type .*leave it out for 7"):
            checked_value("owner", parameter(annotation, default=7), value)


def test_a_whole_number_is_a_float():
    """`1` for a float becomes `1.0`."""
    assert isinstance(checked_value("owner", parameter("float"), 1), float)
