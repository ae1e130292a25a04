"""JSON Schema as a validator of prefixes: compiled once, run byte by byte, forked for free.

A `Program` is a schema of draft 2020-12, 2019-09 or 7. A `State` is what a prefix of a document has come to; it is a
value: `feed` gives another one and leaves it as it is, and continuations of a prefix share what they have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from treille.constraints.json import machine
from treille.constraints.json.checks import FREE
from treille.constraints.json.compiler import Compiler
from treille.constraints.json.documents import Draft, Library, SchemaRefused
from treille.constraints.json.frames import Digits, Frame, Scalar, Text
from treille.constraints.json.machine import Cursor, Rejected
from treille.constraints.json.report import Enforcement
from treille.constraints.json.uses import Plans
from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from treille.constraints.json.nodes import ArrayRules, Node, ObjectRules
    from treille.constraints.json.plans import Use
    from treille.constraints.json.report import Violation

MAX_DEPTH = 128


class Program:
    """A compiled schema; immutable to its users, shared freely between threads.

    Attributes:
        report: one entry per keyword of every schema that can be reached; keywords that assert are enforced by the
            second layer, which is this program.
        max_depth: how deep containers of a document may be nested.
    """

    def __init__(self, root: Node, report: tuple[Enforcement, ...], max_depth: int) -> None:
        self.report = report
        self.max_depth = max_depth
        self._plans = Plans()
        self._top = self._plans.top(root)

    @staticmethod
    def compile(
        schema: Any,
        *,
        draft: Draft | int | None = None,
        formats: bool = True,
        registry: Mapping[str, Any] | None = None,
        max_depth: int = MAX_DEPTH,
    ) -> Program:
        """The program of a schema.

        Args:
            schema: a parsed schema: a dictionary or a boolean.
            draft: 7, 2019 or 2020: the draft to read the schema as, whatever its `$schema` says; by default what that
                says, and 2020-12 without it.
            formats: whether `format` asserts; formats nobody knows are annotations either way.
            registry: further documents that references may lead to, by URI. Nothing is ever fetched; metaschemas are
                there if the package `jsonschema-specifications` is.
            max_depth: how deep containers of a document may be nested.

        Raises:
            SchemaRefused: (a ParameterError) a keyword cannot be enforced, or its value is not what it takes.
        """
        program, report = _compile(schema, draft, registry or {}, max_depth, formats=formats)
        if program is None:
            raise report[1]
        return program

    @staticmethod
    def inspect(
        schema: Any,
        *,
        draft: Draft | int | None = None,
        formats: bool = True,
        registry: Mapping[str, Any] | None = None,
    ) -> list[Enforcement]:
        """The report of a schema, also of one that `compile` refuses: what is refused is listed with the reason."""
        return list(_compile(schema, draft, registry or {}, MAX_DEPTH, formats=formats)[1][0])

    def start(self) -> State:
        """The state of the empty prefix."""
        return State(self, machine.VALUE, None, None, b"")

    def cursor(self, state: State) -> Cursor:
        """A cursor that goes on from a state."""
        return Cursor(self._plans, self._top, self.max_depth, state.mode, state.frame, state.scalar, state.half)

    @property
    def top(self) -> Use:
        """What the whole document must satisfy."""
        return self._top


def _compile(
    schema: Any, draft: Draft | int | None, registry: Mapping[str, Any], max_depth: int, *, formats: bool
) -> tuple[Program | None, tuple[list[Enforcement], ParameterError]]:
    """A program if nothing is refused; the report and the first refusal."""
    if draft is not None and draft not in set(Draft):
        known = ", ".join(str(int(known)) for known in Draft)
        msg = f"draft={draft!r} is unknown: pass one of {known}"
        raise ParameterError(msg)
    if max_depth < 1:
        msg = f"max_depth={max_depth!r}: a document needs at least one level"
        raise ParameterError(msg)
    try:
        library = Library(schema, registry, None if draft is None else Draft(draft))
    except SchemaRefused as refused:
        return None, ([Enforcement(refused.pointer, refused.keyword, "refused", refused.reason)], refused)
    compiler = Compiler(library, formats=formats)
    root = compiler.compile()
    if compiler.refused:
        return None, (compiler.report, compiler.refused[0])
    return Program(root, tuple(compiler.report), max_depth), (compiler.report, ParameterError())


class State(NamedTuple):
    """A prefix of a document that can still become a valid one, as far as that is known.

    Attributes:
        program: the schema.
        mode, frame, scalar, half: where the parser stands.
    """

    program: Program
    mode: int
    frame: Frame | None
    scalar: Scalar | None
    half: bytes

    def feed(self, data: bytes) -> State | Violation:
        """The state after `data`, or why no completion of the document satisfies the schema.

        A prefix of a valid document is never rejected (within the limits on depth and on the length of numbers). What
        cannot be decided for a prefix is decided at the end of the value it is about.
        """
        cursor = self.program.cursor(self)
        try:
            cursor.run(data)
            cursor.look_ahead()
        except Rejected as rejected:
            return rejected.violation
        return State(self.program, cursor.mode, cursor.frame, cursor.scalar, cursor.half)

    @property
    def complete(self) -> bool:
        """Whether the bytes so far are one document that satisfies the schema; a number may go on all the same."""
        if self.frame is not None:
            return False
        if isinstance(self.scalar, Digits):
            cursor = self.program.cursor(self)
            try:
                cursor.end_number()
            except Rejected:
                return False
            return True
        return self.mode == machine.AFTER

    @property
    def ended(self) -> bool:
        """Whether only white space may follow."""
        return self.frame is None and self.mode == machine.AFTER

    def takes(self, text: str) -> bool | None:
        """What `feed` says of plain characters in the string being read, in little time; None where it has to tell."""
        return self.program.cursor(self).takes(text) if isinstance(self.scalar, Text) else None

    @property
    def room(self) -> int:
        """So many characters may follow in the string that is being read, whatever they are; 0 elsewhere."""
        scalar = self.scalar
        if not isinstance(scalar, Text) or self.half:
            return 0
        rooms = [check.room(scalar.length) for bit, check in scalar.site.strings if not scalar.failed & bit]
        return min(rooms, default=FREE)

    @property
    def open(self) -> tuple[str, ...]:
        """The keywords, as `URI#pointer/keyword`, that are decided only at the end of a value that is being read."""
        found: dict[str, None] = {}
        frame = self.frame
        scalar = self.scalar
        if isinstance(scalar, Text | Digits):
            site = scalar.site
            for bit, check in site.strings if isinstance(scalar, Text) else ():
                if not scalar.failed & bit:
                    found[f"{_where(site.plan.nodes, bit)}/{check.keyword}"] = None
            for bit, number in site.numbers if isinstance(scalar, Digits) else ():
                if not scalar.failed & bit:
                    for keyword in number.late:
                        found[f"{_where(site.plan.nodes, bit)}/{keyword}"] = None
        while frame is not None:
            for place in _open_in(frame):
                found[place] = None
            frame = frame.parent
        return tuple(found)


def _where(nodes: tuple[Node, ...], bit: int) -> str:
    """The place of the schema behind an entry."""
    return nodes[bit.bit_length() - 1].where


def _open_in(frame: Frame) -> list[str]:
    """The keywords that wait for the end of a container."""
    site = frame.site
    outcome = site.plan.evaluate(frame.failed, frame.passed, frame.triggered)
    wanted = site.plan.needed(*outcome) & ~outcome[0] & ~outcome[1]
    found = []
    containers: list[tuple[int, ObjectRules | ArrayRules]] = [*site.objects, *site.arrays]
    for bit, rules in containers:
        if wanted & bit:
            found += [f"{_where(site.plan.nodes, bit)}/{keyword}" for keyword in rules.late]
    for bit, steps in site.plan.steps:
        if wanted & bit:
            found += [f"{_where(site.plan.nodes, bit)}/{step.keyword}" for step in steps if step.operator]
    return found
