"""From a container's entries to the use of its next member, name or item."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.constraints.json.constants import one_of_names
from treille.constraints.json.plans import MAX_KEPT, Plan, Site, Use, bits

if TYPE_CHECKING:
    from treille.constraints.json.automaton import Pattern
    from treille.constraints.json.nodes import Node, ObjectRules

_NAMES = -1


class Plans:
    """The plans of one program, made once per set of roots."""

    def __init__(self) -> None:
        self._plans: dict[tuple[Node, ...], Plan] = {}

    def plan(self, roots: tuple[Node, ...]) -> Plan:
        """The plan of some roots."""
        found = self._plans.get(roots)
        if found is None:
            if len(self._plans) >= MAX_KEPT:
                self._plans.clear()
            found = self._plans[roots] = Plan(roots)
        return found

    def top(self, root: Node) -> Use:
        """The use of the whole document: it must satisfy `root`."""
        plan = self.plan((root,))
        return Use(plan, must=((plan.roots[0], 1, ""),))

    def name(self, site: Site, failed: int, triggered: int) -> Use:
        """The use of an object's next name."""
        key = (_NAMES, failed, triggered)
        found = site.uses.get(key)
        if found is None:
            outcome = site.plan.evaluate(failed, site.passed & ~failed, triggered)
            wanted = site.plan.needed(*outcome)
            asked = _Asked()
            for bit, rules in site.objects:
                if bit & wanted:
                    for node, keyword in rules.names:
                        asked.must(node, bit, keyword)
                    forbids = rules.unevaluated is not None and not rules.unevaluated.kinds
                    if forbids and (known := _known_names(site, bit, outcome[0])):
                        asked.must(known, bit, "unevaluatedProperties")
            found = site.keep(key, asked.use(self, collect=False))
        return found

    def member(self, site: Site, name: str, failed: int, triggered: int, *, collect: bool) -> Use:
        """The use of the value under a name."""
        key = (name, failed, triggered << 1 | collect)
        found = site.uses.get(key)
        if found is None:
            outcome = site.plan.evaluate(failed, site.passed & ~failed, triggered)
            wanted = site.plan.needed(*outcome)
            asked = _Asked()
            for bit, rules in site.objects:
                if bit & wanted:
                    covered = _member(asked, rules, bit, name)
                    covered = covered and site.plan.nodes[bit.bit_length() - 1].annotates
                    asked.cover |= bit if covered else 0
            for bit, rules in site.objects:
                if bit & wanted & ~asked.cover and rules.unevaluated is not None:
                    if site.plan.may_cover(bit, asked.cover, outcome[0]):
                        asked.unevaluated(rules.unevaluated, bit)
                    else:
                        asked.must(rules.unevaluated, bit, "unevaluatedProperties")
            found = site.keep(key, asked.use(self, collect=collect))
        return found

    def item(self, site: Site, index: int, failed: int, *, collect: bool) -> Use:
        """The use of the item at an index."""
        index = min(index, max((len(rules.prefix) for _, rules in site.arrays), default=0))
        key = (index, failed, int(collect))
        found = site.uses.get(key)
        if found is None:
            outcome = site.plan.evaluate(failed, site.passed & ~failed)
            wanted = site.plan.needed(*outcome)
            asked = _Asked()
            slots = {bit: slot for slot, (bit, _) in enumerate(site.contains)}
            for bit, rules in site.arrays:
                if not bit & wanted:
                    continue
                node = rules.prefix[index] if index < len(rules.prefix) else rules.items
                if node is not None:
                    keyword = rules.prefix_keyword if index < len(rules.prefix) else rules.items_keyword
                    asked.must(node, bit, rules.source or keyword)
                    asked.cover |= bit if site.plan.nodes[bit.bit_length() - 1].annotates else 0
                if rules.contains is not None:
                    asked.contains(rules.contains, slots[bit])
            matching = sum(bit for bit, rules in site.contains if rules.contains_annotates)
            for bit, rules in site.arrays:
                if bit & wanted & ~asked.cover and rules.unevaluated is not None:
                    if site.plan.may_cover(bit, asked.cover | matching, outcome[0]):
                        asked.unevaluated(rules.unevaluated, bit)
                    else:
                        asked.must(rules.unevaluated, bit, "unevaluatedItems")
            found = site.keep(key, asked.use(self, collect=collect))
        return found


def _known_names(site: Site, bit: int, failed: int) -> Node | None:
    """The names that an entry which forbids unevaluated ones can come to have looked at; None if that may be any."""
    reach = site.plan.reach(bit) & ~failed
    names: set[str] = set()
    patterns: list[Pattern] = []
    for index in bits(reach):
        node = site.plan.nodes[index]
        rules = node.object if node.annotates else None
        if rules is not None:
            if rules.additional is not None or (rules.unevaluated is not None and 1 << index != bit):
                return None
            names.update(rules.properties or ())
            patterns += [pattern for pattern, _ in rules.patterns]
    return one_of_names(site.plan.nodes[bit.bit_length() - 1].where, names, patterns, "unevaluatedProperties")


def _member(asked: _Asked, rules: ObjectRules, bit: int, name: str) -> bool:
    """Asks what one entry asks of the value under `name`; whether it looks at it at all."""
    covered = False
    properties = rules.properties or {}
    if name in properties:
        asked.must(properties[name], bit, rules.source or "properties")
        covered = True
    for pattern, node in rules.patterns:
        if pattern.matches(name):
            asked.must(node, bit, "patternProperties")
            covered = True
    if not covered and rules.additional is not None:
        asked.must(rules.additional, bit, "additionalProperties")
        covered = True
    return covered


class _Asked:
    """Collects what entries ask of one value; every schema is asked once."""

    def __init__(self) -> None:
        self.cover = 0
        self._roots: dict[Node, int] = {}
        self._must: list[tuple[int, int, str]] = []
        self._contains: list[tuple[int, int]] = []
        self._unevaluated: list[tuple[int, int]] = []

    def _root(self, node: Node) -> int:
        return self._roots.setdefault(node, len(self._roots))

    def must(self, node: Node, bit: int, keyword: str) -> None:
        """The entry `bit` fails unless the value satisfies `node`."""
        if not node.trivial:
            self._must.append((self._root(node), bit, keyword))

    def contains(self, node: Node, slot: int) -> None:
        """The value counts for a `contains` if it satisfies `node`."""
        self._contains.append((self._root(node), slot))

    def unevaluated(self, node: Node, bit: int) -> None:
        """The value must satisfy `node` unless another entry has looked at it."""
        self._unevaluated.append((self._root(node), bit))

    def use(self, plans: Plans, *, collect: bool) -> Use:
        """What has been asked."""
        plan = plans.plan(tuple(self._roots))
        roots = plan.roots
        return Use(
            plan,
            must=tuple((roots[root], bit, keyword) for root, bit, keyword in self._must),
            contains=tuple((roots[root], slot) for root, slot in self._contains),
            unevaluated=tuple((roots[root], bit) for root, bit in self._unevaluated),
            cover=self.cover,
            collect=collect,
        )
