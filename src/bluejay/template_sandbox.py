"""What a chat template may do: Jinja's sandbox, in which a template also cannot exhaust its host."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

BUDGET, HELD, WRITTEN, STEP = (f"bluejay {name}" for name in ("budget", "held", "written", "step"))
"""Names that no template can write, since they hold a space."""
MAX_SIZE, MAX_STEPS, MAX_DIGITS = 10_000_000, 200_000, 1_000
"""Characters that a template may keep in a value and write in all; turns of its loops; digits of its numbers."""
MAX_SECONDS, TIMED = 2.0, 16
"""The processor's time that a template may take, where it finds work that is not counted as turns; and behind how many
turns it is looked at, which takes longer than a turn."""
CALL_STEPS = 20
"""Turns of a loop that take about as long as a call."""
TOO_MUCH = "it asks for too much work or too long a text"
SIZED = (str, bytes, list, tuple, dict, set)
WIDENING = frozenset({"expandtabs", "indent", "tojson"})
GROWING = WIDENING | {"format", "join", "replace"}
"""Methods and filters whose result may be as long as two of their arguments multiplied; an argument of those that widen
may be a number of characters."""
_ITERATING = """
    batch dictsort groupby list map max min reject rejectattr select selectattr slice sort sum unique
"""
ITERATING = frozenset(_ITERATING.split())
"""Filters that take a turn for each part of a value."""
REFUSED = frozenset({"encode", "format_map", "to_bytes", "translate", "urlize"})
"""Methods and filters that no template needs and whose work or result is not counted here."""


class Budget:
    """What one run of a template may still do: characters to write, turns of loops and calls of macros, and the time
    of the processor at which its thread must have ended."""

    def __init__(self) -> None:
        self.size, self.steps = MAX_SIZE, MAX_STEPS
        self.spent, self.end = 0, time.thread_time() + MAX_SECONDS

    def spend(self, size: int = 0, steps: int = 0) -> None:
        """Use some of it. Raises TemplateError if that is more than is left."""
        self.size -= size
        self.steps -= steps
        self.spent += 1
        is_late = self.spent % TIMED == 0 and time.thread_time() > self.end
        if self.size < 0 or self.steps < 0 or is_late:
            refuse(TOO_MUCH)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a template also cannot exhaust its host by large numbers, texts that grow, or
    loops in loops. One that tries gets a TemplateError."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.filters |= {"tojson": tojson}
        self.filters |= {name: bounded(name, function) for name, function in self.filters.items()}
        self.tests |= {name: stepping(function) for name, function in self.tests.items()}
        self.globals.pop("lipsum")
        self.filters |= {HELD: held, WRITTEN: written, STEP: step}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The result of an operator between two values."""
        numbers = not isinstance(left, SIZED) and not isinstance(right, SIZED)
        if operator == "*" and not numbers:
            times = right if isinstance(left, SIZED) else left
            fits = not isinstance(times, int) or max(size(left), size(right)) * abs(times) <= MAX_SIZE
        elif operator == "%" and isinstance(left, str):
            fits = not re.search(r"\d{7}|\*", left)
            check_growth("format", left, *([] if isinstance(right, int) else [right]))
        else:
            fits = operator != "**" and size(left) + size(right) <= (MAX_DIGITS if numbers else MAX_SIZE)
        return super().call_binop(context, operator, left, right) if fits else refuse(TOO_MUCH)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of a function or method that the template calls."""
        __context.parent[BUDGET].spend(steps=CALL_STEPS)
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps the method `format`
        name = getattr(method, "__name__", "")
        args = tuple(map(listed, args)) if name == "join" else args
        check_growth(name, getattr(method, "__self__", ""), *args, *kwargs.values())
        return counted(__context, super().call(__context, __obj, *args, **kwargs))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """The code of a template, which also counts what it writes and its steps, and looks at what it keeps."""
        for block in list(source.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
            block.body.insert(0, nodes.ExprStmt(filtered(nodes.Const(0), STEP)))
        for name, kinds in (("node", nodes.Assign), ("expr", (nodes.Compare, nodes.Operand)), ("left", nodes.Add)):
            for one in list(source.find_all(kinds)):
                setattr(one, name, filtered(getattr(one, name), HELD))
        for name, kind in ((HELD, nodes.Concat), (WRITTEN, nodes.Output)):
            for joined in list(source.find_all(kind)):
                joined.nodes = [filtered(node, name) for node in joined.nodes]
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)


def filtered(value: nodes.Node, name: str) -> nodes.Expr:
    """The expression `value | name`."""
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno or 1)


@pass_context
def held(context: Context, value: Any) -> Any:
    """A value that the template keeps, compares or joins, counted in its budget. Raises TemplateError: too large."""
    context.parent[BUDGET].spend(steps=(total := size(value)) // (10_000 if isinstance(value, str) else 1_000))
    return value if total <= MAX_SIZE else refuse(TOO_MUCH)


@pass_context
def written(context: Context, value: Any) -> Any:
    """A value that the template writes, counted in its budget."""
    context.parent[BUDGET].spend(size=size(value))
    return value


@pass_context
def step(context: Context, value: Any) -> Any:
    """A turn of a loop, counted in the template's budget."""
    context.parent[BUDGET].spend(steps=1)
    return value


