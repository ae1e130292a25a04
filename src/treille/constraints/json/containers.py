"""What happens to an object or an array: a further member, a name, the end of a member or item, the end of it all.

Every function gives a new frame; the old one stays what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.constraints.json import values
from treille.constraints.json.frames import Frame, Records, Values, collected, recorded
from treille.constraints.json.plans import Record

if TYPE_CHECKING:
    from treille.constraints.json.nodes import ArrayRules, ObjectRules
    from treille.constraints.json.plans import Use
    from treille.constraints.json.report import Violation
    from treille.constraints.json.uses import Plans


def begin(frame: Frame) -> Frame:
    """The object before a further name."""
    after = frame.copy()
    after.name = after.child = None
    for bit, rules in frame.site.objects:
        if rules.most is not None and frame.count >= rules.most:
            after.fail(bit, rules.source or "maxProperties", f"at most {rules.most} properties are allowed")
        if rules.choices is not None and frame.count >= rules.choices:
            after.fail(bit, rules.source or "additionalProperties", "no further name is allowed")
    return after


def enter_name(frame: Frame, name: str, failed: int, cause: Violation | None, plans: Plans) -> Frame:
    """The object after a name.

    Args:
        frame: the object.
        name: the name; it is new.
        failed: entries whose schemas of names it fails.
        cause: why.
        plans: where the use of the value comes from.
    """
    after = frame.copy()
    after.name = name
    after.seen = frame.seen.add(name)
    after.count += 1
    after.triggered |= frame.site.plan.triggers.get(name, 0)
    if failed:
        after.fail(failed, "propertyNames", "the name is not allowed", cause)
    for bit, rules in frame.site.objects:
        if rules.most is not None and rules.required and rules.most - after.count < len(rules.required):
            missing = [needed for needed in rules.required if not after.seen.has(needed)]
            if missing and len(missing) > rules.most - after.count:
                after.fail(bit, rules.source or "required", f"{missing[0]!r} does not fit any more")
    for bit, rules in frame.site.rising_objects:
        if not after.failed & bit and not _object_failure(rules, after):
            after.passed |= bit
    after.child = plans.member(frame.site, name, after.failed, after.triggered, collect=frame.collects)
    return after


def enter_item(frame: Frame, plans: Plans) -> Frame:
    """The array before a further item."""
    after = frame.copy()
    for bit, rules in frame.site.arrays:
        if rules.most is not None and frame.count >= rules.most:
            after.fail(bit, rules.source or "maxItems", f"at most {rules.most} items are allowed")
    collect = frame.collects or bool(frame.site.unique)
    after.child = plans.item(frame.site, frame.count, after.failed, collect=collect)
    return after


def absorb(frame: Frame, use: Use, outcome: tuple[int, int], failed: int, cause: Violation | None, key: Any) -> Frame:
    """The container after a member's value or an item.

    Args:
        frame: the container.
        use: what the value means to it.
        outcome: entries of the value's plan that have failed and passed.
        failed: entries of the container that fail with it.
        cause: why, if any is new.
        key: the value's key, if it is collected.
    """
    after = frame.copy()
    if failed:
        after.fail(failed, "", "", cause)
    cover = use.cover
    if frame.name is None:
        cover |= _absorb_item(after, use, outcome[1], key)
    for bit, rules in frame.site.settling_objects:
        if not after.failed & bit and all(map(after.seen.has, rules.properties or ())):
            after.passed |= 0 if _object_failure(rules, after) else bit
    if frame.collects:
        after.values = Values(key if frame.name is None else (frame.name, key), frame.values)
    if frame.site.asking:
        bad = 0
        for root, entry in use.unevaluated:
            bad |= entry if outcome[0] & root else 0
        after.records = Records(Record(cover, bad), frame.records)
    return after


def _absorb_item(after: Frame, use: Use, passed: int, key: Any) -> int:
    """An item counts; the entries that have looked at it because of `contains`."""
    site = after.site
    after.count += 1
    if site.unique & ~after.failed:
        if after.seen.has(key):
            after.fail(site.unique, "uniqueItems", "an item comes twice")
        after.seen = after.seen.add(key)
    cover = 0
    if use.contains:
        matches = list(after.matches)
        for root, slot in use.contains:
            if passed & root:
                matches[slot] += 1
                bit, rules = site.contains[slot]
                cover |= bit if rules.contains_annotates else 0
        after.matches = tuple(matches)
    for slot, (bit, rules) in enumerate(site.contains):
        _count_matches(after, bit, rules, after.matches[slot])
    for bit, rules in site.rising_arrays:
        if not after.failed & bit and not _array_failure(rules, after, bit):
            after.passed |= bit
    return cover


def _count_matches(after: Frame, bit: int, rules: ArrayRules, matches: int) -> None:
    """Fails an entry whose `contains` has too many matches, or no room for those that are missing."""
    if rules.contains_most is not None and matches > rules.contains_most:
        after.fail(bit, "maxContains", f"at most {rules.contains_most} items may match contains")
    elif rules.most is not None and rules.most - after.count < rules.contains_least - matches:
        keyword = "minContains" if rules.contains_least > 1 else "contains"
        after.fail(bit, keyword, "too few items are left for those that must match")


def _object_failure(rules: ObjectRules, frame: Frame) -> tuple[str, str] | None:
    """The keyword that an object which ends here violates, and how."""
    if frame.count < rules.least:
        return "minProperties", f"at least {rules.least} properties are needed"
    for name in rules.required:
        if not frame.seen.has(name):
            return rules.source or "required", f"{name!r} is missing"
    for name, needed in rules.dependent:
        if frame.seen.has(name):
            for other in needed:
                if not frame.seen.has(other):
                    return rules.dependent_keyword, f"{other!r} is missing beside {name!r}"
    return None


def _array_failure(rules: ArrayRules, frame: Frame, bit: int) -> tuple[str, str] | None:
    """The keyword that an array which ends here violates, and how."""
    if frame.count < rules.least:
        return rules.source or "minItems", f"at least {rules.least} items are needed"
    if rules.contains is not None:
        slot = next(slot for slot, (other, _) in enumerate(frame.site.contains) if other == bit)
        if frame.matches[slot] < rules.contains_least:
            keyword = "minContains" if rules.contains_least > 1 else "contains"
            return keyword, f"{frame.matches[slot]} items match contains, {rules.contains_least} are needed"
    return None


def close_object(frame: Frame) -> tuple[Frame, tuple[int, int], Any]:
    """The object at its end, the entries of its plan that have failed and passed, and its key if it is collected."""
    after = frame.copy()
    for bit, rules in frame.site.objects:
        if not frame.failed & bit and (failure := _object_failure(rules, frame)):
            after.fail(bit, *failure)
    key = values.object_key(collected(frame.values)) if frame.collects else None
    return _close(after, key)


def close_array(frame: Frame) -> tuple[Frame, tuple[int, int], Any]:
    """The array at its end; as `close_object`."""
    after = frame.copy()
    for bit, rules in frame.site.arrays:
        if not frame.failed & bit and (failure := _array_failure(rules, frame, bit)):
            after.fail(bit, *failure)
    key = values.array_key(tuple(reversed(collected(frame.values)))) if frame.collects else None
    return _close(after, key)


def _close(after: Frame, key: Any) -> tuple[Frame, tuple[int, int], Any]:
    """What both kinds have in common at their end."""
    site = after.site
    for bit, node in site.members:
        if node.members is not None and key not in node.members:
            after.fail(bit, node.members_keyword, "it is none of the values that are listed")
    if site.asking:
        outcome = site.plan.evaluate_end(after.failed, after.triggered, site.asking, recorded(after.records))
    else:
        outcome = site.plan.evaluate(after.failed, site.plan.full & ~after.failed, after.triggered, ended=True)
    return after, outcome, key
