"""The table of a recipe's components, before anything is fetched or read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bluejay.pile.pipeline.check import missing_files, missing_tests, require_usable
from bluejay.pile.recipe import Component, PileRecipe
from bluejay.pile.report.counts import Report
from bluejay.pile.steps.mix import epochs_of
from bluejay.progress import format_bytes

COLUMNS = ("component", "size", "weight", "epochs", "effective size", "share", "")
"""The heads of the table's columns; the last one has the notes."""


@dataclass(frozen=True)
class Row:
    """One component."""

    name: str
    size: int | None
    """Bytes that the last build kept; before the first build, the size that the recipe gives."""
    weight: float | None
    """Share in all text that the recipe names, available or not, in per cent."""
    epochs: float | None
    """How often it is read; None where that follows from sizes that are not known. One that is not available counts as
    beside all others."""
    effective: float | None
    """Size times epochs."""
    share: float | None
    """Share in the text that can be built, in per cent."""
    note: str
    """Why it is not built, or what it lacks."""


def plan(recipe: PileRecipe) -> list[Row]:
    """A row per component, and one for the total; an unknown size is None. The notes name files that are missing.

    Raises ValueError: a filter or the tokenizer cannot be used.
    """
    require_usable(recipe, files=False)
    report = Report.load(recipe.directory)
    sizes = {component.name: component.size_bytes for component in recipe.component}
    if report:
        built = {name: sum(p.bytes for p in entry.splits.values()) for name, entry in report.components.items()}
        sizes |= {name: size for name, size in built.items() if size and name in sizes}
    known = {name: size or 0 for name, size in sizes.items()}
    epochs = planned_epochs(recipe, recipe.component, known) | planned_epochs(recipe, recipe.built, known)
    effective = {name: known[name] * (epochs[name] or 0.0) for name in known}
    named, available = sum(effective.values()), sum(effective[component.name] for component in recipe.built)
    rows = [
        Row(
            component.name,
            sizes[component.name],
            100 * effective[component.name] / named if effective[component.name] else None,
            epochs[component.name],
            effective[component.name] or None,
            100 * effective[component.name] / available
            if effective[component.name] and not component.unavailable
            else None,
            f"unavailable: {component.unavailable}" if component.unavailable else "; ".join(missing_files(component)),
        )
        for component in recipe.component
    ]
    note = "; ".join((f"{len(recipe.built)} can be built", *missing_tests(recipe.decontaminate)))
    return [*rows, Row("total", sum(known.values()), 100.0, None, named, 100.0, note)]


def planned_epochs(
    recipe: PileRecipe, components: Sequence[Component], sizes: Mapping[str, int]
) -> dict[str, float | None]:
    """How often each of some components is read, by their sizes in bytes, 0 where that is unknown; None where it
    depends on an unknown size or weight."""
    free = [component for component in components if component.epochs is None]
    weighted = {component.weight is not None for component in free}
    once = recipe.mix.temperature == 1 and weighted == {False}  # whatever their sizes
    known = once or (len(weighted) == 1 and all(sizes[component.name] for component in free))
    epochs = epochs_of(components, sizes, recipe.mix)
    return {c.name: epochs[c.name] if known or c.epochs is not None else None for c in components}


def table(rows: list[Row]) -> str:
    """The plan as text."""
    cells = [COLUMNS, *(cells_of(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS) - 1)]
    lines = []
    for row in cells:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers, row[-1]]).rstrip())
    return "\n".join(lines)


def cells_of(row: Row) -> tuple[str, ...]:
    """The cells of a row as text."""
    percent = [f"{value:.2f} %" if value is not None else "" for value in (row.weight, row.share)]
    epochs = f"{row.epochs:.2f}" if row.epochs is not None else ""
    return (row.name, format_bytes(row.size), percent[0], epochs, format_bytes(row.effective), percent[1], row.note)


def as_dict(rows: list[Row]) -> dict[str, Any]:
    """The plan as JSON types."""
    return {"components": [vars(row) for row in rows]}
