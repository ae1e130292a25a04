"""The functions that python_fill asks for: random compositions of a few phrases, each with its code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

NUMBERS = ("x", "y", "a", "b", "n", "m", "count", "total", "width", "height", "price", "age", "score", "size")
LISTS = ("numbers", "values", "items", "scores", "prices", "ages", "counts", "data")
TEXTS = ("text", "name", "word", "line", "title", "message")
WORDS = ("words", "names", "lines", "titles", "tags", "keys")
LETTERS = "aeinorst"


class Spec(NamedTuple):
    """A function to be written: its name, arguments (name to kind), docstring and body lines without indentation.

    Kinds: number, numbers, text, words. `condition` is the code of its condition, if it has one.
    """

    name: str
    arguments: dict[str, str]
    docstring: str
    body: list[str]
    condition: str = ""


Phrase = tuple[str, str, str]  # a word for the function's name, the words of the docstring, the code


def _number(rng: random.Random, x: str, y: str) -> Phrase:
    """One operation on `x` and another number, which may be a constant."""
    n = rng.randint(2, 9)
    return rng.choice((
        ("plus", f"{x} plus {y}", f"{x} + {y}"),
        ("minus", f"{x} minus {y}", f"{x} - {y}"),
        ("times", f"{x} times {y}", f"{x} * {y}"),
        ("add", f"{x} plus {n}", f"{x} + {n}"),
        ("subtract", f"{x} minus {n}", f"{x} - {n}"),
        ("multiply", f"{x} times {n}", f"{x} * {n}"),
        ("remainder", f"the remainder of {x} by {n}", f"{x} % {n}"),
        ("divide", f"{x} divided by {n}, rounded down", f"{x} // {n}"),
        ("square", f"the square of {x}", f"{x} * {x}"),
        ("larger", f"the larger of {x} and {y}", f"max({x}, {y})"),
        ("smaller", f"the smaller of {x} and {y}", f"min({x}, {y})"),
        ("distance", f"the distance of {x} and {y}", f"abs({x} - {y})"),
    ))  # fmt: skip


def _text(rng: random.Random, text: str) -> Phrase:
    """One operation on a text that gives a text."""
    n = rng.randint(2, 5)
    one, other = rng.sample(LETTERS, 2)
    return rng.choice((
        ("upper", f"{text} in upper case", f"{text}.upper()"),
        ("lower", f"{text} in lower case", f"{text}.lower()"),
        ("reverse", f"{text} reversed", f"{text}[::-1]"),
        ("repeat", f"{text} repeated {n} times", f"{text} * {n}"),
        ("start", f"the first {n} characters of {text}", f"{text}[:{n}]"),
        ("end", f"the last {n} characters of {text}", f"{text}[-{n}:]"),
        ("replace", f"{text} with {one} replaced by {other}", f'{text}.replace("{one}", "{other}")'),
        ("append", f"{text} followed by {one}", f'{text} + "{one}"'),
        ("prepend", f"{one} followed by {text}", f'"{one}" + {text}'),
    ))  # fmt: skip


def _filter(rng: random.Random, numeric: bool, x: str) -> Phrase:
    """A condition on an item: its adjective (``{} `` stands for the noun) and its code."""
    n, letter = rng.randint(2, 9), rng.choice(LETTERS)
    if numeric:
        return rng.choice((
            ("even", "even {}", f"{x} % 2 == 0"),
            ("odd", "odd {}", f"{x} % 2 == 1"),
            ("positive", "positive {}", f"{x} > 0"),
            ("negative", "negative {}", f"{x} < 0"),
            ("above", f"{{}} above {n}", f"{x} > {n}"),
            ("below", f"{{}} below {n}", f"{x} < {n}"),
            ("multiples", f"{{}} that are multiples of {n}", f"{x} % {n} == 0"),
        ))  # fmt: skip
    return rng.choice(
        (
            ("long", f"{{}} longer than {n}", f"len({x}) > {n}"),
            ("short", f"{{}} shorter than {n}", f"len({x}) < {n}"),
            ("starting", f"{{}} that start with {letter}", f'{x}.startswith("{letter}")'),
            ("ending", f"{{}} that end with {letter}", f'{x}.endswith("{letter}")'),
            ("containing", f"{{}} that contain {letter}", f'"{letter}" in {x}'),
        )
    )


def _map(rng: random.Random, numeric: bool, x: str) -> Phrase:
    """An operation on each item."""
    n = rng.randint(2, 9)
    if numeric:
        return rng.choice((
            ("squares", "squares of the", f"{x} * {x}"),
            ("doubles", "doubles of the", f"{x} * 2"),
            ("sums", f"sums of {n} and the", f"{x} + {n}"),
            ("products", f"products of {n} and the", f"{x} * {n}"),
            ("sizes", "absolute values of the", f"abs({x})"),
        ))  # fmt: skip
    return rng.choice(
        (
            ("lengths", "lengths of the", f"len({x})"),
            ("initials", "first letters of the", f"{x}[0]"),
            ("upper", "upper case forms of the", f"{x}.upper()"),
            ("reversals", "reversed forms of the", f"{x}[::-1]"),
        )
    )


def _reduce(rng: random.Random, numeric: bool) -> Phrase:
    """What is returned of a list: its function's name stands for the code."""
    choices = [("sum", "sum", "sum"), ("largest", "largest", "max"), ("smallest", "smallest", "min")]
    return rng.choice(choices if numeric else [("number", "number", "len"), ("sorted", "sorted list", "sorted")])


