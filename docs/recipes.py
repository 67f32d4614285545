"""Write docs/recipes.md, the fields of all recipes, from their docstrings: `python docs/recipes.py`."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bluejay.fields import docstrings
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.presets import PRESETS
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.sources import Source
from bluejay.plan.hardware import Hardware
from bluejay.train.recipe import TrainRecipe

PAGE = Path(__file__).parent / "recipes.md"
HEAD = """\
# The fields of recipes

A recipe is a TOML file. This page lists every field of the three kinds, with its default; `python docs/recipes.py`
writes it from the docstrings in the code. A field stands here as the command line takes it: `train.lr` is `lr` in the
table `[train]`, or `--train.lr 2e-3` behind the recipe. `[]` stands for each entry of a list, which a command line
gives whole. A dash means that the field has no value unless it is given; where that is not plain, its text says what
holds then. A misspelt field is an error that names the nearest one.
"""
RUN = """
## A training run

`bluejay train` and `bluejay plan` read it ([training](training.md)). Of `[model]` and `init` a recipe has at most
one.
"""
MODEL = """
### The model: `[model]`

`preset` names a known shape, whose values hold for all fields that are not given. The defaults below are those of
`gpt-j`, which is taken where no preset is named, but for two: `vocab_size` is that of the tokenizer, and `n_ctx` is
`data.sequence_length`. With other sizes than the preset's, `rotary_dim`, `d_ff` and the `local_layers` of GPT-Neo
keep their proportions. The presets:
"""
CORPUS = """
## A corpus

`bluejay pile build` and `bluejay pile plan` read it ([sources](sources.md), [filters](filters.md)).
"""
SOURCES = """
### Sources: `component[].source[]`

`kind` selects the source. A row holds for the kinds that it names; those that no row names, `stdlib` and
`package-docs`, have no other field.
"""
HARDWARE = """
## Hardware

`bluejay plan --hardware FILE` reads it ([planning](planning.md)); a field is changed by `--hardware.devices 64`.
"""
Row = tuple[str, str, str]


def page() -> str:
    """The whole page."""
    presets = ", ".join(f"`{name}`" for name in PRESETS)
    lines = [
        f"{HEAD}{RUN}",
        *table(rows(TrainRecipe)),
        MODEL,
        *wrapped(f"{presets}."),
        "",
        *table(rows(GPTConfig, "model.")),
    ]
    lines += [CORPUS, *table(rows(PileRecipe)), SOURCES, *of_sources(), HARDWARE, *table(rows(Hardware))]
    return "\n".join(lines) + "\n"


def rows(kind: Any, prefix: str = "") -> Iterator[Row]:
    """The full name, the default and the meaning of each field of a recipe, those of its tables included."""
    help, hints = all_docstrings(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name = f"{prefix}{field.name}"
        inner, several = table_in(hints[field.name])
        if field.name in help and field.name != "component":
            yield f"`{name}`", default_of(field), help[field.name] + choices(hints[field.name])
        if inner is not None:
            yield from rows(inner, f"{name}{'[]' if several else ''}.")


def table_in(hint: Any) -> tuple[Any, bool]:
    """The dataclass that a field holds, which is not that of a source, and whether it holds several."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        several = typing.get_origin(option) is tuple
        inner = typing.get_args(option)[0] if several else option
        if dataclasses.is_dataclass(inner):
            return inner, several
    return None, False


def of_sources() -> list[str]:
    """A table of the fields of all kinds of sources; equal rows are one."""
    kinds: dict[Row, list[str]] = {}
    for source in members(Source):
        help, hints = all_docstrings(source), typing.get_type_hints(source)
        (kind,) = typing.get_args(hints["kind"])
        for field in dataclasses.fields(source):
            if field.name in help:
                row = (f"`{field.name}`", default_of(field), help[field.name] + choices(hints[field.name]))
                kinds.setdefault(row, []).append(f"`{kind}`")
    lines = ["| field | kinds | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | {', '.join(of)} | {default} | {cell(text)} |" for (name, default, text), of in kinds.items()]
    return lines


def members(union: Any) -> Iterator[Any]:
    """The dataclasses of a union of annotated unions."""
    if dataclasses.is_dataclass(union):
        yield union
    else:
        for member in typing.get_args(union):
            yield from members(member)


def choices(hint: Any) -> str:
    """The values that a field takes, where they are few, as a sentence after its docstring."""
    if typing.get_origin(hint) is typing.Literal:
        return f" One of {', '.join(toml(one).strip('`') for one in typing.get_args(hint))}."
    inner = [one for one in typing.get_args(hint) if one not in (Ellipsis, type(None))]
    return choices(inner[0]).replace(" One", " Each is one") if len(inner) == 1 else ""


def all_docstrings(kind: Any) -> dict[str, str]:
    """Field -> its docstring, those of the classes that it comes from included."""
    bases = [base for base in reversed(kind.__mro__) if dataclasses.is_dataclass(base)]
    return {name: text for base in bases for name, text in docstrings(base).items()}


def default_of(field: Any) -> str:
    """The default of a field as TOML has it."""
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        return "-" if dataclasses.is_dataclass(value) else "`{}`" if value == {} else f"`{value}`"
    return "required" if field.default is dataclasses.MISSING else "-" if field.default is None else toml(field.default)


def toml(value: Any) -> str:
    """A value as a recipe would have it."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(toml(one).strip('`') for one in value)}]`"
    return (
        f"`{value:_}`"
        if isinstance(value, int) and value >= 10_000
        else f'`"{value}"`'
        if isinstance(value, str)
        else f"`{value!r}`"
    )


def table(found: Any) -> list[str]:
    """Rows as a table."""
    lines = [f"| {name} | {default} | {cell(text)} |" for name, default, text in found]
    return ["| field | default | meaning |", "| --- | --- | --- |", *lines]


def cell(text: str) -> str:
    """A text in a cell of a table."""
    return text.replace("|", "\\|")


def wrapped(text: str, width: int = 140) -> list[str]:
    """A text in lines."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