def size(value: Any) -> int:
    """The characters or digits of a value and all in it, with 99 for anything else, such as a list and each of its
    parts. It is not counted further where it is too large."""
    total, left = 0, [value]
    while left and total <= MAX_SIZE:
        one = left.pop()
        if isinstance(one, (str, bytes)):
            total += len(one)
        elif isinstance(one, SIZED):
            total += 99 * (len(one) + 1)
            left += [*one, *one.values()] if isinstance(one, dict) else one
        else:
            total += one.bit_length() // 3 + 1 if isinstance(one, int) else 99
    return total


def check_growth(name: str, *values: Any) -> None:
    """Raise TemplateError if the function of a name may make too much of its values, the first of which is the value
    whose method or filter it is."""
    if name in REFUSED or any(isinstance(value, int) and abs(value) > MAX_SIZE for value in values):
        refuse(TOO_MUCH)
    if name not in GROWING:
        return
    form = str(values[0]) if name == "format" else ""
    wide = name in WIDENING or re.search(r"\*|:[^{}]*\{", form)  # a width that is an argument
    sizes = [abs(value) if wide and isinstance(value, int) else size(value) for value in values]
    widths = map(int, re.findall(r"[0-9]+(?=[^\s0-9])", form))
    if math.prod(sorted([1, 1, *sizes, *widths])[-2:]) > 10 * MAX_SIZE:
        refuse(TOO_MUCH)


def bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that makes nothing that is too large, and whose work is counted in the template's budget."""

    @pass_context
    @wraps(function)
    def careful(context: Context, *args: Any, **kwargs: Any) -> Any:
        args = tuple(map(listed, args)) if name == "join" else args
        check_growth(name, *args, *kwargs.values())
        turns = len(args[0]) if args and hasattr(args[0], "__len__") else 0
        context.parent[BUDGET].spend(steps=turns if name in ITERATING else turns // 1000)
        return counted(context, function(*passed(function, context), *args, **kwargs))

    return careful


def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
    """A test, each run of which counts as a turn of a loop, as those within a filter are."""

    @pass_context
    @wraps(function)
    def careful(context: Context, *args: Any, **kwargs: Any) -> Any:
        context.parent[BUDGET].spend(steps=1)
        return function(*passed(function, context), *args, **kwargs)

    return careful


def passed(function: Callable[..., Any], context: Context) -> list[Any]:
    """What Jinja passes to a filter or a test before its values."""
    given = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
    name = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    return [given[name]] if name else []


def counted(context: Context, made: Any) -> Any:
    """What a function made, a text counted in the template's budget."""
    context.parent[BUDGET].spend(steps=len(made) // 1000 if isinstance(made, str) else 0)
    return made


def listed(value: Any) -> Any:
    """A value, or a list of what it yields."""
    return list(value) if isinstance(value, Iterator) else value


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON, by default with characters unchanged; Jinja's own filter of this name escapes them for HTML."""
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if indent is None:
        return encoder.encode(value)
    parts, left = [], MAX_SIZE
    for part in encoder.iterencode(value):  # each line of a value in others is indented again
        parts.append(part)
        left -= len(part)
        if left < 0:
            refuse(TOO_MUCH)
    return "".join(parts)


def refuse(message: str) -> NoReturn:
    """The function that a template calls to reject messages."""
    raise TemplateError(message)
