"""The machine: a pushdown parser of JSON that runs all schemas of each place side by side.

A `Cursor` is a state that is being changed by one `feed`; what it leaves behind is shared, never changed. Whenever the
outcome of a schema changes, the change is carried outwards through the open containers; the document is rejected when
it reaches the root. A container learns what a value came to at the value's end.

Where few values are left for a scalar, or a value, a comma or a bracket must follow, all of them are tried: what none
of them can save is rejected at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from treille.constraints.json import explain, lexer, values
from treille.constraints.json.containers import absorb, begin, close_array, close_object, enter_item, enter_name
from treille.constraints.json.frames import Cause, Digits, Frame, Scalar, Text, Word
from treille.constraints.json.nodes import Kind
from treille.constraints.json.report import Violation
from treille.constraints.json.scalars import (
    FEW,
    advance_digits,
    advance_text,
    begin_character,
    fail_one_of,
    failed_after,
    finish_digits,
    finish_text,
    open_word,
    values_left,
)  # fmt: skip

if TYPE_CHECKING:
    from treille.constraints.json.plans import Plan, Site, Use
    from treille.constraints.json.uses import Plans

# Modes: what the next byte may be.
VALUE, FIRST_ITEM, FIRST_NAME, NAME, COLON, AFTER, STRING, NUMBER, WORD = range(9)

_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_OPEN_ARRAY, _CLOSE_ARRAY, _OPEN_OBJECT, _CLOSE_OBJECT = b"[]{}"
_WORDS = {
    ord("n"): (b"null", values.NULL, Kind.NULL),
    ord("t"): (b"true", values.TRUE, Kind.BOOLEAN),
    ord("f"): (b"false", values.FALSE, Kind.BOOLEAN),
}
_NUMBER_STARTS = frozenset(b"-0123456789")
_STARTS = tuple(bytes((byte,)) for byte in b'"[{ntf-0123456789')
"""First bytes of values."""
_AHEAD = 3
"""Commas and brackets that are looked beyond for something that may follow."""


class Rejected(Exception):
    """The bytes so far cannot become a valid document."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation


