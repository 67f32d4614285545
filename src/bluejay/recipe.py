"""Recipes: TOML files checked against frozen dataclasses, with overrides from the command line.

Checking is pydantic's, in strict mode: nothing is converted, so a number in quotes is an error, not a number. The
errors are ours: one sentence that names the file, the key and the nearest valid name.
"""

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import ConfigDict, TypeAdapter, ValidationError

from bluejay.files import write_text

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", strict=True)
"""Set as `__pydantic_config__` on every dataclass that a recipe holds."""
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
"""What pydantic calls a key that no field has."""


def load(kind: type[T], path: Path, overrides: list[str] | None = None) -> T:
    """Read a recipe of the dataclass `kind`, with `["--section.field", "value", ...]` put over it.

    Raises ValueError: an unknown key, a wrong type or an impossible value; FileNotFoundError: no such recipe.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no recipe at {path}; the recipes are in the folder recipes/") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; a recipe is one TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    for key, value in parse_overrides(overrides or []):
        place(values, key, value)
    return check(kind, values, str(path))


def check(kind: type[T], values: dict[str, Any], origin: str) -> T:
    """The dataclass `kind` from plain values; ValueError, naming `origin`, where they do not fit."""
    try:
        # JSON mode, because there arrays may become tuples although nothing else is converted.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as invalid:
        errors = invalid.errors()
        # A mistyped key is also a missing one; the mistyped one is what helps.
        error = next((error for error in errors if error["type"] in UNKNOWN_KEY), errors[0])
        where = [str(part) for part in error["loc"]]
        key = ".".join(where)
        match error["type"]:
            case unknown if unknown in UNKNOWN_KEY:
                valid = names_at(kind, where[:-1])
                near = difflib.get_close_matches(where[-1], valid, n=1, cutoff=0.0)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{origin}: unknown key {key}{hint} (valid here: {', '.join(valid)})") from None
            case "missing":
                raise ValueError(f"{origin}: {key} is missing") from None
            case "value_error":
                raise ValueError(f"{origin}: {error['ctx']['error']}") from None
            case _:
                raise ValueError(f"{origin}: {key} is {error['input']!r}: {error['msg'].lower()}") from None


def save(recipe: Any, path: Path) -> None:
    """Write a recipe as the TOML that would load as it; fields that are None are left out, being defaults."""
    write_text(path, tomli_w.dumps(plain(recipe)))


def plain(recipe: Any) -> dict[str, Any]:
    """A recipe as nested dictionaries and lists, without the fields that are None."""

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(item) for key, item in value.items() if item is not None}
        if isinstance(value, (list, tuple)):
            return [without_none(item) for item in value]
        return value

    return without_none(dataclasses.asdict(recipe))


def parse_overrides(arguments: list[str]) -> list[tuple[str, Any]]:
    """Pairs of dotted key and value from `--key value` or `--key=value`; values are TOML, or else plain strings."""
    pairs = []
    rest = list(arguments)
    while rest:
        key, equals, value = rest.pop(0).partition("=")
        if not key.startswith("--"):
            raise ValueError(f"{key!r} was not understood; a recipe's field is overridden by --section.field value")
        if not equals:
            if not rest:
                raise ValueError(f"{key} needs a value")
            value = rest.pop(0)
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        pairs.append((key[2:], parsed))
    return pairs


def place(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries, making the tables on the way."""
    *tables, name = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ValueError(f"--{key}: {table} is not a table, so it has no fields to override")
    values[name] = value


def names_at(kind: Any, path: list[str]) -> list[str]:
    """The fields that a recipe may have at a place, through lists and optional values; empty where it has none."""
    for name in path:
        for option in options(kind):
            if dataclasses.is_dataclass(option) and typing.get_args(typing.get_type_hints(option).get("kind")) == (
                name,
            ):
                kind = option  # pydantic names the member of a union by its tag
                break
            if dataclasses.is_dataclass(option) and name in typing.get_type_hints(option):
                kind = typing.get_type_hints(option)[name]
                break
    return [
        field.name
        for option in options(kind)
        if dataclasses.is_dataclass(option)
        for field in dataclasses.fields(option)
    ]


def options(kind: Any) -> list[Any]:
    """The classes that a type annotation admits: the members of a union, the items of a tuple."""
    if typing.get_origin(kind) in (tuple, list, typing.Union, types.UnionType, typing.Annotated):
        return [option for argument in typing.get_args(kind) for option in options(argument)]
    return [kind]