def _numeric_list(rng: random.Random) -> tuple[bool, str, str, str]:
    """Whether the list holds numbers, its name, its kind and the name of one item."""
    numeric = rng.random() < 0.6
    return numeric, rng.choice(LISTS if numeric else WORDS), "numbers" if numeric else "words", "xw"[not numeric]


def expression(rng: random.Random) -> Spec:
    """One operation on numbers or on a text."""
    if rng.random() < 0.6:
        x, y = rng.sample(NUMBERS, 2)
        verb, phrase, code = _number(rng, x, y)
        arguments = {name: "number" for name in (x, y) if name in phrase.split() or f"{name}," in phrase}
        return Spec(f"{verb}_{x}", arguments, f"Return {phrase}.", [f"return {code}"])
    text = rng.choice(TEXTS)
    verb, phrase, code = _text(rng, text)
    return Spec(f"{verb}_{text}", {text: "text"}, f"Return {phrase}.", [f"return {code}"])


def whole_list(rng: random.Random) -> Spec:
    """One operation on a whole list: filter it, map it or reduce it."""
    numeric, items, kind, x = _numeric_list(rng)
    condition = ""
    match rng.choice(("filter", "map", "reduce")):
        case "filter":
            verb, phrase, condition = _filter(rng, numeric, x)
            name, words, result = f"{verb}_{items}", phrase.format(items), f"[{x} for {x} in {items} if {condition}]"
        case "map":
            verb, phrase, code = _map(rng, numeric, x)
            name, words, result = f"{verb}_of_{items}", f"{phrase} {items}", f"[{code} for {x} in {items}]"
        case _:
            verb, phrase, code = _reduce(rng, numeric)
            name, words, result = f"{verb}_of_{items}", f"{phrase} of the {items}", f"{code}({items})"
    return Spec(name, {items: kind}, f"Return the {words}.", [f"return {result}"], condition)


def two_operations(rng: random.Random) -> Spec:
    """Two operations on numbers, or on a text, the second on the result of the first."""
    if rng.random() < 0.5:
        x, y = rng.sample(NUMBERS, 2)
        first, phrase, code = _number(rng, x, y)
        second, more, last = _number(rng, "result", y)
        arguments = {x: "number", y: "number"}
        kind = x
    else:
        kind = rng.choice(TEXTS)
        first, phrase, code = _text(rng, kind)
        second, more, last = _text(rng, "result")
        arguments = {kind: "text"}
    docstring = f"Let result be {phrase}. Return {more}."
    return Spec(f"{first}_and_{second}_{kind}", arguments, docstring, [f"result = {code}", f"return {last}"])


