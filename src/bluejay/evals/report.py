"""The report of an evaluation: one HTML page that needs nothing beside it, the same as Markdown, and JSON."""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

from bluejay.evals.evaluate import Evaluation, Result
from bluejay.evals.published import Published, rows_for
from bluejay.evals.tasks import METRICS
from bluejay.files import write_text
from bluejay.testsets.catalogue import named

SHOWN_PROGRAMS = 12
"""Programs of each suite that the page shows, half of them such as passed."""
STYLE = """
:root { color-scheme: light dark; --line: #8884; --ours: #2b6cb0; --theirs: #8a8a8a; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; font: 12px system-ui, sans-serif; }
pre { overflow: auto; background: #8881; padding: .6rem; border-radius: .3rem; }
.small { font-size: .85em; opacity: .8; }
"""
WIDTH, ROW, LEFT, RIGHT = 760, 22, 190, 150


def write_report(evaluation: Evaluation, directory: Path) -> Path:
    """Write report.html, report.md and report.json; returns the path of the page."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "report.json", json.dumps(evaluation.as_dict(), indent=2) + "\n")
    write_text(directory / "report.md", "\n".join(markdown(evaluation)) + "\n")
    page = directory / "report.html"
    write_text(page, "\n".join(html(evaluation)) + "\n")
    return page


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
    licences = [
        f"data {name}: {text}{', not for commercial use' if named(name).non_commercial else ''}"
        for name, text in results[0].licences.items()
    ]
    return [*dict.fromkeys(note for result in results for note in result.notes), *licences]


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
                yield f"| {label} | {one.value:.4g} | {one.low:.4g} to {one.high:.4g} | {one.n} | this evaluation |"
        for row, value in published_for(results):
            yield f"| {row.model} | {value:.4g} | not published |  | {row.source}: {row.caution} |"
        yield "".join(f"\n- {note}" for note in cautions(results)) + "\n"
    if evaluation.comparisons:
        yield "## Comparisons in pairs\n"
        yield "| task | models | difference | 95 % interval | n | correlation |\n| --- | --- | --- | --- | --- | --- |"
        for one in evaluation.comparisons:
            d = one.difference
            yield (
                f"| {one.task}, {one.metric} | {one.one} - {one.other} | {d.value:+.4g} "
                f"| {d.low:+.4g} to {d.high:+.4g} | {d.n} | {d.correlation:.2f} |"
            )
        yield ""
    for task, why in evaluation.not_run.items():
        yield f"- {task} was not run: {why}"


def html(evaluation: Evaluation) -> Iterator[str]:
    """The lines of the page."""
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style>'
    yield '<meta name="viewport" content="width=device-width"><h1>Evaluation</h1>'
    yield f"<p><code>{escape(str(evaluation.extra.get('command', '')))}</code></p>"
    yield "<p>Lines are 95 % intervals. Grey rows are what others published; the tables say why they may differ.</p>"
    for task, results in by_task(evaluation).items():
        yield f"<h2>{escape(task)}</h2><p>{escape(asked_of(results[0]))}.</p>"
        yield picture(results)
        yield '<table><tr><th>model<th>metric<th class="n">figure<th class="n">interval<th class="n">n<th>source'
        for result in results:
            for metric, one in result.figures.items():
                yield (
                    f'<tr><td>{escape(result.model)}<td>{escape(METRICS[metric].title)}<td class="n">{one.value:.4g}'
                    f'<td class="n">{one.low:.4g} to {one.high:.4g}<td class="n">{one.n}<td>this evaluation'
                )
        for row, value in published_for(results):
            yield (
                f'<tr><td>{escape(row.model)}<td>{escape(METRICS[results[0].metric].title)}<td class="n">{value:.4g}'
                f'<td class="n"><td class="n"><td class="small">{escape(row.source)}: {escape(row.caution)}'
            )
        yield "</table>" + "".join(f'<p class="small">{escape(note)}</p>' for note in cautions(results))
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
    yield '<h2>Comparisons in pairs</h2><table><tr><th>task<th>models<th class="n">difference<th class="n">interval'
    yield '<th class="n">n<th class="n">correlation'
    for one in evaluation.comparisons:
        d = one.difference
        yield (
            f"<tr><td>{escape(one.task)}, {escape(METRICS[one.metric].title)}"
            f"<td>{escape(one.one)} - {escape(one.other)}"
            f'<td class="n">{d.value:+.4g}<td class="n">{d.low:+.4g} to {d.high:+.4g}<td class="n">{d.n}'
            f'<td class="n">{d.correlation:.2f}'
        )
    yield "</table>"


def programs(evaluation: Evaluation) -> Iterator[str]:
    """Some of the programs that were written, and how often each problem of the article of 2021 was solved."""
    verdicts = evaluation.extra.get("verdicts", [])
    rates: dict[str, list[bool]] = {}
    for one in verdicts:
        if one["article"]:
            rates.setdefault(one["problem"], []).append(one["passed"])
    if rates:
        yield '<h2>Tasks of the articles of 2021</h2><table><tr><th>problem<th class="n">passed<th class="n">samples'
        for problem, passed in rates.items():
            yield f'<tr><td>{escape(problem)}<td class="n">{sum(passed)}<td class="n">{len(passed)}'
        yield "</table>"
    for suite in dict.fromkeys(one["suite"] for one in verdicts):
        of_suite = [one for one in verdicts if one["suite"] == suite]
        yield f"<h2>Programs of {escape(suite)}</h2>"
        for passed in (True, False):
            for one in [one for one in of_suite if one["passed"] is passed][: SHOWN_PROGRAMS // 2]:
                verdict = "passed" if passed else f"failed: {one['reason']}"
                text = escape(f"{one['prompt']}{one['completion']}")
                yield f"<details><summary>{escape(one['problem'])}, {escape(verdict)}</summary>"
                yield f"<pre>{text}</pre></details>"


def picture(results: list[Result]) -> str:
    """The main figures of a task as bars with intervals, among published ones, the best last."""
    bars = [(result.model, result.main.value, result.main.low, result.main.high, True) for result in results]
    bars += [(row.model, value, value, value, False) for row, value in published_for(results)]
    bars.sort(key=lambda bar: bar[1], reverse=not METRICS[results[0].metric].higher_is_better)
    top = max([bar[3] if bar[3] == bar[3] else bar[1] for bar in bars] + [1e-9])
    width = WIDTH - LEFT - RIGHT

    def x(value: float) -> float:
        return LEFT + width * min(max(value if value == value else 0.0, 0.0) / top, 1.0)

    parts = []
    for number, (name, value, low, high, ours) in enumerate(bars):
        y = number * ROW + 4
        colour = "var(--ours)" if ours else "var(--theirs)"
        figure = f"{value:.4g} ({low:.3g} to {high:.3g})" if ours else f"{value:.4g}"
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end" fill="currentColor">{escape(name[:28])}</text>'
            f'<rect x="{LEFT}" y="{y + 2}" width="{x(value) - LEFT:.1f}" height="12" fill="{colour}"/>'
            f'<text x="{x(max(value, high)) + 6:.1f}" y="{y + 12}" fill="currentColor">{figure}</text>'
        )
        if ours:
            parts.append(
                f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + 8}" y2="{y + 8}" stroke="currentColor"/>'
            )
    chance = results[0].chance
    if chance:
        parts.append(
            f'<line x1="{x(chance):.1f}" x2="{x(chance):.1f}" y1="0" y2="{len(bars) * ROW}" stroke="currentColor" '
            'stroke-dasharray="3 3" opacity=".6"><title>guessing</title></line>'
        )
    label = f"{results[0].task}: {METRICS[results[0].metric].title}"
    size = f"0 0 {WIDTH} {len(bars) * ROW + 6}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
