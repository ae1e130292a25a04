"""An interpreter for a small part of Python: untrusted functions run in it, and nothing of them runs anywhere else.

No import, no attribute beyond a list of methods, no definition, no set (its order is not determined). The number of
evaluations, the size of integers, and the size and depth of every value are limited, so that every run ends soon,
needs little memory and gives the same result everywhere. Deviations from Python: what would be a generator or a view
is a list, and ``+=`` on a list makes a new list.
"""

from __future__ import annotations

import ast
import copy
import operator
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BUDGET = 50_000  # evaluations; a value of size n costs n
LARGEST = 4_000  # items or characters of a value, all depths together
DEEPEST = 4
INTEGER_BITS = 256
METHODS: dict[type, frozenset[str]] = {
    str: frozenset((
        "upper", "lower", "strip", "lstrip", "rstrip", "split", "join", "replace", "count", "find", "index", "title",
        "startswith", "endswith", "capitalize", "swapcase", "isdigit", "isalpha", "isupper", "islower", "isspace",
        "isalnum",
    )),
    list: frozenset(("append", "extend", "insert", "pop", "remove", "reverse", "sort", "count", "index", "copy")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(("get", "keys", "values", "items", "pop", "setdefault", "copy")),
}  # fmt: skip
FAILURES = (
    ArithmeticError, AttributeError, LookupError, MemoryError, NameError, RecursionError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv, ast.Pow: operator.pow, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.RShift: operator.rshift, ast.LShift: operator.lshift,
}  # fmt: skip
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert,
}  # fmt: skip


class Refused(ValueError):
    """The program does something that is not in the subset, or too much of it; never leaves this module."""


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _guard(kind: type[ast.operator], left: Any, right: Any) -> None:
    """Refuses a result that would be too large before it is computed."""
    if kind is ast.Mult and not _numbers(left, right):
        text, times = (right, left) if _numbers(left) else (left, right)
        too_large = not _numbers(times) or len(text) * times > LARGEST
    elif kind in (ast.Pow, ast.LShift):
        too_large = not (_numbers(left, right) and abs(right) <= 64 and abs(left) < 2**16)
    elif kind is ast.Mod:
        too_large = not _numbers(left, right)  # text % value is a formatting language of its own
    else:
        too_large = False
    if too_large:
        raise Refused("operands of this type or size")


def _range(*bounds: int) -> list[int]:
    if len(range(*bounds)) > LARGEST:
        raise Refused("a range this long")
    return list(range(*bounds))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        raise Refused("text of a container")
    return str(value)


def _integer(value: Any) -> int:
    if isinstance(value, str) and len(value) > 60:
        raise Refused("a number this long")
    return int(value)


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 20:
        raise Refused("this many digits")
    return round(value, digits)


def _same(left: Any, right: Any) -> bool:
    if left is not None and right is not None:
        raise Refused("the identity of values other than None")  # it would depend on the interpreter
    return left is right


def _sum(items: Any) -> Any:
    if not _numbers(*items):
        raise Refused("a sum of something else than numbers")
    return sum(items)


COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: _same, ast.IsNot: lambda a, b: not _same(a, b),
    ast.In: lambda a, b: operator.contains(b, a), ast.NotIn: lambda a, b: not operator.contains(b, a),
}  # fmt: skip
BUILTINS: dict[str, Callable[..., Any]] = {
    "abs": abs, "all": all, "any": any, "bool": bool, "chr": chr, "dict": dict, "divmod": divmod,
    "enumerate": lambda items, start=0: [tuple(pair) for pair in enumerate(items, start)],
    "float": float, "int": _integer, "len": len, "list": list, "max": max, "min": min, "ord": ord, "range": _range,
    "reversed": lambda items: list(reversed(items)), "round": _round, "sorted": sorted, "str": _text, "sum": _sum,
    "tuple": tuple, "zip": lambda *items: list(zip(*items, strict=False)),
}  # fmt: skip
KEYWORDS = {
    "sorted": ("key", "reverse"),
    "sort": ("key", "reverse"),
    "max": ("key", "default"),
    "min": ("key", "default"),
}
KEYS = ("abs", "int", "len", "max", "min", "ord", "str", "sum")  # functions that may be a key


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Machine:
    """Runs one call of one function.

    Attributes:
        names: its local variables.
        left: what remains of the budget.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.left = BUDGET

    def weigh(self, value: Any) -> int:
        """The size of a value; refuses what is too large, too deep or of another type, as soon as that is known."""
        size, waiting = 0, [(value, 0)]
        while waiting:
            part, depth = waiting.pop()
            match part:
                case bool() | None | float():
                    size += 1
                case int() if part.bit_length() <= INTEGER_BITS:
                    size += 1
                case str():
                    size += 1 + len(part)
                case list() | tuple() | dict() if depth < DEEPEST and len(part) <= LARGEST:
                    size += 1
                    waiting += [(item, depth + 1) for item in part]
                    waiting += [(item, depth + 1) for item in part.values()] if isinstance(part, dict) else ()
                case _:
                    raise Refused(f"a value of type {type(part).__name__}, or too large")
            if size > LARGEST:
                raise Refused("a value this large")
        return size

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise Refused("the budget is spent")

    def value(self, node: ast.expr) -> Any:
        """The value of an expression; it is weighed and paid for, so no operand is ever too large."""
        self.spend(1)
        value = self._value(node)
        self.spend(self.weigh(value))
        return value

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self.names[name]
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(type(op), self.value(left), self.value(right))
            case ast.UnaryOp(op=op, operand=operand):
                return UNARY[type(op)](self.value(operand))
            case ast.BoolOp(op=op, values=values):
                return self.boolean(isinstance(op, ast.And), values)
            case ast.Compare():
                return self.compare(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.value(body if self.value(test) else orelse)
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {self.value(key): self.value(value) for key, value in zip(keys, values, strict=True) if key}
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                return self.comprehension(node)
            case ast.Subscript(value=container, slice=index):
                return self.value(container)[self.index(index)]
            case ast.Call():
                return self.call(node)
            case ast.JoinedStr(values=parts):
                return "".join(self.formatted(part) for part in parts)
            case _:
                raise Refused(type(node).__name__)

    def formatted(self, part: ast.expr) -> str:
        match part:
            case ast.Constant(value=str(text)):
                return text
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return _text(self.value(value))
            case _:
                raise Refused("a format specification")

    def binary(self, kind: type[ast.operator], left: Any, right: Any) -> Any:
        _guard(kind, left, right)
        return BINARY[kind](left, right)

    def boolean(self, both: bool, values: Sequence[ast.expr]) -> Any:
        value = None
        for node in values:
            value = self.value(node)
            if bool(value) is not both:
                return value
        return value

    def compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            if not COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def index(self, node: ast.expr) -> Any:
        if not isinstance(node, ast.Slice):
            return self.value(node)
        bounds = (node.lower, node.upper, node.step)
        return slice(*(None if bound is None else self.value(bound) for bound in bounds))

    def comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> Any:
        """A comprehension's list or dict (a generator is computed at once); its variables end with it."""
        outer, self.names = self.names, dict(self.names)
        try:
            if isinstance(node, ast.DictComp):
                return {self.value(node.key): self.value(node.value) for _ in self.bindings(node.generators)}
            return [self.value(node.elt) for _ in self.bindings(node.generators)]
        finally:
            self.names = outer

    def bindings(self, generators: Sequence[ast.comprehension]) -> Iterator[None]:
        """Binds the variables of a comprehension, one combination after the other."""
        if not generators:
            yield
            return
        first, *rest = generators
        for item in list(self.value(first.iter)):
            self.assign(first.target, item)
            if all(self.value(test) for test in first.ifs):
                yield from self.bindings(rest)

    def call(self, node: ast.Call) -> Any:
        """The result of a built-in function or of a method."""
        match node.func:
            case ast.Name(id=name) if name in BUILTINS and name not in self.names:
                return BUILTINS[name](*map(self.value, node.args), **self.options(name, node.keywords))
            case ast.Attribute(value=owner, attr=name):
                receiver = self.value(owner)
                arguments = [self.value(argument) for argument in node.args]
                self.method_allowed(receiver, name, arguments)
                result = getattr(receiver, name)(*arguments, **self.options(name, node.keywords))
                self.spend(self.weigh(receiver))  # a method may have made it larger
                return list(result) if name in ("keys", "values", "items") else result
            case _:
                raise Refused("a call of something else than a built-in function or a method")

    def options(self, name: str, keywords: Sequence[ast.keyword]) -> dict[str, Any]:
        """The keyword arguments of a call; a key is one of a few functions, by name."""
        options: dict[str, Any] = {}
        for keyword in keywords:
            option = keyword.arg
            if option is None or option not in KEYWORDS.get(name, ()):
                raise Refused("a keyword")
            match keyword.value:
                case ast.Name(id=function) if option == "key" and function in KEYS and function not in self.names:
                    options[option] = BUILTINS[function]
                case value if option != "key":
                    options[option] = self.value(value)
                case _:
                    raise Refused("this key")
        return options

    def method_allowed(self, receiver: Any, name: str, arguments: list[Any]) -> None:
        if name not in METHODS.get(type(receiver), ()):
            raise Refused(f"the method {name}")
        if name == "replace" and len(arguments) == 2:
            large = receiver.count(arguments[0]) * len(arguments[1]) > LARGEST
        elif name == "join":
            large = sum(map(len, arguments[0])) + len(receiver) * len(arguments[0]) > LARGEST
        else:
            large = name == "replace"
        if large:
            raise Refused("a text this long")

    def assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                for part, item in zip(targets, list(value), strict=True):
                    self.assign(part, item)
            case ast.Subscript(value=container, slice=index):
                receiver = self.value(container)
                receiver[self.index(index)] = value
                self.spend(self.weigh(receiver))
            case _:
                raise Refused("this target of an assignment")

    def run(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            self.spend(1)
            self.execute(statement)

    def execute(self, node: ast.stmt) -> None:
        match node:
            case ast.Return(value=value):
                raise _Return(None if value is None else self.value(value))
            case ast.Assign(targets=targets, value=expression):
                value = self.value(expression)
                for target in targets:
                    self.assign(target, value)
            case ast.AugAssign(target=ast.Name() | ast.Subscript() as target, op=op, value=expression):
                old = self.value(ast.Name(target.id) if isinstance(target, ast.Name) else target)
                self.assign(target, self.binary(type(op), old, self.value(expression)))
            case ast.If(test=test, body=body, orelse=orelse):
                self.run(body if self.value(test) else orelse)
            case ast.For(target=target, iter=items, body=body, orelse=[]):
                self.loop(body, self.items(target, items))
            case ast.While(test=test, body=body, orelse=[]):
                self.loop(body, iter(lambda: bool(self.value(test)), False))  # until the test is False
            case ast.Expr(value=expression):
                self.value(expression)
            case ast.Pass():
                pass
            case ast.Break():
                raise _Break
            case ast.Continue():
                raise _Continue
            case _:
                raise Refused(type(node).__name__)

    def items(self, target: ast.expr, items: ast.expr) -> Iterator[None]:
        """Binds the loop's variable to each item."""
        for item in list(self.value(items)):
            self.assign(target, item)
            yield

    def loop(self, body: Sequence[ast.stmt], rounds: Iterator[object]) -> None:
        for _ in rounds:
            try:
                self.run(body)
            except _Continue:
                continue
            except _Break:
                return


def parse(source: str) -> ast.FunctionDef | None:
    """The one function that a text consists of, with plain positional arguments; None for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in an answer is nobody's warning
            tree = ast.parse(source)
    except FAILURES:
        return None
    match tree.body:
        case [ast.FunctionDef(args=ast.arguments(posonlyargs=[], vararg=None, kwonlyargs=[], kwarg=None, defaults=[]),
                              decorator_list=[]) as function]:  # fmt: skip
            return function
        case _:
            return None


def call(function: ast.FunctionDef, arguments: Sequence[Any]) -> Any:
    """What the function returns for these arguments, which it cannot change.

    Raises:
        ValueError: the call failed, left the subset or spent the budget.
    """
    names = [argument.arg for argument in function.args.args]
    try:
        _Machine(dict(zip(names, copy.deepcopy(arguments), strict=True))).run(function.body)
    except _Return as result:
        return result.value
    except (*FAILURES, _Break, _Continue) as error:
        raise ValueError(f"the call failed: {type(error).__name__}") from error
    return None
