"""Splits an `assert` into calls, which run in the cage, and a check of what they gave, which runs outside.

`assert abs(f(1.5) - 0.5) < 1e-6` becomes the call `f(1.5)` and the check `abs(_0 - 0.5) < 1e-06`. The cage never sees
the expected value, and what the sample does to `==`, `abs` or `assert` in its own process changes nothing.
"""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

PURE = {
    one.__name__: one
    for one in (abs, all, any, dict, frozenset, len, list, max, min, round, set, sorted, str, sum, tuple)
}
"""Functions that a check may apply to plain values."""
ALLOWED = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Call, ast.keyword),
    *(ast.UnaryOp, ast.UAdd, ast.USub, ast.Not, ast.BoolOp, ast.And, ast.Or, ast.Compare, ast.cmpop),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Attribute),
)
"""What a check may consist of. A stranger's text is never multiplied or used as a format, which could fill memory."""


@dataclass(frozen=True)
class Test:
    """One test: Python source of calls in the sample's names, and what must hold of the values they give."""

    __test__ = False  # not one of pytest's

    calls: tuple[str, ...]
    """Each is an expression, or statements whose last line is one."""
    check: str
    """An expression over the calls' values, which are called _0, _1, ..."""


def split_assert(assertion: str | ast.Assert, functions: Sequence[str]) -> Test | None:
    """An assert statement as a test of the named functions, or None if it cannot be checked from outside, as several
    statements cannot.

    Raises SyntaxError: there is no assert.
    """
    body = ast.parse(assertion).body if isinstance(assertion, str) else [assertion]
    if not any(isinstance(statement, ast.Assert) for statement in body):
        raise SyntaxError(f"{assertion!r} is not an assert")
    if len(body) > 1 or not isinstance(statement := body[0], ast.Assert):
        return None
    split = Split(functions)
    check = split.visit(ast.Expression(statement.test))
    return Test(tuple(split.calls), ast.unparse(check)) if split.calls and is_pure(check) else None


class Split(ast.NodeTransformer):
    """Replaces the calls of some functions by names, with the pure functions that they are the only argument of: of
    `list(f(3))` the whole is called, because the generator that `f` may give is no plain value."""

    def __init__(self, functions: Sequence[str]) -> None:
        self.functions, self.calls = functions, []

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not self.is_call(node):
            return self.generic_visit(node)
        self.calls.append(ast.unparse(node))
        return ast.Name(f"_{len(self.calls) - 1}", ast.Load())

    def is_call(self, node: ast.AST) -> bool:
        """Whether a node calls one of the functions, or a pure one on such a call and nothing else."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            return False
        if node.func.id in self.functions:
            return True
        options = all(isinstance(one.value, ast.Constant) for one in node.keywords)
        return node.func.id in PURE and options and len(node.args) == 1 and self.is_call(node.args[0])


def is_pure(check: ast.AST) -> bool:
    """Whether an expression consists of plain values, received ones, comparisons, sums and pure functions alone."""
    for node in ast.walk(check):
        if not isinstance(node, ALLOWED):
            return False
        if isinstance(node, ast.Name) and not (node.id in PURE or node.id == "math" or is_received(node)):
            return False
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "math"):
            return False
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and any(map(is_received, ast.walk(node))):
            return False
    return True


def is_received(node: ast.AST) -> bool:
    """Whether a node is the name of a value that a call gave: _0, _1, ..."""
    return isinstance(node, ast.Name) and node.id[:1] == "_" and node.id[1:].isdecimal()


@cache
def compiled(check: str) -> CodeType:
    """The code of a check, which is looked at once more before it is run."""
    tree = ast.parse(check, mode="eval")
    assert is_pure(tree), check
    return compile(tree, "<check>", "eval")


def holds(test: Test, values: Sequence[Any]) -> bool:
    """Whether the check holds of the values; a check that fails on them, as len(None), does not hold."""
    names = {f"_{at}": value for at, value in enumerate(values)}
    try:
        return bool(eval(compiled(test.check), {"__builtins__": {}, "math": math, **PURE}, names))
    except (ArithmeticError, TypeError, ValueError, RecursionError, MemoryError):
        return False
