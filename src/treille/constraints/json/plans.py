"""Which schemas look at one place of the document, and what is known about them.

A *plan* holds all nodes that apply to one value, closed under `allOf`, `anyOf`, `$ref` and so on, each before those
that depend on it. What is known is two bit masks over its nodes: those that have failed and those that have passed,
whatever follows. Bits that are in neither are open; the operators are Kleene's. A *site* is a plan for one type of
value. A *use* says what a value's schemas mean to the container around it.

Plans and sites are made when they are first needed and kept, up to a bound; a document therefore pays for the parts of
its schema that it reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from treille.constraints.json.nodes import ALL_KINDS, InPlace, Kind, Node, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator


MAX_KEPT = 1024


class Record(NamedTuple):
    """One member or item, for the `unevaluated…` keywords: entries that look at it, entries whose schema it fails."""

    cover: int
    failed: int


class Step(NamedTuple):
    """One operator of one entry; `masks` are of the entries it combines, `trigger` the bit of a property's name."""

    operator: Operator
    masks: tuple[int, ...]
    trigger: int
    keyword: str


class Plan:
    """The nodes that apply to one value.

    Attributes:
        nodes: the entries, each after those it depends on.
        roots: bit of each root, in the order asked for.
        steps: entry bit and operators, of the entries that have any.
        triggers: per property name the bit of its `dependentSchemas`.
        unevaluated: mask of entries with an `unevaluated…` keyword.
        failed: entries that no value at all can satisfy, operators included.
    """

    def __init__(self, roots: tuple[Node, ...]) -> None:
        self.nodes = tuple(_closure(roots))
        place = {node: 1 << index for index, node in enumerate(self.nodes)}
        self.roots = tuple(place[root] for root in roots)
        self.full = (1 << len(self.nodes)) - 1
        self.triggers: dict[str, int] = {}
        self.steps = tuple(
            (place[node], tuple(self._step(step, place) for step in node.in_place))
            for node in self.nodes
            if node.in_place
        )
        self.unevaluated = 0
        impossible = passed = 0
        for node, bit in place.items():
            if (node.array and node.array.unevaluated) or (node.object and node.object.unevaluated):
                self.unevaluated |= bit
            impossible |= bit if not node.kinds else 0
            asked = node.kinds != ALL_KINDS or any(node.asks(kind) for kind in Kind)
            passed |= 0 if asked else bit
        self.failed, self.passed = self.evaluate(impossible, passed)
        self._reach = self._reaches()
        self._sites: dict[Kind, Site] = {}

    def _step(self, step: InPlace, place: dict[Node, int]) -> Step:
        """The operator on bit masks."""
        trigger = self.triggers.setdefault(step.name, 1 << len(self.triggers)) if step.name else 0
        masks = tuple(place[node] if node is not None else 0 for node in step.nodes)
        if step.operator in {Operator.ALL, Operator.ANY, Operator.ONE}:
            masks = (sum(masks),)
        return Step(step.operator, masks, trigger, step.keyword)

    def _reaches(self) -> list[int]:
        """Per entry the entries whose evaluated names and items may become its own, itself included."""
        reach: list[int] = []
        operators = dict(self.steps)
        for index in range(len(self.nodes)):
            found = 1 << index
            for step in operators.get(1 << index, ()) if self.unevaluated else ():
                if step.operator != Operator.NOT:
                    for other in bits(sum(set(step.masks))):
                        found |= reach[other]
            reach.append(found)
        return reach

    def reach(self, bit: int) -> int:
        """The entries whose evaluated names and items may become those of the entry `bit`, itself included."""
        return self._reach[bit.bit_length() - 1]

    def may_cover(self, bit: int, cover: int, failed: int) -> bool:
        """Whether an entry may come to have looked at a member that the entries `cover` look at."""
        return bool(self.reach(bit) & ~failed & (cover | self.unevaluated & ~bit))

    def site(self, kind: Kind) -> Site:
        """The plan for values of one type."""
        found = self._sites.get(kind)
        if found is None:
            found = self._sites[kind] = Site(self, kind)
        return found

    def evaluate(self, failed: int, passed: int, triggered: int = 0, *, ended: bool = False) -> tuple[int, int]:
        """The entries that have failed and passed, from what is known of each one's own keywords.

        Args:
            failed: mask of the entries whose own keywords have failed.
            passed: mask of those whose own keywords hold.
            triggered: bits of the names that have come, for `dependentSchemas`.
            ended: no further names come.
        """
        for bit, steps in self.steps:
            if failed & bit:
                continue
            held = passed & bit
            for step in steps:
                fails, holds = judge(step, failed, passed, triggered, ended=ended)
                if fails:
                    failed |= bit
                    passed &= ~bit
                    break
                if not holds:
                    held = 0
            else:
                if not held:
                    passed &= ~bit
        return failed, passed

    def evaluate_end(self, failed: int, triggered: int, asking: int, records: list[Record]) -> tuple[int, int]:
        """As `evaluate`, at the end of a container some of whose entries, `asking`, ask for what is unevaluated."""
        own = [0] * len(self.nodes)
        bad = [0] * len(self.nodes)
        for position, record in enumerate(records):
            for index in bits(record.cover):
                own[index] |= 1 << position
            for index in bits(record.failed):
                bad[index] |= 1 << position
        everything = (1 << len(records)) - 1
        operators = dict(self.steps)
        passed = 0
        for index in range(len(self.nodes)):
            bit = 1 << index
            steps = operators.get(bit, ())
            fails = failed & bit or any(judge(step, failed, passed, triggered, ended=True)[0] for step in steps)
            for step in steps:
                for other in bits(_annotating(step, passed, triggered)):
                    own[index] |= own[other]
            if fails or (asking & bit and bad[index] & ~own[index]):
                failed |= bit
                continue
            passed |= bit
            if asking & bit:
                own[index] = everything
        return failed, passed

    def needed(self, failed: int, passed: int) -> int:
        """The entries whose outcome can still matter."""
        wanted = sum(set(self.roots)) & ~failed
        operators = dict(self.steps)
        for index in range(len(self.nodes) - 1, -1, -1):
            bit = 1 << index
            # What has passed still matters to those that ask what it has looked at.
            if wanted & bit and (self.unevaluated or not passed & bit):
                for step in operators.get(bit, ()):
                    for mask in step.masks:
                        wanted |= mask & ~failed
        return wanted


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits that are set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def judge(step: Step, failed: int, passed: int, triggered: int, *, ended: bool) -> tuple[bool, bool]:
    """Whether an operator fails, and whether it holds, whatever the open entries turn out to be."""
    mask = step.masks[0]
    match step.operator:
        case Operator.ALL:
            return bool(failed & mask), passed & mask == mask
        case Operator.ANY:
            return failed & mask == mask, bool(passed & mask)
        case Operator.ONE:
            holding = (passed & mask).bit_count()
            closed = (failed | passed) & mask == mask
            return holding > 1 or (closed and holding == 0), closed and holding == 1
        case Operator.NOT:
            return bool(passed & mask), bool(failed & mask)
        case Operator.DEPENDENT:
            if triggered & step.trigger:
                return bool(failed & mask), bool(passed & mask)
            return False, ended or bool(passed & mask)
        case Operator.IF:
            return _judge_condition(step.masks, failed, passed)