class Cursor:
    """One `feed` in progress.

    Attributes:
        mode: what the next byte may be.
        frame: the innermost open container.
        scalar: the scalar being read.
        half: bytes of an unfinished character or escape.
        ahead: how far to look ahead; 0 in a trial.
    """

    __slots__ = ("ahead", "frame", "half", "max_depth", "mode", "plans", "scalar", "top")

    def __init__(
        self, plans: Plans, top: Use, max_depth: int, mode: int, frame: Frame | None, scalar: Scalar | None, half: bytes
    ) -> None:
        self.ahead = _AHEAD
        self.plans = plans
        self.top = top
        self.max_depth = max_depth
        self.mode = mode
        self.frame = frame
        self.scalar = scalar
        self.half = half

    def run(self, data: bytes) -> None:
        """Reads `data`.

        Raises:
            Rejected: no completion is a document that satisfies the schema.
        """
        if self.half:
            data, self.half = self.half + data, b""
        at, end = 0, len(data)
        while at < end:
            mode = self.mode
            if mode == STRING:
                at = self._string(data, at, end)
            elif mode == NUMBER:
                at = self._number(data, at, end)
            elif mode == WORD:
                at = self._word(data, at)
            else:
                found = lexer.WHITE_SPACE.match(data, at)
                assert found is not None
                at = found.end()
                if at < end:
                    self._structure(data[at])
                    at += 1 if self.mode < NUMBER else 0  # numbers and words read their first byte themselves

    def first_item(self) -> Use | None:
        """What an item means to the array that has just begun."""
        return None if self.frame is None else enter_item(self.frame, self.plans).child

    def look_ahead(self) -> None:
        """Nothing, if something may follow the bytes so far; what ends inside a scalar is not looked at.

        Raises:
            Rejected: whatever follows is rejected.
        """
        frame, reasons = self.frame, list[Violation]()
        if not self.ahead or self.mode in {STRING, NUMBER, WORD, COLON} or (frame is None and self.mode == AFTER):
            return
        following = _STARTS if self.mode in {VALUE, FIRST_ITEM} else (b'"',)
        if frame is not None and self.mode not in {VALUE, NAME}:
            is_array = frame.site.kind == Kind.ARRAY
            following = (b"]" if is_array else b"}", *((b",",) if self.mode == AFTER else following))
        for byte in following:
            violation = self._rejection(byte, self.mode, self.ahead - 1)
            if violation is None:
                return
            reasons.append(violation)
        raise Rejected(next((reason for reason in reasons if reason.keyword not in {"", "type"}), reasons[0]))

    def _rejection(self, data: bytes, mode: int, ahead: int = 0) -> Violation | None:
        """Why `data` may not follow in a mode outside of scalars; None if it may, as far as that is known."""
        trial = Cursor(self.plans, self.top, self.max_depth, mode, self.frame, None, b"")
        trial.ahead = ahead
        try:
            trial.run(data)
            trial.look_ahead()
        except Rejected as rejected:
            return rejected.violation
        return None

    def _try_left(self) -> None:
        """Tries what is left where entries leave few values: entries that need one must do without.

        Raises:
            Rejected: neither with these entries nor without them can the document be completed.
        """
        scalar = self.scalar
        if not self.ahead or scalar is None or isinstance(scalar, Word):
            return
        mode = NAME if isinstance(scalar, Text) and scalar.is_name else VALUE
        candidates = list(values_left(scalar))
        texts = {text for _, _, left in candidates for text in left}
        if not texts or len(texts) > FEW:
            return
        rejections = {text: self._rejection(text, mode) for text in texts}
        without: Text | Digits = scalar  # only supposed: the value may turn out to be one of those that are left
        for bit, keyword, left in candidates:
            reasons = [found for text in left if (found := rejections[text])]
            if reasons and len(reasons) == len(left):
                without = fail_one_of(without, bit, keyword, reasons[0])
        if without is not scalar:
            self._scalar_check(without)

    def _structure(self, byte: int) -> None:
        """One byte outside of scalars; the first byte of a number is left to be read."""
        mode = self.mode
        if mode == VALUE or (mode == FIRST_ITEM and byte != _CLOSE_ARRAY):
            self._open(byte)
        elif mode == AFTER:
            self._after(byte)
        elif mode == COLON and byte == _COLON:
            self.mode = VALUE
        elif mode in {NAME, FIRST_NAME} and byte == _QUOTE:
            self._open_name()
        elif (mode == FIRST_NAME and byte == _CLOSE_OBJECT) or mode == FIRST_ITEM:
            self._close()
        else:
            wanted = {COLON: "a colon", NAME: "a name", FIRST_NAME: "a name or }"}[mode]
            self._no_json(f"{wanted} is expected, not {bytes((byte,))!r}")

    def _after(self, byte: int) -> None:
        """A byte after a value."""
        frame = self.frame
        if frame is None:
            self._no_json(f"the document has ended before {bytes((byte,))!r}")
        is_array = frame.site.kind == Kind.ARRAY
        if byte == (_CLOSE_ARRAY if is_array else _CLOSE_OBJECT):
            self._close()
        elif byte == _COMMA:
            self._next()
            self.mode = VALUE if is_array else NAME
        else:
            self._no_json(f"a comma or {']' if is_array else '}'} is expected, not {bytes((byte,))!r}")

    def _next(self) -> None:
        """A comma: another item, or another member, will come."""
        frame = self.frame
        assert frame is not None
        self.frame = enter_item(frame, self.plans) if frame.site.kind == Kind.ARRAY else begin(frame)
        self._review(frame)
        if frame.site.kind == Kind.ARRAY:
            assert self.frame is not None
            self._preview(self.frame.child)

    def _open(self, byte: int) -> None:
        """The first byte of a value."""
        if self.mode == FIRST_ITEM:
            frame = self.frame
            assert frame is not None
            self.frame = enter_item(frame, self.plans)
            self._review(frame)
        use = self.frame.child if self.frame is not None else self.top
        assert use is not None
        if byte == _QUOTE:
            self._open_text(use, is_name=False)
        elif byte in {_OPEN_OBJECT, _OPEN_ARRAY}:
            self._open_container(use, Kind.OBJECT if byte == _OPEN_OBJECT else Kind.ARRAY)
        elif byte in _NUMBER_STARTS:
            site = use.plan.site(Kind.NUMBER)
            self.scalar = Digits(use, site, "", site.failed)
            self.mode = NUMBER
            self._check(use, site, site.failed, site.outcome, None)
        elif byte in _WORDS:
            word, key, kind = _WORDS[byte]
            if self.ahead and (violation := self._rejection(word, VALUE)):  # nothing else can come of its first byte
                raise Rejected(violation)
            self.scalar = scalar = open_word(use, use.plan.site(kind), word, key)
            self.mode = WORD
            self._scalar_check(scalar)
        else:
            self._no_json(f"a value is expected, not {bytes((byte,))!r}")

    def _open_text(self, use: Use, *, is_name: bool) -> None:
        """The opening quote of a string or a name."""
        site = use.plan.site(Kind.STRING)
        states = tuple(check.start() for _, check in site.strings)
        self.scalar = Text(use, site, is_name, site.failed, states)
        self.mode = STRING
        self._check(use, site, site.failed, site.outcome, None)
        self._try_left()

    def _open_name(self) -> None:
        """The opening quote of a name."""
        frame = self.frame
        assert frame is not None
        if self.mode == FIRST_NAME:
            self.frame = frame = begin(frame)
            self._review(frame)
        self._open_text(self.plans.name(frame.site, frame.failed, frame.triggered), is_name=True)

    def _open_container(self, use: Use, kind: Kind) -> None:
        """The opening bracket of an array or an object."""
        depth = 1 if self.frame is None else self.frame.depth + 1
        if depth > self.max_depth:
            self._no_json(f"containers are nested deeper than {self.max_depth}")
        site = use.plan.site(kind)
        self._check(use, site, site.failed, site.outcome, None)
        self.frame = Frame(self.frame, use, site, depth, site.failed, site.passed, matches=(0,) * len(site.contains))
        self.mode = FIRST_NAME if kind == Kind.OBJECT else FIRST_ITEM

    def _close(self) -> None:
        """The closing bracket of a container."""
        frame = self.frame
        assert frame is not None
        closed, outcome, key = close_object(frame) if frame.site.kind == Kind.OBJECT else close_array(frame)
        self.frame = frame.parent
        self._finish(closed.use, closed.site, closed.failed, outcome, closed.causes, key)

    def _string(self, data: bytes, at: int, end: int) -> int:
        """Characters of a string, up to its end or that of the data; the next position."""
        scalar = self.scalar
        assert isinstance(scalar, Text)
        pieces: list[str] = []
        while at < end:
            found = lexer.PLAIN.match(data, at)
            assert found is not None
            if found.end() > at:
                pieces.append(found[0].decode())
                at = found.end()
                continue
            escape = lexer.ESCAPE.match(data, at)
            if escape is None:
                break
            pieces.append(lexer.unescape(escape))
            at = escape.end()
        if pieces:
            self.scalar = after = advance_text(scalar, "".join(pieces))
            if after.failed != scalar.failed:
                self._scalar_check(after)
            self._try_left()
        if at == end:
            return at
        if data[at] == _QUOTE:
            self._end_text()
            return at + 1
        if lexer.HALF.fullmatch(data, at) is None:
            self._no_json("a character, an escape or the end of the string is expected")
        self.half = data[at:]
        self._half_check()
        return end

    def _half_check(self) -> None:
        """Rejects a character or an escape that has begun if none of those that it may become is allowed."""
        scalar = self.scalar
        assert isinstance(scalar, Text)
        self.scalar = after = begin_character(scalar, lexer.characters(self.half))
        if after.failed != scalar.failed:
            self._scalar_check(after)

    def _end_text(self) -> None:
        """The closing quote of a string or a name."""
        scalar = self.scalar
        assert isinstance(scalar, Text)
        done, text = finish_text(scalar)
        if not done.is_name:
            self._end_scalar(done, text)
            return
        frame = self.frame
        assert frame is not None
        if frame.seen.has(text):
            self._no_json(f"the name {text!r} comes twice")
        self._scalar_check(done)
        self.scalar = None
        failed = _entries(done.use, self._outcome(done)[0])
        inner = self._cause(done, self._outcome(done)) if failed else None
        self.frame = enter_name(frame, text, failed, inner, self.plans)
        self._review(frame)
        self._preview(self.frame.child)
        self.mode = COLON

    def _number(self, data: bytes, at: int, end: int) -> int:
        """Characters of a number; the next position."""
        scalar = self.scalar
        assert isinstance(scalar, Digits)
        found = lexer.NUMBER_BYTES.match(data, at)
        assert found is not None
        if found.end() > at:
            text = scalar.text + found[0].decode()
            if len(text) > values.MAX_DIGITS:
                self._no_json(f"a number has more than {values.MAX_DIGITS} characters")
            if lexer.NUMBER_PREFIX.fullmatch(text) is None:
                self._no_json(f"{text[:40]!r} is no number")
            self.scalar = after = advance_digits(scalar, text)
            if after.failed != scalar.failed:
                self._scalar_check(after)
            self._try_left()
        if found.end() < end:
            self.end_number()
        return found.end()

    def end_number(self) -> None:
        """The end of a number, which no byte of its own marks.

        Raises:
            Rejected: it may not end here.
        """
        scalar = self.scalar
        assert isinstance(scalar, Digits)
        if lexer.NUMBER.fullmatch(scalar.text) is None:
            self._no_json(f"a number cannot end after {scalar.text[:40]!r}")
        self._end_scalar(*finish_digits(scalar))

    def _word(self, data: bytes, at: int) -> int:
        """Characters of `null`, `true` or `false`; the next position."""
        scalar = self.scalar
        assert isinstance(scalar, Word)
        piece = data[at : at + len(scalar.word) - scalar.at]
        reached = scalar.at + len(piece)
        if scalar.word[scalar.at : reached] != piece:
            self._no_json(f"{scalar.word.decode()} is spelled otherwise")
        if reached == len(scalar.word):
            self._end_scalar(scalar, scalar.key)
        else:
            self.scalar = Word(scalar.use, scalar.site, scalar.word, reached, scalar.failed, scalar.key, scalar.causes)
        return at + len(piece)

    def takes(self, text: str) -> bool | None:
        """Whether plain characters may follow in the string being read; None where `run` has to tell."""
        scalar = self.scalar
        failed = failed_after(scalar, text) if isinstance(scalar, Text) and not self.half else None
        if failed is None or not isinstance(scalar, Text):
            return None
        if failed == scalar.failed:
            return True
        if failed not in scalar.fatal:
            try:
                self._scalar_check(replace(scalar, failed=failed))
            except Rejected:
                scalar.fatal[failed] = True
            else:
                scalar.fatal[failed] = False
        return not scalar.fatal[failed]

    def _outcome(self, scalar: Scalar) -> tuple[int, int]:
        """The outcome of a finished scalar: what has not failed holds."""
        plan = scalar.site.plan
        return plan.evaluate(scalar.failed, plan.full & ~scalar.failed, ended=True)

    def _end_scalar(self, scalar: Scalar, key: Any) -> None:
        """The end of a scalar that is a value."""
        self.scalar = None
        self._finish(scalar.use, scalar.site, scalar.failed, self._outcome(scalar), scalar.causes, key)

    def _finish(self, use: Use, site: Site, own: int, outcome: tuple[int, int], causes: Cause | None, key: Any) -> None:
        """The end of a value: the container around it, or the document, learns what it came to."""
        self.mode = AFTER
        frame = self.frame
        if frame is None:
            self._check(use, site, own, outcome, causes)
            return
        entries = _entries(use, outcome[0])
        inner = None
        if entries & ~frame.failed:
            root = next(root for root, entry, _ in use.must if outcome[0] & root and entry & ~frame.failed)
            inner = explain.cause(site.plan, site.kind, own, outcome, causes, root, explain.pointer(frame))
        self.frame = absorb(frame, use, outcome, entries, inner, key)
        self._review(frame)

    def _review(self, before: Frame) -> None:
        """Checks the innermost container if more of its entries have failed, or hold, than before."""
        frame = self.frame
        assert frame is not None
        if frame.failed != before.failed or frame.passed != before.passed or frame.triggered != before.triggered:
            outcome = frame.site.plan.evaluate(frame.failed, frame.passed, frame.triggered)
            self._check(frame.use, frame.site, frame.failed, outcome, frame.causes, frame.parent)

    def _preview(self, use: Use | None) -> None:
        """Checks schemas that no value at all satisfies, before the value comes."""
        assert use is not None
        plan = use.plan
        if plan.failed:
            self._rise(use, plan, None, plan.failed, (plan.failed, plan.passed), None, self.frame)

    def _scalar_check(self, scalar: Scalar) -> None:
        """Checks a scalar of whose entries more have failed than before."""
        site = scalar.site
        outcome = site.plan.evaluate(scalar.failed, site.passed & ~scalar.failed)
        if isinstance(scalar, Word):
            outcome = self._outcome(scalar)
        self._check(scalar.use, site, scalar.failed, outcome, scalar.causes)

    def _cause(self, scalar: Scalar, outcome: tuple[int, int]) -> Violation:
        """Why a scalar fails its use."""
        root = next(root for root, _, _ in scalar.use.must if outcome[0] & root)
        place = explain.pointer(self.frame)
        return explain.cause(scalar.site.plan, Kind.STRING, scalar.failed, outcome, scalar.causes, root, place)

    def _check(
        self, use: Use, site: Site, own: int, outcome: tuple[int, int], causes: Cause | None, *around: Frame | None
    ) -> None:
        """Rejects the document if the outcome of a value leaves it no way out."""
        if outcome[0]:
            frame = around[0] if around else self.frame
            self._rise(use, site.plan, site.kind, own, outcome, causes, frame)

    def _rise(
        self, use: Use, plan: Plan, kind: Kind | None, own: int, outcome: tuple[int, int], causes: Cause | None,
        frame: Frame | None,
    ) -> None:  # fmt: skip
        """Carries failures outwards; nothing is stored, since a container learns them at the value's end."""
        first: Violation | None = None
        while entries := _entries(use, outcome[0]):
            new = entries & ~frame.failed if frame is not None else entries
            if not new:
                return
            root = next(root for root, entry, _ in use.must if outcome[0] & root and entry & new)
            inner = explain.cause(plan, kind, own, outcome, causes, root, explain.pointer(frame))
            first = first or inner
            if frame is None:
                raise Rejected(inner)
            use, plan, kind, own = frame.use, frame.site.plan, frame.site.kind, frame.failed | new
            causes = Cause(new, "", "", inner, frame.causes)
            outcome = plan.evaluate(own, frame.passed & ~new, frame.triggered)
            frame = frame.parent

    def _no_json(self, reason: str) -> NoReturn:
        """Rejects text that is no JSON, or not of the kind that is accepted."""
        raise Rejected(Violation("", "", explain.pointer(self.frame), reason))


def _entries(use: Use, failed: int) -> int:
    """The entries of the container around a value that fail with it."""
    found = 0
    if failed:
        for root, entry, _ in use.must:
            if failed & root:
                found |= entry
    return found
