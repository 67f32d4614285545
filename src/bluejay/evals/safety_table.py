"""The safety section of a report: all figures about safety with n and interval, descriptors of groups, and examples."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from bluejay.evals import safety
from bluejay.evals.estimates import Estimate, span
from bluejay.evals.evaluate import Result, figure
from bluejay.evals.suites import SUITES
from bluejay.evals.tasks import METRICS

TASKS = {task.name for task in SUITES["safety"]}
"""The tasks whose figures stand in the section."""
PARTS = {"decisions_about_people": 1, "sensitive_prompts": 1, "descriptions_of_groups": 2}
"""Task of ours -> how many parts of a question's name, which are divided by slashes, make a row of its own."""
EXAMPLES = 2
"""Texts of each row that the report shows, those with the highest scores first."""
TABLE, END = '<div class="wide"><table>', "</table></div>"
CAUTION = (
    "No figure here says that a model is safe. The ratio compares how often a word is among the first words about a "
    "group with how often it is about the other groups of its kind; samples count as independent, and of twenty "
    "intervals one misses by chance."
)


def findings(results: Sequence[Result]) -> dict[str, Any]:
    """All of the section as values for JSON; empty where no task about safety was asked."""
    found = [result for result in results if result.task in TASKS]
    if not found:
        return {}
    rows = [row for result in found for row in figures(result)]
    described = [(one.model, safety.descriptors(about_groups(one))) for one in found if is_about_groups(one)]
    values: dict[str, Any] = {
        "figures": rows,
        "descriptors": [{"model": model, **asdict(row)} for model, listed in described for row in listed],
        "examples": [example for result in found for example in examples(result)],
    }
    judged = any("offensive" in result.figures for result in found)
    return {**values, "classifier": safety.CLASSIFIER, "limits": list(safety.LIMITS)} if judged else values


def is_about_groups(result: Result) -> bool:
    """Whether a result is of the probe whose continuations describe groups of people."""
    return result.task == "descriptions_of_groups"


def about_groups(result: Result) -> Iterator[tuple[str, str, str]]:
    """The kind, the group and the continuation of each description."""
    for name, written in result.texts.items():
        kind, group, *_ = name.split("/")
        yield from ((kind, group, text) for _, text in written)


def rows_of(result: Result) -> dict[str, list[int]]:
    """The rows that a task has in the table beside that of all questions -> the numbers of their questions."""
    parts, rows = PARTS.get(result.task, 0), {}
    for number, name in enumerate(result.texts if parts else ()):
        rows.setdefault(": ".join(name.split("/")[:parts]).replace("_", " "), []).append(number)
    return rows


def figures(result: Result) -> Iterator[dict[str, Any]]:
    """The rows of one model in one task: all questions together, then by category, group or function."""

    def row(part: str, one: Estimate) -> dict[str, Any]:
        values = {name: value for name, value in asdict(one).items() if name in ("value", "low", "high", "n")}
        return {"task": result.task, "part": part, "model": result.model, "metric": result.metric, **values}

    yield row("all", result.main)
    for part, numbers in rows_of(result).items():
        scores = [result.scores[result.metric][number] for number in numbers]
        yield row(part, figure(result.metric, scores, [result.clusters[number] for number in numbers]))


def examples(result: Result) -> Iterator[dict[str, Any]]:
    """The `EXAMPLES` continuations of each row with the highest scores; of equal ones the first."""
    names = list(result.texts)
    for part, numbers in rows_of(result).items():
        scores = result.scores[result.metric]
        for number in sorted(numbers, key=lambda at: -scores[at])[:EXAMPLES]:
            for prompt, text in result.texts[names[number]]:
                counted = bool(scores[number])
                yield {
                    "task": result.task, "part": part, "model": result.model, "prompt": prompt, "text": text,
                    "counted": counted,
                }  # fmt: skip


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of figures as texts."""
    interval = span(row["low"], row["high"], ".3g")
    return row["task"], row["part"], METRICS[row["metric"]].title, row["model"], f"{row['value']:.3g}", interval


def descriptor_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of descriptors as texts."""
    one, other = f"{row['count']} of {row['n']}", f"{row['others']} of {row['n_others']}"
    return row["model"], row["group"], row["word"], one, other, f"{row['ratio']:.3g}"


HEAD = ("probe", "part", "figure", "model", "value", "95 % interval", "n")
DESCRIPTOR_HEAD = ("model", "group", "word", "of it", "of the others", "ratio", "95 % interval")
NUMBERS = 3
"""The last columns of both tables, which are numbers."""


def tables(found: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """The tables of the section: a title, the names of the columns, and the rows."""
    yield "Figures", HEAD, [(*cells(row), str(row["n"])) for row in found["figures"]]
    listed: list[tuple[str, ...]] = [
        (*descriptor_cells(row), span(row["low"], row["high"], ".3g")) for row in found["descriptors"]
    ]
    if listed:
        yield "Words that set groups apart", DESCRIPTOR_HEAD, listed


def notes(found: dict[str, Any]) -> list[str]:
    """What a reader must know."""
    judged = f"Offensive is what {found['classifier']} calls so" if "classifier" in found else ""
    return [safety.WARNING, CAUTION, *((f"{judged}: {'; '.join(found['limits'])}.",) if judged else ())]


def html(found: dict[str, Any]) -> Iterator[str]:
    """The section as lines of the page; texts of models are folded."""
    if not found:
        return
    yield "<h2>Safety</h2>" + "".join(f"<p>{escape(note)}</p>" for note in notes(found))
    for title, head, rows in tables(found):
        numeric = len(head) - NUMBERS
        yield f"<h3>{title}</h3>{TABLE}<tr>" + "".join(
            f"<th{' class=n' if at >= numeric else ''}>{escape(name)}" for at, name in enumerate(head)
        )
        for row in rows:
            yield "<tr>" + "".join(
                f"<td{' class=n' if at >= numeric else ''}>{escape(cell)}" for at, cell in enumerate(row)
            )
        yield END
    if found["examples"]:
        yield f"<h3>Examples</h3><details><summary>{len(found['examples'])} texts by models</summary>"
        for one in found["examples"]:
            title = f"{one['model']}, {one['task']}, {one['part']}{', counted' if one['counted'] else ''}"
            yield f"<p class=small>{escape(title)}</p><pre>{escape(one['prompt'])}<b>{escape(one['text'])}</b></pre>"
        yield "</details>"


def markdown(found: dict[str, Any]) -> Iterator[str]:
    """The section as lines of Markdown, without examples."""
    if not found:
        return
    yield "## Safety\n\n" + "\n\n".join(notes(found)) + "\n"
    for _, head, rows in tables(found):
        yield f"| {' | '.join(head)} |\n|{' --- |' * len(head)}"
        yield from (f"| {' | '.join(row)} |" for row in rows)
        yield ""
