"""Recipes: TOML files checked against frozen dataclasses, with overrides from the command line.

pydantic checks them in strict mode: nothing is converted, except that a number may be written 1e6 or "10M". Its
errors are reworded to one sentence that names the file, the key and the nearest valid name.
"""

import copy
import dataclasses
import difflib
import functools
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tomli_w
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from bluejay import shipped
from bluejay.files import write_text

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", strict=True)
"""The `__pydantic_config__` of every dataclass in a recipe."""
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
"""pydantic's error types for a key without a field."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""What Python has in place of the bytes of a file's name that are not UTF-8."""
SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
"""What may follow a number in quotes: "10M" is ten million."""
KINDS = {
    ("data", "train"): "a training run; bluejay train reads it",
    ("name", "component"): "a corpus; bluejay pile build reads it",
    ("devices", "bandwidth"): "hardware; bluejay plan --hardware reads it",
}
"""Keys that every recipe of a kind has -> what it describes, and what reads it."""
adapter_of = functools.cache(TypeAdapter)
"""What checks values for a dataclass, kept because pydantic takes 10 to 30 ms to make one."""


def at_home(path: str) -> str:
    """A path with the home folder in place of a leading `~`. Raises ValueError if there is no such home."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ValueError(f"{path} begins with ~, and there is no such home folder") from None


NotEmpty = Annotated[str, Field(min_length=1)]
"""A text in a recipe that is not empty."""
PathText = Annotated[NotEmpty, AfterValidator(at_home)]
"""A path in a recipe, or the name of something that is no file."""


def load(kind: type[T], path: Path, overrides: list[str] | None = None) -> T:
    """Read a recipe of the dataclass `kind`; `overrides`, `["--section.field", "value", ...]`, take precedence.

    A path where no file is may name a recipe that comes with Bluejay, such as `recipes/train/quickstart.toml`. Raises
    ValueError: an unknown key, a wrong type or an invalid value; FileNotFoundError: there is no such recipe.
    """
    path = shipped.find(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        advice = "write it first, best from a copy of one that `bluejay recipes` lists"
        raise FileNotFoundError(f"no recipe at {path.absolute()}; {advice}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; a recipe is one TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    return check(kind, values, str(path), overrides or [])


def check(kind: type[T], values: dict[str, Any], origin: str, overrides: Sequence[str] = ()) -> T:
    """The dataclass `kind` made from plain values, which `overrides` change first, as in `load`. Raises ValueError,
    naming `origin`: they do not fit its fields."""
    adapter, typed = adapter_of(kind), dict(parse_overrides(overrides))
    for key, text in typed.items():
        set_key(values, key, toml_value(text))
    if broken := next((text for text in texts_in(values) if SURROGATE.search(text)), None):
        raise ValueError(f"the name {broken!a} is not UTF-8, which a recipe cannot hold; rename the file")
    try:
        try:
            # JSON mode, in which arrays become tuples although nothing else is converted.
            return adapter.validate_json(json.dumps(values, default=str), strict=True)
        except ValidationError as invalid:
            values = as_wanted(values, invalid, typed)
            return adapter.validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as invalid:
        raise ValueError(f"{origin}: {mistake(kind, values, invalid)}") from None


def mistake(kind: Any, values: dict[str, Any], invalid: ValidationError) -> str:
    """The sentence about values that do not fit the dataclass `kind`: about the first of pydantic's errors, or about a
    misspelt key, which pydantic also reports as a missing one."""
    errors = invalid.errors()
    error = next((error for error in errors if error["type"] in UNKNOWN_KEY), errors[0])
    where = [str(part) for part in error["loc"]]
    key, given, context = place(values, where), error["input"], error.get("ctx", {})
    match error["type"]:
        case unknown if unknown in UNKNOWN_KEY:
            valid = field_names_at(kind, where[:-1])
            if len(where) == 1 and (other := kind_of(values, valid)):
                return f"it is a recipe of {other}"
            hint = f"; did you mean {near}?" if (near := nearest(kind, where, valid)) else ""
            return f"unknown key {key}{hint} (valid here: {', '.join(valid)})"
        case "missing" if where[-1].isdecimal():
            needed = len(given) + sum(one["loc"][:-1] == error["loc"][:-1] for one in errors)
            return f"{place(values, where[:-1])} is {given!r}; it must have {needed} values"
        case "missing":
            return f"{key} is missing"
        case "too_long":
            return f"{key} is {given!r}; it must have {context['max_length']} values"
        case "value_error":
            return str(context["error"])
        case "union_tag_invalid":
            tag, tags = context["tag"], [tag.strip(" '") for tag in context["expected_tags"].split(",")]
            near = difflib.get_close_matches(tag, tags, n=1, cutoff=0.0)[0]
            hint = f"did you mean {near}? (there are {', '.join(tags)})"
            return f"{key} has the kind {tag!r}, which does not exist; {hint}"
        case "union_tag_not_found":
            return f"{key}.{context['discriminator'].strip(chr(39))} is missing"
        case "tuple_type" | "list_type":
            return f"{key} must be a list; {as_list(where, given, fields_at(kind, where))}"
        case "dataclass_type" | "dict_type":
            table = as_table(given, fields_at(kind, where))
            return f"{key} is {given!r}; it must be a table, {f'as {table}' if table else f'[{key}]'}"
        case "bool_type":
            return f"{key} is {given!r}; it must be true or false"
    return f"{key} is {given!r}: {error['msg'].lower()}"


def kind_of(values: dict[str, Any], valid: list[str]) -> str | None:
    """What a recipe describes that has the keys of one kind alone, which are not `valid`; None for any other."""
    found = [keys for keys in KINDS if values.keys() >= {*keys}]
    return KINDS[found[0]] if len(found) == 1 and not {*found[0]} <= {*valid} else None


def texts_in(value: Any) -> Iterator[str]:
    """All texts in nested dictionaries and lists, but for keys."""
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)
    elif isinstance(value, str):
        yield value


def as_wanted(values: dict[str, Any], invalid: ValidationError, typed: dict[str, str]) -> dict[str, Any]:
    """The values with a number wherever one was wanted and written in another way, such as 1e6 or "10M", with Python's
    True for true, and with what was `typed` for a key where a text was wanted, such as 7 for a name."""
    values = copy.deepcopy(values)
    for error in invalid.errors():
        match error["type"]:
            case "int_type" | "float_type":
                wanted = written_number(error["input"], whole=error["type"] == "int_type")
            case "bool_type":
                wanted = {"true": True, "false": False}.get(str(error["input"]).lower())
            case "string_type":
                wanted = typed.get(".".join(map(str, error["loc"])))
            case _:
                wanted = None
        if wanted is None:
            continue
        table: Any = values
        *outer, last = error["loc"]
        for key in outer:
            # The path also names the members of unions, which are no keys.
            table = table[key] if isinstance(key, int) or key in table else table
        table[last] = wanted
    return values


def written_number(value: object, whole: bool) -> int | float | None:
    """The number that 1e6 or a text like "1e6" or "2.5k" stands for; None if a value stands for none, or for a fraction
    where a whole number is wanted. Digits alone in quotes are text."""
    found = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?(?:e[+-]?\d{1,3})?) ?([kmbgt]?)", str(value), re.IGNORECASE)
    if isinstance(value, bool) or found is None or str(value).isdecimal():
        return None
    number = Decimal(found[1]) * SUFFIXES[found[2].lower()]
    return int(number) if number == int(number) else None if whole else float(number)


def place(values: Any, where: list[str]) -> str:
    """A key in a recipe, for a message: an item of a list stands under its own name, if it has one. What pydantic calls
    the members of unions is no part of it."""
    parts = []
    for part in where:
        if isinstance(values, list) and part.isdecimal():
            values = dict(enumerate(values)).get(int(part))  # a list may be too short
            parts.append(str(values.get("name", part)) if isinstance(values, dict) else part)
        elif isinstance(values, dict) and (part in values or part != values.get("kind")):
            values = values.get(part)
            parts.append(part)
    return ".".join(parts)


def as_list(where: list[str], value: Any, fields: dict[str, Any]) -> str:
    """How a value is written that must be a list, of tables if its items have `fields`."""
    if isinstance(value, dict) and len(where) == 1:
        return f"write [[{where[0]}]], in two pairs of brackets, above its keys"
    shown = as_table(value, fields) or "{ ... }" if fields or isinstance(value, dict) else as_json(value)
    return f"write [{shown}]" if where[-1].isdecimal() else f"write {where[-1]} = [{shown}]"


def as_table(value: Any, fields: dict[str, Any]) -> str:
    """How a value is written in a table, as the first of its `fields` that may have it; empty if none may."""
    for name, annotation in fields.items():
        if any(is_of(value, found) for found in classes_in(annotation)):
            return f"{{ {name} = {as_json(value)} }}"
    return ""


def as_json(value: Any) -> str:
    """A value as JSON, which TOML has in the same form but for tables."""
    return json.dumps(value, default=str, ensure_ascii=False)


def is_of(value: Any, found: Any) -> bool:
    """Whether a field annotated with a class, or with a Literal, may have a value."""
    if typing.get_origin(found) is typing.Literal:
        return value in typing.get_args(found)
    return type(value) is found or (found is float and type(value) is int)


def save(recipe: Any, path: Path) -> None:
    """Write a recipe as TOML that loads as an equal one; fields that are None, which is their default, are omitted."""
    write_text(path, as_toml(recipe))


def as_toml(recipe: Any) -> str:
    """The text that `save` writes."""
    return tomli_w.dumps(plain(recipe))


def plain(recipe: Any) -> dict[str, Any]:
    """A recipe as nested dictionaries and lists, without the fields that are None."""

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(item) for key, item in value.items() if item is not None}
        if isinstance(value, (list, tuple)):
            return [without_none(item) for item in value]
        return value

    return without_none(dataclasses.asdict(recipe))


def parse_overrides(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Dotted keys and values, as they were typed, from `--key value` or `--key=value`."""
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
        pairs.append((key[2:], value))
    return pairs


