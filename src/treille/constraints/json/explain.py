"""Why a value fails: from the masks of a plan back to one keyword, for the message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.constraints.json.nodes import Kind, Operator
from treille.constraints.json.plans import bits, judge
from treille.constraints.json.report import Violation

if TYPE_CHECKING:
    from treille.constraints.json.frames import Cause, Frame
    from treille.constraints.json.nodes import Node
    from treille.constraints.json.plans import Plan, Step

_OPERATORS = {
    Operator.ANY: "none of the alternatives is left",
    Operator.ONE: "not exactly one of the alternatives can hold",
    Operator.NOT: "the schema that must not hold does",
    Operator.IF: "neither branch is left",
}


def pointer(frame: Frame | None) -> str:
    """A JSON pointer to the value that is being read inside `frame`."""
    steps: list[str] = []
    while frame is not None:
        if frame.site.kind == Kind.ARRAY:
            steps.append(str(frame.count))
        elif frame.name is not None:
            steps.append(frame.name.replace("~", "~0").replace("/", "~1"))
        frame = frame.parent
    return "".join(f"/{step}" for step in reversed(steps))


def cause(
    plan: Plan, kind: Kind | None, own: int, outcome: tuple[int, int], causes: Cause | None, root: int, place: str
) -> Violation:
    """What made a root fail.

    Args:
        plan: the schemas of the value.
        kind: its type, None before its first byte.
        own: entries whose own keywords have failed.
        outcome: entries that have failed and passed, operators included.
        causes: why they have.
        root: the root's bit.
        place: a JSON pointer to the value.
    """
    bit = root
    while True:
        node = plan.nodes[bit.bit_length() - 1]
        if own & bit:
            return _own(node, kind, causes, bit, place)
        step = _failing(plan, bit, outcome)
        if step is None:
            keyword = "unevaluatedItems" if kind == Kind.ARRAY else "unevaluatedProperties"
            return Violation(node.where, keyword, place, "something that no other keyword has looked at")
        inner = _inner(step, outcome)
        if not inner:
            return Violation(node.where, step.keyword, place, _OPERATORS.get(step.operator, "it cannot hold"))
        bit = 1 << next(bits(inner))


def _own(node: Node, kind: Kind | None, causes: Cause | None, bit: int, place: str) -> Violation:
    """What made an entry's own keywords fail."""
    while causes is not None:
        if causes.entries & bit:
            return causes.inner or Violation(node.where, causes.keyword, place, causes.reason)
        causes = causes.earlier
    what = "nothing" if not node.kinds else f"no {str(kind.name).lower()}" if kind is not None else "no value"
    return Violation(node.where, node.kinds_keyword, place, f"{what} is allowed here")


def _failing(plan: Plan, bit: int, outcome: tuple[int, int]) -> Step | None:
    """The operator that makes an entry fail."""
    steps = dict(plan.steps).get(bit, ())
    for triggered in (0, -1):
        for step in steps:
            if judge(step, *outcome, triggered, ended=False)[0]:
                return step
    return None


def _inner(step: Step, outcome: tuple[int, int]) -> int:
    """The failed entries that are each to blame alone; none where it is their combination."""
    failed, passed = outcome
    if step.operator in {Operator.ALL, Operator.DEPENDENT}:
        return failed & step.masks[0]
    if step.operator == Operator.IF and (failed | passed) & step.masks[0]:
        return failed & (step.masks[1] if passed & step.masks[0] else step.masks[2])
    return 0
