"""The plots of a data card."""

from pathlib import Path
from typing import Any

from bluejay.pile.report.counts import Report

BLUE, GREY = "#3465a4", "#cccccc"


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure and its axes, drawn without a display."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False)


def plain(name: str) -> str:
    """A name that is drawn as it is, not as a formula."""
    return name.replace("$", r"\$")


def mixture(report: Report, path: Path) -> None:
    """Plot the training tokens of each component, and how many of them are repetitions."""
    rows = [(name, entry) for name, entry in report.components.items() if entry.splits["train"].tokens]
    rows.sort(key=lambda row: row[1].splits["train"].tokens)
    drawn, ((axes,),) = figure(9.0, 1 + 0.32 * len(rows))
    names = [plain(name) for name, _ in rows]
    tokens = [entry.splits["train"].tokens / 1e6 for _, entry in rows]
    axes.barh(names, tokens, color=GREY, label="repeated")
    axes.barh(names, [t / max(e.epochs, 1.0) for t, (_, e) in zip(tokens, rows, strict=True)], color=BLUE, label="once")
    axes.set_xlabel("million training tokens")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    drawn.savefig(path, dpi=110)


def lengths(report: Report, path: Path) -> None:
    """Plot how long the documents of each component are: a histogram over powers of two of bytes."""
    rows = [(name, entry.lengths) for name, entry in report.components.items() if entry.lengths]
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    drawn, grid = figure(10.0, 1.7 * lines, lines, columns)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    for axes, (name, counts) in zip(grid.flat, rows, strict=False):
        powers = sorted(map(int, counts))
        axes.bar(powers, [counts[str(power)] for power in powers], width=0.9, color=BLUE)
        axes.set_title(plain(name), fontsize=9)
        axes.set_xlim(3, 24)
        axes.set_xticks([10, 20], ["1 KiB", "1 MiB"])
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=110)