def toml_value(text: str) -> Any:
    """The value that a text is in TOML; the text itself where it is none, or a date, of which no recipe has any."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return text if isinstance(value, (date, time)) else value


def set_key(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries, adding missing tables. Raises ValueError: a table is another value."""
    *tables, name = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ValueError(f"--{key}: {table} is not a table, so it has no fields to override")
    values[name] = value


def field_names_at(kind: Any, path: list[str]) -> list[str]:
    """The names of the fields at a path in a recipe, through lists and optional values; empty if there are none."""
    return list(fields_at(kind, path))


def fields_at(kind: Any, path: list[str]) -> dict[str, Any]:
    """The fields at a path in a recipe, as `field_names_at`, with their annotations."""
    for name in path:
        for found in filter(dataclasses.is_dataclass, classes_in(kind)):
            hints = typing.get_type_hints(found)
            if typing.get_args(hints.get("kind")) == (name,):
                kind = found  # pydantic's path names the member of a union by its tag
                break
            if name in hints:
                kind = hints[name]
                break
    classes: list[Any] = list(filter(dataclasses.is_dataclass, classes_in(kind)))
    return {
        field.name: typing.get_type_hints(found)[field.name] for found in classes for field in dataclasses.fields(found)
    }


def nearest(kind: Any, where: list[str], valid: list[str]) -> str | None:
    """The key that an unknown one probably means: a similar name here, else the same or a similar one in another table;
    None if no name is similar."""
    elsewhere = {path.rpartition(".")[2]: path for path in reversed(key_paths(kind))}
    for names, cutoff in ((valid, 0.8), (elsewhere, 0.8), (valid, 0.5)):
        if near := difflib.get_close_matches(where[-1], names, n=1, cutoff=cutoff):
            return elsewhere[near[0]] if names is elsewhere else near[0]
    return None


def key_paths(kind: Any, prefix: str = "", above: tuple[Any, ...] = ()) -> list[str]:
    """The dotted keys of all fields in a recipe, but not of the items of its lists, which no option can name.

    The metadata `table` of a field that is a dictionary is a dataclass with the names that are usual in it.
    """
    if typing.get_origin(kind) in (tuple, list):
        return []
    paths = []
    for found in filter(dataclasses.is_dataclass, classes_in(kind)):
        hints = {} if found in above else typing.get_type_hints(found)
        for one in dataclasses.fields(found) if hints else ():
            within = one.metadata.get("table", hints[one.name])
            paths += [prefix + one.name, *key_paths(within, f"{prefix}{one.name}.", (*above, found))]
    return paths


def classes_in(kind: Any) -> list[Any]:
    """The classes in a type annotation: the members of a union, the item type of a list or tuple."""
    if typing.get_origin(kind) in (tuple, list, typing.Union, types.UnionType, typing.Annotated):
        return [found for argument in typing.get_args(kind) for found in classes_in(argument)]
    return [kind]
