"""sweep.exclude: a condition on the values of a job, such as `model.dropout>0.1 and optimizer.lr>0.2`; never executed.

Python's parser reads the text; each part is then either known here and made into a test, or refused.
"""

import ast
import io
import itertools
import operator
import tokenize
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from s9.system.errors import UserError, is_number

Values = Callable[[str], Any]
Get = Callable[[Values], Any]  # the value of one side of a comparison
Test = Callable[[Values], bool]

ALLOWED = (
    'keys (model.dropout), numbers, text in quotes ("dilated"), true, false, null, lists of these, '
    "== != < <= > >= in, not in, and, or, not, parentheses"
)
CHARACTERS, DEPTH = 1000, 20  # more than a person writes, less than what Python's parser or its stack could choke on
WORDS = {"true": True, "false": False, "null": None}
ORDERS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}


@dataclass(frozen=True)
class Condition:
    """A condition that has been read; `keys` are those it names, in its order, each once."""

    text: str
    keys: tuple[str, ...]
    _test: Test = field(repr=False, compare=False)

    def holds(self, values: Values) -> bool:
        """True where a job with these values is excluded; asks `values` for no more keys than decide it.

        Raises:
            UserError: `<` between values that have no order, `in` what is no list, or a key alone that is not a bool.
        """
        return self._test(values)


def condition(text: str) -> Condition:
    """Reads a condition. Raises UserError that says which part cannot be read, and what can be."""
    reader = _Reader(text)
    test = reader.test(reader.parsed(), 0)
    return Condition(text, tuple(dict.fromkeys(reader.keys)), test)


