"""Settings declared once, as the fields of a dataclass: command-line options, the parameters of the HTTP API and the
terminal's editor take names, types, ranges, defaults and help from there."""

import argparse
import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Collection
from functools import cache
from itertools import pairwise
from typing import Any

UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a dataclass of settings."""

    name: str
    annotation: Any
    """The type as the dataclass declares it."""
    type: Callable[[str], Any]
    """int, float, str, bool, Path or `pair`: the type of the value, or of one item of a container. None is left out."""
    container: type | None
    """The type of the container, tuple or dict, where the setting holds several items, else None."""
    default: Any
    low: int | float | None
    """The smallest valid value; None where there is no range."""
    high: int | float | None
    """The largest valid value; None where there is no limit."""
    default_text: str
    """The default in words, empty where the help says all there is to say."""
    help: str
    """The docstring of the field."""


def setting(
    default: Any, low: int | float | None = None, high: int | float | None = None, default_text: str = ""
) -> Any:
    """A field with a range, which `check_ranges` enforces, and its default in words where the value is not clear."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "default_text": default_text})


@cache
def settings_of(kind: type) -> dict[str, Setting]:
    """The settings in a dataclass, by name, in the order of its fields."""
    hints, help = typing.get_type_hints(kind), docstrings(kind)
    settings = {}
    for field in dataclasses.fields(kind):
        type, container, text = hints[field.name], None, field.metadata.get("default_text", "")
        if isinstance(type, types.UnionType):
            type = next(option for option in typing.get_args(type) if option is not types.NoneType)
        if typing.get_origin(type) is tuple:
            type, container = typing.get_args(type)[0], tuple
        elif typing.get_origin(type) is not None:
            type, container = pair, dict
        if not text and isinstance(field.default, int | float | str) and type is not bool:
            text = f"{field.default:g}" if type is float else str(field.default)
        low, high = field.metadata.get("low"), field.metadata.get("high")
        settings[field.name] = Setting(
            field.name, hints[field.name], type, container, field.default, low, high, text, help.get(field.name, "")
        )
    return settings


def docstrings(kind: type) -> dict[str, str]:
    """Field -> the docstring below it, read from the source of the class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def pair(text: str) -> tuple[int, float]:
    """An item of a mapping from `TOKEN=NUMBER`. Raises ValueError."""
    token, _, number = text.partition("=")
    return int(token), float(number)


def at_least(low: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of at least `low`, for argparse."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"it is {text}; it must be a whole number of at least {low}")
        return value

    return number


def parse_size(text: str, key: str) -> int:
    """The bytes of a size such as "50 MB" or "227.12 GiB". Raises ValueError, naming `key`: malformed, or from 2**63
    bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b)\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f'{key} is {text!r}; write a number and a unit, "50 MB"')
    size = float(match[1]) * UNITS[match[2].lower()]
    if size >= 2**63:
        raise ValueError(f"{key} is {text!r}; it must be below 9,000,000 TB")
    return round(size)


def check_ranges(settings: Any) -> None:
    """Raise ValueError where a field of a dataclass holds a value outside its range; None is always valid."""
    for field in dataclasses.fields(settings):
        value, low, high = getattr(settings, field.name), field.metadata.get("low"), field.metadata.get("high")
        if value is None or low is None:
            continue
        if not (low <= value < float("inf") and (high is None or value <= high)):  # NaN fails, too
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            raise ValueError(f"{field.name} is {value}; it must be {limits}")


def add_options(parser: Any, kind: type, only: Collection[str] = (), without: Collection[str] = ()) -> None:
    """Add an option for every setting of `kind`, or for some, to a parser or to a group of its options.

    The parsed namespace holds only the options that were given (see `given`): the dataclass has the defaults.
    """
    for one in settings_of(kind).values():
        if one.name in without or (only and one.name not in only):
            continue
        help = one.help.removesuffix(".").replace("%", "%%")
        help = help if help[1].isupper() else help[0].lower() + help[1:]  # an acronym stays as it is
        help += "; may be repeated" if one.container else ""
        help += f" (default: {one.default_text})" if one.default_text else ""
        action: dict[str, Any] = {"action": "append" if one.container else "store", "type": one.type}
        if one.container is dict:
            action["metavar"] = "TOKEN=NUMBER"
        elif one.type is bool:
            action = {"action": "store_true"}
        flag = f"-{one.name}" if len(one.name) == 1 else f"--{one.name.replace('_', '-')}"
        parser.add_argument(flag, default=argparse.SUPPRESS, help=help, **action)


def given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The settings of `kind` that the command line gave, by name."""
    found = {name: value for name, value in vars(options).items() if name in settings_of(kind)}
    containers = {name: settings_of(kind)[name].container for name in found}
    return {name: container(found[name]) if container else found[name] for name, container in containers.items()}