def _judge_condition(masks: tuple[int, ...], failed: int, passed: int) -> tuple[bool, bool]:
    """`judge` for `if`; an absent branch, mask zero, holds."""
    condition, then, otherwise = masks
    if passed & condition:
        return bool(failed & then), passed & then == then
    if failed & condition:
        return bool(failed & otherwise), passed & otherwise == otherwise
    fails = bool(failed & then) and bool(failed & otherwise)
    return fails, passed & then == then and passed & otherwise == otherwise


def _annotating(step: Step, passed: int, triggered: int) -> int:
    """The entries whose evaluated names and items an operator passes on, at the end of the value."""
    match step.operator:
        case Operator.NOT:
            return 0
        case Operator.DEPENDENT:
            return passed & step.masks[0] if triggered & step.trigger else 0
        case Operator.IF:
            condition, then, otherwise = step.masks
            return passed & (condition | then) if passed & condition else passed & otherwise
    return passed & step.masks[0]


def _closure(roots: tuple[Node, ...]) -> Iterator[Node]:
    """The roots and all they apply to the same value, each node after those it depends on."""
    seen: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                yield node
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((inner, False) for step in node.in_place for inner in step.nodes if inner is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """What the schemas of a value mean to the container around it.

    Attributes:
        plan: the schemas of the value.
        must: root bit and container entry bit: the entry fails if the root does. With the keyword.
        contains: root bit and the number of the `contains` among those of the container.
        unevaluated: root bit and container entry bit of the `unevaluated…` keywords.
        cover: container entries that have looked at this member or item.
        collect: whether the value itself is needed at its end.
    """

    plan: Plan
    must: tuple[tuple[int, int, str], ...] = ()
    contains: tuple[tuple[int, int], ...] = ()
    unevaluated: tuple[tuple[int, int], ...] = ()
    cover: int = 0
    collect: bool = False


class Site:
    """A plan for values of one type.

    Attributes:
        failed, passed: what the type alone decides, per entry's own keywords.
        outcome: the same with operators.
        strings, numbers, literals, arrays, objects: entry bit and rules, of the entries that are open.
        members: entry bit and node of those that compare the whole value at its end.
        contains: of arrays, entry bit and rules of those with `contains`.
        asking: mask of entries with the `unevaluated…` keyword of the type.
    """

    def __init__(self, plan: Plan, kind: Kind) -> None:
        self.plan = plan
        self.kind = kind
        self.failed = self.passed = 0
        still: list[tuple[int, Node]] = []
        for index, node in enumerate(plan.nodes):
            bit = 1 << index
            if not node.kinds & kind:
                self.failed |= bit
            elif node.asks(kind):
                still.append((bit, node))
            else:
                self.passed |= bit
        self.outcome = plan.evaluate(self.failed, self.passed)
        wanted = plan.needed(*self.outcome)
        still = [(bit, node) for bit, node in still if bit & wanted]
        self.open = sum(bit for bit, _ in still)
        array, object_ = kind == Kind.ARRAY, kind == Kind.OBJECT
        arrays = [(bit, node.array) for bit, node in still if node.array is not None and array]
        objects = [(bit, node.object) for bit, node in still if node.object is not None and object_]
        by_value = sum(bit for bit, node in still if node.members is not None)
        self.literals = tuple((bit, node) for bit, node in still if node.literals is not None)
        self.members = tuple((bit, node) for bit, node in still if node.members is not None)
        self.strings = tuple((bit, check) for bit, node in still for check in node.strings)
        self.numbers = tuple((bit, node.number) for bit, node in still if node.number is not None)
        self.arrays = tuple(arrays)
        self.objects = tuple(objects)
        self.rising_arrays = tuple((bit, rules) for bit, rules in arrays if rules.rising and bit & ~by_value)
        self.rising_objects = tuple((bit, rules) for bit, rules in objects if rules.rising and bit & ~by_value)
        self.settling_objects = tuple((bit, rules) for bit, rules in objects if rules.settling and bit & ~by_value)
        self.contains = tuple((bit, rules) for bit, rules in arrays if rules.contains is not None)
        self.unique = sum(bit for bit, rules in arrays if rules.unique)
        self.asking = sum(bit for bit, rules in arrays if rules.unevaluated is not None)
        self.asking |= sum(bit for bit, rules in objects if rules.unevaluated is not None)
        self.needs_text = any(check.needs_text for _, check in self.strings)
        self.uses: dict[tuple[str | int, int, int], Use] = {}

    def keep(self, key: tuple[str | int, int, int], use: Use) -> Use:
        """Keeps a use for the next time, within the bound."""
        if len(self.uses) >= MAX_KEPT:
            self.uses.clear()
        self.uses[key] = use
        return use
