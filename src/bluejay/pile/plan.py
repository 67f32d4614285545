"""The table of a recipe's components, before anything is fetched or read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Share in all text that the recipe names, available or not, in per cent; None where a size is not known."""
    epochs: float | None
    """How often it is read; None where that follows from sizes that are not known. One that is not available counts as
    beside all others."""
    effective: float | None
    """Size times epochs."""
    share: float | None
    """Share in the text that can be built, in per cent; None where a size is not known."""
    note: str
    """Why it is not built, or what it lacks."""


def plan(recipe: PileRecipe) -> list[Row]:
    """A row per component, and one for the total. A size that is not known is None, and so is a total with such a size.
    The notes name files that are missing.

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
    effective = {name: product(size, epochs[name]) for name, size in sizes.items()}
    named, available = total(effective.values()), total(effective[component.name] for component in recipe.built)
    rows = [
        Row(
            component.name,
            sizes[component.name],
            percent(effective[component.name], named),
            epochs[component.name],
            effective[component.name],
            None if component.unavailable else percent(effective[component.name], available),
            f"unavailable: {component.unavailable}" if component.unavailable else "; ".join(missing_files(component)),
        )
        for component in recipe.component
    ]
    notes = (f"{len(recipe.built)} can be built", *known_sizes(sizes), *missing_tests(recipe.decontaminate))
    percents = percent(named, named), percent(available, available)
    size = None if None in sizes.values() else sum(known.values())
    whole = Row("total", size, percents[0], None, named, percents[1], "; ".join(notes))
    return [*rows, whole]


def product(size: int | None, epochs: float | None) -> float | None:
    """Size times epochs; None where one of them is not known."""
    return None if size is None or epochs is None else size * epochs


def total(values: Iterable[float | None]) -> float | None:
    """The sum of sizes; None where one of them is not known."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def percent(part: float | None, whole: float | None) -> float | None:
    """The share of a part in per cent; None where it is not known, or there is no whole."""
    return None if part is None or not whole else 100 * part / whole


def known_sizes(sizes: Mapping[str, int | None]) -> Iterator[str]:
    """What is known of a total that is not: how many components have a size, and the sum of these."""
    known = [size for size in sizes.values() if size is not None]
    if len(known) < len(sizes):
        sum_of_these = f", {format_bytes(sum(known))} in all" if known else ""
        yield f"{len(known)} of {len(sizes)} sizes are known{sum_of_these}"


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