def _plain(text: str, length: int) -> str:
    """Fit for a line of an error: one line, nothing that a terminal obeys, not too long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: length + 1])
    return line if len(line) <= length else f"{line[:length]}..."


class _Reader:
    """Makes tests of the parts of one text and notes the keys."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.line = text.replace("\r", " ").replace("\n", " ").strip()  # YAML folds long texts
        self.keys: list[str] = []

    def error(self, what: str, allowed: str = f"allowed: {ALLOWED}") -> UserError:
        return UserError(f"sweep.exclude={_plain(self.text, 200)}: {what}; {allowed}")

    def refused(self, node: ast.AST, what: str = "cannot be read", allowed: str = f"allowed: {ALLOWED}") -> UserError:
        return self.error(f"`{_plain(self.source(node), 80)}` {what}", allowed)

    def bare(self, node: ast.expr) -> UserError:
        word = _plain(self.source(node), 80)
        return self.error(f"{word} stands where a value is expected", f'write text in quotes, "{word}"')

    def source(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.line, node) or self.line

    def parsed(self) -> ast.expr:
        if len(self.line) > CHARACTERS:
            raise self.error(f"{len(self.line)} characters", f"allowed: {CHARACTERS}")
        if not self.line:
            raise self.error("an empty condition")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's advice on what is refused below
                tree = ast.parse(self.line, mode="eval").body
                tokens = list(tokenize.generate_tokens(io.StringIO(self.line).readline))
        except SyntaxError as error:
            rest = self.line[error.offset - 1 :] if error.offset else ""  # 0: where the text ends
            near = f"cannot be read at `{_plain(rest, 40)}`" if rest else "ends too early"
            raise self.error(f'{near} ("equals" is written ==)' if rest.startswith("=") else near) from None
        except (ValueError, MemoryError, RecursionError, tokenize.TokenError):
            raise self.error("cannot be read") from None
        comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
        if comments:
            raise self.error(f"`{_plain(comments[0], 80)}` would be left out as a comment")
        return tree

    def test(self, node: ast.expr, depth: int) -> Test:
        """What stands alone or between and, or, not."""
        if depth > DEPTH:
            raise self.error("too many levels", f"allowed: {DEPTH}")
        match node:
            case ast.BoolOp(op=op, values=parts):
                tests = [self.test(part, depth + 1) for part in parts]
                if isinstance(op, ast.And):
                    return lambda values: all(test(values) for test in tests)
                return lambda values: any(test(values) for test in tests)
            case ast.UnaryOp(op=ast.Not(), operand=part):
                test = self.test(part, depth + 1)
                return lambda values: not test(values)
            case ast.Compare():
                return self.comparison(node)
            case ast.Attribute() | ast.Name() if _key(node):
                return self.alone(node)
            case ast.Constant() | ast.Name() | ast.List() | ast.Tuple():
                raise self.refused(node, "compares nothing")
        raise self.refused(node)

    def alone(self, node: ast.expr) -> Test:
        """A key that is true or false by itself."""
        key, get = _key(node), self.side(node)

        def test(values: Values) -> bool:
            value = get(values)
            if not isinstance(value, bool):
                raise self.error(f"{key} is {_shown(value)}, neither true nor false", f"write {key} == ..., say")
            return value

        return test

    def comparison(self, node: ast.Compare) -> Test:
        """Of neighbours; a chain, `0.1 < model.dropout < 0.3`, holds where all of its pairs do."""
        sides = [node.left, *node.comparators]
        for left, right in itertools.pairwise(sides):
            if _key(left) and _key(right) and isinstance(right, ast.Name):
                raise self.bare(right)
        keys_before = len(self.keys)
        gets = [self.side(side) for side in sides]
        if len(self.keys) == keys_before:
            raise self.refused(node, "names no key")
        pairs = [self.pair(op, *two) for op, two in zip(node.ops, itertools.pairwise(sides), strict=True)]

        def test(values: Values) -> bool:
            found = [get(values) for get in gets]
            return all(pair(a, b) for pair, (a, b) in zip(pairs, itertools.pairwise(found), strict=True))

        return test

    def pair(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> Callable[[Any, Any], bool]:
        if isinstance(op, ast.Is | ast.IsNot):
            raise self.error("`is` cannot be read", "write ==")
        if isinstance(op, ast.Eq | ast.NotEq):
            return lambda a, b: _same(a, b) == isinstance(op, ast.Eq)
        sides = f"{_plain(self.source(left), 80)} {{}} {_plain(self.source(right), 80)}"
        if isinstance(op, ast.In | ast.NotIn):
            if not _key(right) and not isinstance(right, ast.List | ast.Tuple):
                raise self.refused(right, "is no list", "write in [0.1, 0.2], say")
            return lambda a, b: self.among(sides, a, b) == isinstance(op, ast.In)
        return lambda a, b: self.ordered(sides, op, a, b)

    def ordered(self, sides: str, op: ast.cmpop, a: Any, b: Any) -> bool:
        sign, compare = ORDERS[type(op)]
        if (is_number(a) and is_number(b)) or (isinstance(a, str) and isinstance(b, str)):
            return compare(a, b)
        what = f"`{sides.format(sign)}` compares {_shown(a)} with {_shown(b)}"
        raise self.error(what, f"{sign} compares two numbers or two texts")

    def among(self, sides: str, a: Any, b: Any) -> bool:
        if isinstance(b, str) or not isinstance(b, Sequence):
            raise self.error(f"`{sides.format('in')}` looks for {_shown(a)} in {_shown(b)}", "allowed after in: a list")
        return any(_same(a, item) for item in b)

    def side(self, node: ast.expr) -> Get:
        """A key's value or a constant."""
        key = _key(node)
        if key:
            self.keys.append(key)
            return lambda values: values(key)
        constant = self.constant(node, 0)
        return lambda values: constant

    def constant(self, node: ast.expr, depth: int) -> Any:
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as value)):
                if not isinstance(value, bool):
                    return -value if isinstance(sign, ast.USub) else value
            case ast.Name(id=word) if word in WORDS:
                return WORDS[word]
            case ast.Name() | ast.Attribute() if _key(node):  # in a list
                raise self.bare(node)
            case ast.List(elts=items) | ast.Tuple(elts=items) if depth < DEPTH:
                return [self.constant(item, depth + 1) for item in items]
        raise self.refused(node)


def _key(node: ast.expr) -> str:
    """The dotted key that a node spells, "" for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or (not names and node.id in WORDS):
        return ""
    names.append(node.id)
    hidden = any(name.startswith("__") for name in names)  # no key is spelled so, but what Python keeps to itself is
    return "" if hidden else ".".join(reversed(names))


def _same(a: Any, b: Any) -> bool:
    """Equality as in YAML, where true is not 1."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _shown(value: Any) -> str:
    """A value as a condition spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f'"{_plain(value, 80)}"' if isinstance(value, str) else _plain(str(value), 80)
