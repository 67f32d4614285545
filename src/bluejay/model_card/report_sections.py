"""Sections from what was measured of the model after the run: evaluation, memorisation, heads."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bluejay.evals.estimates import shown, span
from bluejay.files import parse_json
from bluejay.pile.report.card import table

HEADS = "heads.json"
"""File of a run in which `bluejay lens RUN --heads` is looked for."""
NOVELTY = ("n = 4", "n = 8", "n = 13")
"""Rows of the novelty of samples that the card shows."""
IN_HEADS = (
    "The heads that look most at what followed an earlier copy of the present token (induction), and at the token "
    "before, with the weight of their attention there in random texts that are repeated; and by how many bits a token "
    "is easier to predict in the second copy."
)
OTHER_WEIGHTS = "The figures in `{}` are of other weights; run `{}` again."
"""Said in place of figures that were measured before the model was trained again."""


def reported(
    run: Path,
    identity: str,
    title: str,
    named: Path | None,
    usual: str,
    command: str,
    section: Callable[[dict[str, Any]], Iterator[str]],
    impossible: str | None = None,
) -> Iterator[str]:
    """A section from a report, which lies in the folder `named`, or else in the `usual` one of the run; where there is
    none, or one of a model of another `identity`, the command that makes it, or why it is `impossible`. Raises
    ValueError or FileNotFoundError: the folder that was named holds no report, or none of this run."""
    yield f"## {title}\n"
    path = (named or run / usual) / "report.json"
    if named is None and not path.is_file():
        yield f"Not measured: {impossible or f'`{command}` does it'}.\n"
        return
    try:
        report = parse_json(path.read_text(encoding="utf-8"))
        lines = [f"`{report['command']}`, {report.get('date', '')}\n", *section(report)]
        models = {report["model"]} if "model" in report else {one["model"] for one in report["results"]}
        of_run = {model for model in models if run.resolve().name in Path(model).parts}
        recorded = {known for model, known in report.get("identities", {}).items() if model in of_run}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a report as `{command}` writes it") from None
    if named is not None and not of_run:
        raise ValueError(f"{path} has figures of {', '.join(sorted(models))}, and none of {run.resolve().name}")
    if recorded and identity not in recorded:
        yield f"{OTHER_WEIGHTS.format(path, report['command'])}\n"
        return
    page = path.with_suffix(".md")
    if named is None and page.is_file():
        lines[0] = f"[The report](../{page.relative_to(run).as_posix()}): {lines[0]}"
    yield from lines


def evaluated(report: dict[str, Any]) -> Iterator[str]:
    """The figures of all tasks, of this model and of those that were evaluated beside it."""
    rows = [("task", "model", "metric", "figure", "95 % interval", "n", "by chance")]
    for one in report["results"]:
        chance = "" if one["chance"] is None else f"{one['chance']:.3g}"
        rows.append((one["task"], one["model"], one["metric"], *interval(one["figures"][one["metric"]]), chance))
    yield table(rows)
    safety = report.get("safety", {}).get("figures", ())
    if safety:
        yield "### Safety probes\n"
        rows = [("probe", "part", "model", "metric", "figure", "95 % interval", "n")]
        rows += [(*(one[key] for key in ("task", "part", "model", "metric")), *interval(one)) for one in safety]
        yield table(rows)
    yield from (f"- {task} was not run: {why}" for task, why in report["not_run"].items())
    yield ""


def memorised(report: dict[str, Any]) -> Iterator[str]:
    """What the model can be made to repeat, and whether test questions stood in its data."""
    for name, finding in report["findings"].items():
        rows = [(finding["title"], finding["unit"], "95 % interval", "n")]
        for label, figure in finding["figures"].items():
            if name != "novelty" or label.endswith(NOVELTY):
                rows.append((label, *interval(figure)))
        yield table(rows)
        yield from (f"- {note}" for note in finding["notes"])
        yield ""


def interval(figure: dict[str, Any]) -> tuple[str, str, str]:
    """A figure, its interval and the number of questions; a dash for what is not finite, which JSON has as null."""
    between = span(figure.get("low"), figure.get("high"))
    return shown(figure["value"]), between, f"{figure['n']:,}"


def inside(run: Path, identity: str) -> Iterator[str]:
    """The strongest heads of the model, and of those that the run kept on its way. Raises ValueError: the file holds
    something else."""
    path = run / HEADS
    command = f"bluejay lens {quoted(run)} --heads --output {quoted(path)}"
    yield "## Heads\n"
    if not path.is_file():
        yield f"Not measured: `{command}` does it.\n"
        return
    rows = [("model", "training loss, nats", "easier when repeated, bits", "induction head", "previous-token head")]
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        if "scores" not in found:  # of a run that kept no models on its way
            alone = {"steps": ["model"], "losses": [None], "repeat_gain": [None], "scores": [found]}
            found = alone | {"identity": found.get("identity")}
        columns = (found["steps"], found["losses"], found["repeat_gain"], found["scores"])
        recorded = found.get("identity")
        for name, *figures, scores in zip(*columns, strict=True):
            induction, previous = strongest(scores["induction"]), strongest(scores["previous_token"])
            loss, gain = ("" if figure is None else f"{figure:.2f}" for figure in figures)
            rows.append((name, loss, gain, induction, previous))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not what `{command}` writes") from None
    if recorded and recorded != identity:
        yield f"{OTHER_WEIGHTS.format(path, command)}\n"
        return
    yield f"`{command}`. {IN_HEADS}\n"
    yield table(rows)


def strongest(scores: list[list[float]]) -> str:
    """The head with the largest score, as LAYER.HEAD, and its score."""
    value, layer, head = max((value, i, j) for i, row in enumerate(scores) for j, value in enumerate(row))
    return f"{layer}.{head}, {value:.2f}"


def quoted(path: Path) -> str:
    """A path in a command, as a shell takes it."""
    return shlex.quote(str(path))