def conditional(rng: random.Random) -> Spec:
    """One of two results, by a condition on a number or a text."""
    if rng.random() < 0.6:
        x, y = rng.sample(NUMBERS, 2)
        verb, condition, test = _filter(rng, True, x)
        (one, this, first), (_, that, second) = _number(rng, x, y), _number(rng, x, y)
        arguments, noun = {x: "number", y: "number"}, x
    else:
        noun = rng.choice(TEXTS)
        verb, condition, test = _filter(rng, False, noun)
        (one, this, first), (_, that, second) = _text(rng, noun), _text(rng, noun)
        arguments = {noun: "text"}
    condition = condition.format("").strip().removeprefix("that ").replace("are multiples", "a multiple")
    is_verb = "" if condition.split()[0] in ("start", "end", "contain") else "is "
    singular = condition.replace("start ", "starts ").replace("end ", "ends ").replace("contain ", "contains ")
    docstring = f"If {noun} {is_verb}{singular}, return {this}, else {that}."
    body = [f"if {test}:", f"    return {first}", f"return {second}"]
    return Spec(f"{one}_if_{verb}_{noun}", arguments, docstring, body, test)


def filtered_map(rng: random.Random) -> Spec:
    """A list of results for the items that fit a condition."""
    numeric, items, kind, x = _numeric_list(rng)
    verb, phrase, code = _filter(rng, numeric, x)
    what, words, result = _map(rng, numeric, x)
    docstring = f"Return the {words} {phrase.format(items)}."
    body = [f"return [{result} for {x} in {items} if {code}]"]
    return Spec(f"{what}_of_{verb}_{items}", {items: kind}, docstring, body, code)


def loop(rng: random.Random) -> Spec:
    """A loop that counts, sums or collects what fits a condition."""
    numeric, items, kind, x = _numeric_list(rng)
    verb, phrase, code = _filter(rng, numeric, x)
    what, words, result = _map(rng, numeric, x)
    kinds: tuple[str, ...] = ("count", "collect", "add") if numeric else ("count", "collect")
    match rng.choice(kinds):
        case "count":
            name, docstring, start, step = f"count_{verb}_{items}", f"Count the {phrase}", "0", "result += 1"
        case "add":
            name, docstring = f"add_{what}_of_{verb}_{items}", f"Add up the {words} {phrase}"
            start, step = "0", f"result += {result}"
        case _:
            name, docstring = f"collect_{what}_of_{verb}_{items}", f"Collect the {words} {phrase}"
            start, step = "[]", f"result.append({result})"
    body = [f"result = {start}", f"for {x} in {items}:", f"    if {code}:", f"        {step}", "return result"]
    return Spec(name, {items: kind}, f"{docstring.format(items)} with a loop.", body, code)


def reduced(rng: random.Random) -> Spec:
    """A filter, a map and a reduction, or what there is when nothing fits."""
    numeric, items, kind, x = _numeric_list(rng)
    verb, phrase, code = _filter(rng, numeric, x)
    what, words, result = _map(rng, numeric, x)
    how, reduction, function = _reduce(rng, numeric)
    n = rng.randint(0, 9)
    docstring = f"Return the {reduction} of the {words} {phrase.format(items)}, or {n} if there are none."
    body = [f"found = [{result} for {x} in {items} if {code}]", "if not found:", f"    return {n}",
            f"return {function}(found)"]  # fmt: skip
    return Spec(f"{how}_of_{what}_of_{verb}_{items}", {items: kind}, docstring, body, code)


# The kinds of function of each level.
LEVELS: tuple[tuple[Callable[[random.Random], Spec], ...], ...] = (
    (expression,),
    (expression, whole_list),
    (two_operations, filtered_map, whole_list),
    (conditional, filtered_map, loop),
    (conditional, loop, reduced, reduced),
)
