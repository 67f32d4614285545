"""The findings of a report as one HTML page that needs nothing beside it, as Markdown, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from bluejay.evals.estimates import Estimate, span
from bluejay.evals.report import END, TABLE, beginning
from bluejay.files import json_of, write_texts

INTERVALS = "Intervals hold the true value with 95 % probability over the texts that might have been drawn."
ONE_RUN = "These are figures of one run of one seed; another seed of the same recipe would give others."


@dataclass(frozen=True)
class Finding:
    """What one kind of measurement found."""

    name: str
    """Its key in the JSON."""
    title: str
    text: str
    """What was measured, and how."""
    unit: str
    """What the figures are, at the head of their column."""
    rows: list[tuple[str, Estimate]]
    pictures: list[str] = field(default_factory=list)
    """SVG."""
    notes: list[str] = field(default_factory=list)
    """What must be known to read the figures."""


@dataclass(frozen=True)
class Report:
    """What is known of a model and what it read."""

    model: str
    command: str
    date: str
    settings: dict[str, Any]
    findings: list[Finding]
    notes: list[str]
    """What could not be measured or traced, each in one sentence."""
    identities: dict[str, str] = field(default_factory=dict)
    """Model -> its identity (`bluejay.evals.scorers.identities`)."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the pictures."""
        values = asdict(self)
        values["findings"] = {
            one.name: {
                "title": one.title,
                "unit": one.unit,
                "figures": {label: asdict(figure) for label, figure in one.rows},
                "notes": one.notes,
            }
            for one in self.findings
        }
        return values

    def summary(self) -> str:
        """The figures in lines."""
        lines = [self.model]
        for one in self.findings:
            lines += ["", f"{one.title} ({one.unit})", *(f"  {label:<44} {figure}" for label, figure in one.rows)]
            lines += [f"  {note}" for note in one.notes]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def write_report(report: Report, directory: Path) -> Path:
    """Write report.html, report.md and report.json, all or none; returns the path of the page. Raises OSError."""
    texts = {
        "report.json": json_of(report.as_dict(), indent=2),
        "report.md": "\n".join(markdown(report)),
        "report.html": "\n".join(html(report)),
    }
    write_texts({directory / name: f"{text}\n" for name, text in texts.items()})
    return directory / "report.html"


def title(report: Report) -> str:
    """The title of a report."""
    return f"What {report.model} read and writes again"


def columns(figure: Estimate) -> Sequence[str]:
    """A figure, its interval and its number of texts."""
    return f"{figure.value:.4g}", span(figure.low, figure.high), f"{figure.n:,}"


def markdown(report: Report) -> Iterator[str]:
    """The lines of the report as Markdown."""
    yield f"# {title(report)}\n\n`{report.command}`\n\n{ONE_RUN} {INTERVALS}\n"
    for one in report.findings:
        yield f"## {one.title}\n\n{one.text}\n"
        yield f"|  | {one.unit} | 95 % interval | n |\n| --- | --- | --- | --- |"
        for label, figure in one.rows:
            yield f"| {label} | {' | '.join(columns(figure))} |"
        yield "".join(f"\n- {note}" for note in one.notes) + "\n"
    yield from (f"- {note}" for note in report.notes)


def html(report: Report) -> Iterator[str]:
    """The lines of the page."""
    yield from beginning(title(report), report.command)
    yield f"<p>{ONE_RUN} {INTERVALS}</p>"
    for one in report.findings:
        yield f"<h2>{escape(one.title)}</h2><p>{escape(one.text)}</p>"
        yield from (f'<div class="wide">{picture}</div>' for picture in one.pictures)
        yield f'{TABLE}<tr><th><th class="n">{escape(one.unit)}<th class="n">95 % interval<th class="n">n'
        for label, figure in one.rows:
            yield f"<tr><td>{escape(label)}" + "".join(f'<td class="n">{text}' for text in columns(figure))
        yield END + "".join(f'<p class="small">{escape(note)}</p>' for note in one.notes)
    if report.notes:
        yield "<h2>Not measured or traced</h2><ul>"
        yield "".join(f"<li>{escape(note)}" for note in report.notes) + "</ul>"
