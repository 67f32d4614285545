"""The report of an evaluation: one HTML page that needs nothing beside it, the same as Markdown, and JSON."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from bluejay.evals import safety_table
from bluejay.evals.estimates import Estimate, shown, span, wilson
from bluejay.evals.evaluate import Evaluation, Result, checkpoint_of, licence_lines
from bluejay.evals.evaluation_file import write_summary
from bluejay.evals.pictures import bars, curves
from bluejay.evals.published import Published, rows_for
from bluejay.evals.tasks import METRICS
from bluejay.files import json_of, write_texts

TABLE, END = safety_table.TABLE, safety_table.END
SHOWN_PROGRAMS = 12
"""Programs of each suite that the page shows, half of them such as passed."""
STYLE = """
:root { color-scheme: light dark; --line: #8884; --ours: #2b6cb0; --theirs: #8a8a8a; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
summary { overflow-wrap: anywhere; cursor: pointer; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
.wide { overflow-x: auto; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; width: 100%; min-width: 34rem; height: auto; margin: .5rem 0; font: 12px system-ui, sans-serif; }
pre { overflow: auto; background: #8881; padding: .6rem; border-radius: .3rem; }
td.small { min-width: 20rem; }
.small { font-size: .85em; opacity: .8; }
"""


def write_report(evaluation: Evaluation, directory: Path) -> Path:
    """Write report.html, report.md and report.json, all or none, and then the summary that the server shows; returns
    the path of the page. Raises OSError."""
    command, date = (str(evaluation.extra.get(name, "")) for name in ("command", "date"))
    figures = ((one.task, one.model, METRICS[one.metric].title, one.main) for one in evaluation.results)
    texts = {
        "report.json": json_of(evaluation.as_dict(), indent=2) + "\n",
        "report.md": "\n".join(markdown(evaluation)) + "\n",
        "report.html": "\n".join(html(evaluation)) + "\n",
    }
    write_texts({directory / name: text for name, text in texts.items()})
    write_summary(directory, date, command, figures, evaluation.extra.get("identities"))
    return directory / "report.html"


def by_task(evaluation: Evaluation) -> dict[str, list[Result]]:
    """The results of each task, one for each model."""
    found: dict[str, list[Result]] = {}
    for result in evaluation.results:
        found.setdefault(result.task, []).append(result)
    return found


def published_for(results: list[Result]) -> list[tuple[Published, float]]:
    """Published rows beside the results of a task, with their figures."""
    task, metric = results[0].task, results[0].metric
    return [(row, row.figures[name]) for name in (task, f"{task} {metric}") for row in rows_for(name)]


def asked_of(result: Result) -> str:
    """What was asked, in words."""
    of = f"all {result.n}" if result.n == result.of else f"{result.n} of {result.of}"
    shots = f", {result.shots} examples before each" if result.shots else ""
    return f"{of} questions{shots}; {METRICS[result.metric].title}"


def cautions(results: list[Result]) -> list[str]:
    """What must be known to read the figures of a task."""
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return [*notes, *licence_lines(results[0].licences)]


def markdown(evaluation: Evaluation) -> Iterator[str]:
    """The lines of the report as Markdown."""
    yield "# Evaluation\n"
    yield f"`{evaluation.extra.get('command', '')}`\n"
    for task, results in by_task(evaluation).items():
        yield f"## {task}\n\n{asked_of(results[0])}.\n"
        yield "| model | figure | 95 % interval | n | source |\n| --- | --- | --- | --- | --- |"
        for result in results:
            for metric, one in result.figures.items():
                label = result.model if metric == result.metric else f"{result.model}, {METRICS[metric].title}"
                yield f"| {label} | {one.value:.4g} | {span(one.low, one.high)} | {one.n} | this evaluation |"
        for row, value in published_for(results):
            yield f"| {row.model} | {value:.4g} | not published |  | {row.source}: {row.caution} |"
        yield "".join(f"\n- {note}" for note in cautions(results)) + "\n"
    yield from safety_table.markdown(evaluation.extra.get("safety", {}))
    if evaluation.comparisons:
        yield "## Comparisons in pairs\n"
        yield "| task | models | difference | 95 % interval | n | correlation |\n| --- | --- | --- | --- | --- | --- |"
        for one in evaluation.comparisons:
            d = one.difference
            yield (
                f"| {one.task}, {one.metric} | {one.one} - {one.other} | {d.value:+.4g} "
                f"| {span(d.low, d.high, '+.4g')} | {d.n} | {shown(d.correlation, '.2f')} |"
            )
        yield ""
    for task, why in evaluation.not_run.items():
        yield f"- {task} was not run: {why}"


def beginning(title: str, command: str) -> Iterator[str]:
    """The first lines of a page, with the command that made it."""
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    yield f'<meta name="viewport" content="width=device-width"><h1>{escape(title)}</h1>'
    yield f"<p><code>{escape(command)}</code></p>"


def html(evaluation: Evaluation) -> Iterator[str]:
    """The lines of the page."""
    yield from beginning("Evaluation", str(evaluation.extra.get("command", "")))
    yield "<p>Lines are 95 % intervals. Grey rows are what others published; the tables say why they may differ.</p>"
    for task, results in by_task(evaluation).items():
        yield f"<h2>{escape(task)}</h2><p>{escape(asked_of(results[0]))}.</p>"
        yield from (f'<div class="wide">{one}</div>' for one in pictures(results))
        yield TABLE + '<tr><th>model<th>metric<th class="n">figure<th class="n">interval<th class="n">n<th>source'
        for result in results:
            for metric, one in result.figures.items():
                yield (
                    f'<tr><td>{escape(result.model)}<td>{escape(METRICS[metric].title)}<td class="n">{one.value:.4g}'
                    f'<td class="n">{span(one.low, one.high)}<td class="n">{one.n}<td>this evaluation'
                )
        for row, value in published_for(results):
            yield (
                f'<tr><td>{escape(row.model)}<td>{escape(METRICS[results[0].metric].title)}<td class="n">{value:.4g}'
                f'<td class="n"><td class="n"><td class="small">{escape(row.source)}: {escape(row.caution)}'
            )
        yield f"{END}" + "".join(f'<p class="small">{escape(note)}</p>' for note in cautions(results))
    yield from safety_table.html(evaluation.extra.get("safety", {}))
    yield from pairs(evaluation)
    yield from programs(evaluation)
    if evaluation.not_run:
        yield "<h2>Not run</h2><ul>"
        yield from (f"<li>{escape(task)}: {escape(why)}" for task, why in evaluation.not_run.items())
        yield "</ul>"


def pairs(evaluation: Evaluation) -> Iterator[str]:
    """The comparisons of models."""
    if not evaluation.comparisons:
        return
    yield f"<h2>Comparisons in pairs</h2>{TABLE}"
    yield '<tr><th>task<th>models<th class="n">difference<th class="n">interval'
    yield '<th class="n">n<th class="n">correlation'
    for one in evaluation.comparisons:
        d = one.difference
        yield (
            f"<tr><td>{escape(one.task)}, {escape(METRICS[one.metric].title)}"
            f"<td>{escape(one.one)} - {escape(one.other)}"
            f'<td class="n">{d.value:+.4g}<td class="n">{span(d.low, d.high, "+.4g")}<td class="n">{d.n}'
            f'<td class="n">{shown(d.correlation, ".2f")}'
        )
    yield END


def pictures(results: list[Result]) -> Iterator[str]:
    """The figures of a task as pictures: curves over the checkpoints of runs, bars, and pass@k against k."""
    metric, runs = results[0].metric, dict[str, list[tuple[float, Estimate]]]()
    for result in results:
        if found := checkpoint_of(result.model):
            runs.setdefault(found[0], []).append((float(found[1]), result.main))
    if runs:
        yield curves(f"{results[0].task} over training", f"step; {METRICS[metric].title}", runs)
    others = [result for result in results if not checkpoint_of(result.model)]
    if others:
        yield bars(others, published_for(results))
    by_k = {
        result.model: [
            (float(name.partition("@")[2]), one) for name, one in result.figures.items() if name.startswith("pass@")
        ]
        for result in results
    }
    if max(map(len, by_k.values())) > 1:
        yield curves(f"{results[0].task}: pass@k", "k samples of a problem", by_k, logarithmic=True)


def programs(evaluation: Evaluation) -> Iterator[str]:
    """How often each problem of the articles of 2021 was solved, and some of the programs that were written."""
    verdicts = evaluation.extra.get("verdicts", [])
    rates: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in verdicts:
        if one["article"]:
            rates.setdefault((one["problem"], one["model"]), []).append(one)
    if rates:
        yield f"<h2>Tasks of the articles of 2021</h2>{TABLE}"
        yield '<tr><th>problem<th>model<th class="n">passed<th class="n">samples<th class="n">rate<th>one output'
        for (problem, model), found in rates.items():
            passed = sum(one["passed"] for one in found)
            low, high = wilson(passed / len(found), float(len(found)))
            example = next((one for one in found if one["passed"]), found[0])
            yield (
                f'<tr><td>{escape(problem)}<td>{escape(model)}<td class="n">{passed}<td class="n">{len(found)}'
                f'<td class="n">{passed / len(found):.2g} ({low:.2g} to {high:.2g})<td>{program(example)}'
            )
        yield END
    for suite in dict.fromkeys(one["suite"] for one in verdicts):
        of_suite = [one for one in verdicts if one["suite"] == suite]
        yield f"<h2>Programs of {escape(suite)}</h2>"
        for passed in (True, False):
            yield from map(program, [one for one in of_suite if one["passed"] is passed][: SHOWN_PROGRAMS // 2])


def program(one: dict[str, Any]) -> str:
    """A program with its verdict, folded."""
    verdict = "passed" if one["passed"] else f"failed: {one['reason']}"
    text = escape(f"{one['prompt']}{one['completion']}")
    title = escape(f"{one['model']}, {one['problem']}, {verdict}"[:200])
    return f"<details><summary>{title}</summary><pre>{text}</pre></details>"
