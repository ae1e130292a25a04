"""What is remembered of each open container and of the scalar being read. All of it is replaced, never changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from treille.constraints.json.values import Shared

if TYPE_CHECKING:
    from treille.constraints.json.plans import Record, Site, Use
    from treille.constraints.json.report import Violation


EMPTY = Shared()


class Cause(NamedTuple):
    """Why entries have failed; a linked list, the latest first."""

    entries: int
    keyword: str
    reason: str
    inner: Violation | None
    earlier: Cause | None


class Values(NamedTuple):
    """The keys of the items or members so far, a linked list."""

    key: Any
    earlier: Values | None


class Records(NamedTuple):
    """The records of the items or members so far, a linked list."""

    record: Record
    earlier: Records | None


@dataclass(slots=True, eq=False)
class Frame:
    """An open object or array.

    Attributes:
        parent: the container around it.
        use: what it means to that container.
        site: the schemas that look at it.
        depth: how many containers it stands in, itself included.
        failed, passed: entries whose own keywords have failed or hold whatever follows.
        count: finished items, or names that have come.
        child: the use of the value that comes next or is being read.
        seen: an object's names; of an array with `uniqueItems`, the keys of its items.
        matches: of an array, per `contains` the number of items that count.
        name, triggered: of an object, the current name and which `dependentSchemas` apply.
        values, records: what has been collected, if it is needed.
        causes: why entries have failed.
    """

    parent: Frame | None
    use: Use
    site: Site
    depth: int
    failed: int
    passed: int
    count: int = 0
    child: Use | None = None
    seen: Shared = EMPTY
    matches: tuple[int, ...] = ()
    name: str | None = None
    triggered: int = 0
    values: Values | None = None
    records: Records | None = None
    causes: Cause | None = None

    @property
    def collects(self) -> bool:
        """Whether the keys of items or members are needed."""
        return self.use.collect or bool(self.site.members)

    def copy(self) -> Frame:
        """A frame to change before anyone else sees it."""
        return Frame(
            self.parent, self.use, self.site, self.depth, self.failed, self.passed, self.count, self.child, self.seen,
            self.matches, self.name, self.triggered, self.values, self.records, self.causes,
        )  # fmt: skip

    def fail(self, entries: int, keyword: str, reason: str, inner: Violation | None = None) -> None:
        """Notes that entries have failed; only on a fresh copy."""
        entries &= ~self.failed
        if entries:
            self.failed |= entries
            self.passed &= ~entries
            self.causes = Cause(entries, keyword, reason, inner, self.causes)


@dataclass(slots=True, eq=False)
class Text:
    """A string or a name that is being read.

    Attributes:
        is_name: whether it is a name.
        length: code points so far.
        pieces: decoded text so far, as far as it is needed, a linked list.
        states: one per check of the site; None where it has failed.
        fatal: by entries that have failed, whether the document is rejected then; a memo for the whole string.
    """

    use: Use
    site: Site
    is_name: bool
    failed: int
    states: tuple[Any, ...]
    length: int = 0
    pieces: Values | None = None
    causes: Cause | None = None
    fatal: dict[int, bool] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether the text is needed at its end."""
        return self.is_name or self.use.collect or self.site.needs_text

    def joined(self) -> str:
        """The text so far."""
        return "".join(reversed(collected(self.pieces)))


@dataclass(slots=True, eq=False)
class Digits:
    """A number that is being read."""

    use: Use
    site: Site
    text: str
    failed: int
    causes: Cause | None = None


@dataclass(slots=True, eq=False)
class Word:
    """`null`, `true` or `false`, known from its first byte; `at` bytes of it have come."""

    use: Use
    site: Site
    word: bytes
    at: int
    failed: int
    key: Any
    causes: Cause | None = None


Scalar = Text | Digits | Word


def collected(values: Values | None) -> list[Any]:
    """The keys of a linked list, the latest first."""
    found = []
    while values is not None:
        found.append(values.key)
        values = values.earlier
    return found


def recorded(records: Records | None) -> list[Record]:
    """The records of a linked list, the earliest first."""
    found = []
    while records is not None:
        found.append(records.record)
        records = records.earlier
    return found[::-1]
