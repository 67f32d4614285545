"""The card of a model, `bluejay card RUN`, written from the records that lie beside it.

They are the run's recipe, metrics and result, the report of its corpus, and, where they were made, the reports of
`bluejay eval` and `bluejay trace report` and the heads of `bluejay lens`. Where a record is missing, the card says
which command makes it.
"""

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bluejay import recipe as recipes
from bluejay.evals.estimates import shown, span
from bluejay.evals.evaluation_file import identity_at
from bluejay.files import parse_json, set_aside, sha256_of, write_text
from bluejay.gpt.formats.companions import TRAINED_ON, licence_of
from bluejay.gpt.formats.layouts import open_model
from bluejay.pile.report.card import table
from bluejay.pile.report.counts import Report
from bluejay.progress import counted, format_bytes, format_duration, say
from bluejay.tokens import corpus_of
from bluejay.train.checkpoint.result import Result, command_of, hashes_of, how_to_go_on, read_result, write_result
from bluejay.train.checkpoint.trained_on import read_trained_on
from bluejay.train.recipe import LoRA, TrainRecipe, is_examples
from bluejay.train.report.metrics import draw_loss, read_metrics
from bluejay.train.report.runs import RunSummary, read_run

CARD, PICTURE = "README.md", "loss.png"
EVALUATION, MEMORISATION = "evaluation", "trace-report"
"""Folders of a run in which the reports are looked for."""
HEADS = "heads.json"
"""File of a run in which `bluejay lens RUN --heads` is looked for."""
CORPORA = "corpora"
"""Folder of a run for the reports of its corpora, each in a folder of the corpus's name."""
LICENCES = 6
"""Licences of a component that the card names, the most frequent first."""
NOVELTY = ("n = 4", "n = 8", "n = 13")
"""Rows of the novelty of samples that the card shows."""
IN_HEADS = (
    "The heads that look most at what followed an earlier copy of the present token (induction), and at the token "
    "before, with the weight of their attention there in random texts that are repeated; and by how many bits a token "
    "is easier to predict in the second copy."
)
NO_SHARDS = "`bluejay trace report` takes passages from token shards, and this run read files of examples"
OTHER_WEIGHTS = "The figures in `{}` are of other weights; run `{}` again."
"""Said in place of figures that were measured before the model was trained again."""
LICENSED = "The weights are released under the licence above."
RIGHTS = (
    "Whether weights that were trained on a text are bound by the licence of that text is not settled in law, and this "
    "card does not settle it"
)
NAMED = (
    "it names the licences of all documents, and `bluejay trace` leads from a passage that "
    "the model writes to the documents that hold it, each with its licence. Who passes on such a passage has to keep "
    "to the licence of the document"
)
"""Said of documents whose licences the card names."""
USE = (
    "For learning how language models are made, for research that needs a model whose data are known, and as a start "
    "for a small model of your own. Not for advice, for decisions about people, or for text that is passed on unread."
)
BASE = "It continues text: it was not taught to follow instructions or to be right."
LIMITS = (
    "A model of this size states falsehoods in fluent sentences, repeats itself, and knows little beyond the words of"
    " its data, whose languages, views and mistakes it takes over.",
    "The figures are of one run of one seed; another seed of the same recipe gives others.",
    "The safety probes are a few questions in English, judged by lists of words and a small classifier: they show "
    "faults and prove no safety.",
)


def write_model_card(
    run: Path,
    evaluation: Path | None = None,
    memorisation: Path | None = None,
    licence: str | None = None,
    watts: float | None = None,
) -> Path:
    """Write the card and its picture into the model directory of a finished run; returns the path of the card. One
    that somebody else wrote, or changed, is renamed. The arguments and the errors are those of `model_card`."""
    text, result = model_card(run, evaluation, memorisation, licence, watts), read_result(run)
    assert result is not None
    own, there, path = {f"model/{CARD}", f"model/{PICTURE}"}, hashes_of(run, "model"), run / "model" / CARD
    known = result.files.get(f"model/{CARD}")
    if there.get(f"model/{CARD}", known) != known and path.read_bytes() != text.encode():
        say(f"WARNING: {path} is not as `bluejay card` wrote it; renamed to {set_aside(path, 'other').name}")
    written = {name: value for name, value in result.files.items() if name.startswith("model/") and name not in own}
    as_written = written and written.items() <= there.items()
    recipe = recipes.load(TrainRecipe, run / "recipe.toml")
    draw_loss(read_metrics(run / "metrics.jsonl"), recipe.name, run / "model" / PICTURE)
    write_text(path, text)
    if as_written:  # the card is the run's own, too
        files = result.files | {name: sha256_of(run / name) for name in sorted(own)}
        write_result(run, replace(result, files=files))
    return path


def model_card(
    run: Path,
    evaluation: Path | None = None,
    memorisation: Path | None = None,
    licence: str | None = None,
    watts: float | None = None,
) -> str:
    """The card of a finished run's model, in Markdown.

    `evaluation` and `memorisation` are folders of reports, below the run by default; `watts` is the machine's power.
    Raises ValueError or FileNotFoundError: the run is not finished, its model was replaced by another one, or a folder
    holds no report.
    """
    summary, result = read_run(run), read_result(run)
    if result is None or not (run / "model").is_dir():
        raise ValueError(f"{run} is not a finished run; {how_to_go_on(run)}")
    recipe = recipes.load(TrainRecipe, run / "recipe.toml")
    check_model(run, recipe, result)
    identity = identity_at(run / "model")
    if summary.steps_done < recipe.steps:  # of the metrics, only a part is there
        tokens = recipe.steps * recipe.train.batch_tokens
        summary = replace(summary, steps_done=recipe.steps, tokens=tokens, seconds=0.0)
    stated = licence or licence_of(run / "model")
    asks = f"bluejay eval {quoted(run)} --suite small --report {quoted(run / EVALUATION)}"
    traces = f"bluejay trace report {quoted(run)}"
    why = NO_SHARDS if all(is_examples(part.names[0]) for part in recipe.data.train) else None
    lines = [
        *front(stated),
        *beginning(run, recipe, summary),
        *data(run, recipe, stated),
        *training(recipe, summary, result, watts),
        *held_out(recipe, result),
        *reported(run, identity, "Evaluation", evaluation, EVALUATION, asks, evaluated),
        *reported(run, identity, "Memorisation and contamination", memorisation, MEMORISATION, traces, memorised, why),
        *inside(run, identity),
        *use_and_limits(recipe),
        *repetition(run, recipe, result),
    ]
    return "\n".join(lines) + "\n"


def check_model(run: Path, recipe: TrainRecipe, result: Result) -> None:
    """Raise ValueError if the model in a run's folder says that another run wrote it, or no more that this one did;
    warn of other weights, which may be the same ones in another type."""
    model = run / "model"
    known, is_own = read_trained_on(model), f"model/{TRAINED_ON}" not in result.files
    if known is not None:
        both = [recipes.check(TrainRecipe, known.recipe, str(model / TRAINED_ON)).same_run(), recipe.same_run()]
        for one in both:
            del one["train"]["tokens"]  # several numbers are as many steps
        is_own = known.step == recipe.steps and both[0] == both[1]
    if not is_own:
        raise ValueError(
            f"{model} is not the model that this run wrote, so the run's figures are not its own; "
            f"{command_of(run)} writes that again, and renames this one"
        )
    there = hashes_of(run, "model")
    weights = (name for name in result.files if fnmatch(name, "model/model*.safetensors"))
    if other := next((name for name in weights if there.get(name) != result.files[name]), None):
        say(f"WARNING: {run / other} is not as the run wrote it; of other weights, the run's figures are not true")


def front(licence: str | None) -> Iterator[str]:
    """The front matter that hubs read."""
    yield from ("---", *([f"license: {licence}"] if licence else []), "library_name: transformers")
    yield from ("pipeline_tag: text-generation", "tags:", "- bluejay", "---\n")


def beginning(run: Path, recipe: TrainRecipe, summary: RunSummary) -> Iterator[str]:
    """What the model is, and how to run it."""
    config = open_model(run / "model").config
    in_tables = config.vocab_size * config.d_model * (1 if config.tied else 2)
    start = f", beginning with `{recipe.init}`" if recipe.init else ""
    yield f"# {run.resolve().name}\n"
    yield (
        f"A model of the family {config.family} with {config.n_parameters:,} parameters, {in_tables:,} of them in the "
        f"embedding and the head: {config.n_layer} layers of width {config.d_model:,} with {config.n_head} heads, "
        f"{config.vocab_size:,} tokens, context {config.n_ctx:,}. It read {summary.tokens:,} tokens{start}.\n"
    )
    model = quoted(run / "model")
    yield f'```\nbluejay generate {model} "A prompt"\nbluejay serve {model}\n```\n'


def data(run: Path, recipe: TrainRecipe, licence: str | None) -> Iterator[str]:
    """The corpora, their components and their licences; from the copy of a corpus's report in a run that was moved away
    from its corpus."""
    yield "## Data\n"
    known = False
    for name in [name for source in recipe.data.train for name in source.names]:
        corpus = corpus_of(Path(name))
        report = Report.load(corpus) or Report.load(run / CORPORA / corpus.name)
        if report is None:
            yield f"`{name}`: no report of a corpus lies there, so its licences are not known.\n"
            continue
        known = True
        train = report.total("train")
        yield (
            f"`{report.name}` (recipe {report.recipe_sha256[:16]}), {counted(train.documents, 'training document')}, "
            f"{format_bytes(train.bytes)}. The shares are of their tokens; the licences are of all documents, "
            "held-out ones included.\n"
        )
        rows = [("component", "share", "training documents", "licences of all documents")]
        for component, entry in report.components.items():
            if entry.unavailable is None:
                part = entry.splits["train"]
                share = f"{100 * part.tokens / max(train.tokens, 1):.1f} %"
                rows.append((component, share, f"{part.documents:,}", licences(entry.licences)))
        yield table(rows)
    yield f"{f'{LICENSED} ' if licence else ''}{RIGHTS}{f': {NAMED}' if known else ''}.\n"


def licences(counts: dict[str, int]) -> str:
    """The most frequent licences, with their shares of the documents."""
    whole = max(1, sum(counts.values()))
    named = [f"{name} {100 * n / whole:.0f} %" for name, n in Counter(counts).most_common(LICENCES)]
    rest = len(counts) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "") or "not known"


def training(recipe: TrainRecipe, summary: RunSummary, result: Result, watts: float | None) -> Iterator[str]:
    """How, on what and how long the model was trained."""
    train = recipe.train
    hours, rate = summary.seconds / 3600, summary.tokens / max(summary.seconds, 1e-9)
    energy = f"about {hours * watts / 1000:.3g} kWh at {watts:g} W" if watts else "not estimated: --watts was not given"
    time = f"{format_duration(summary.seconds)} of steps, {rate:,.0f} tokens/s"
    if not summary.seconds:
        time, energy = "not known: the metrics of the run are not whole", "not estimated: the time is not known"
    rows = [
        ("", ""),
        (
            "steps",
            f"{summary.steps_done:,} of {train.batch_tokens:,} tokens, in sequences of {recipe.data.sequence_length:,}",
        ),
        *([("trained weights", adapted(recipe.lora))] if recipe.lora else []),
        ("optimizer", f"{train.optimizer.kind}, rate {train.lr:g}, schedule {train.schedule.kind}, seed {recipe.seed}"),
        ("machine", result.machine or "not recorded"),
        ("time", time),
        ("energy", energy),
    ]
    yield "## Training\n"
    yield table(rows)
    yield f"![Loss over tokens]({PICTURE})\n"


def adapted(lora: LoRA) -> str:
    """Which weights of a model adapters were trained for."""
    targets = f"the matrices {', '.join(lora.targets)}" if lora.targets else "all matrices"
    return f"adapters of rank {lora.rank} and alpha {lora.alpha:g} on {targets} of the blocks, merged into the model"


def held_out(recipe: TrainRecipe, result: Result) -> Iterator[str]:
    """The loss on held-out text."""
    rows = [("held-out text", "bits per byte"), ("all", f"{result.held_out['bits_per_byte']:.3f}")]
    rows += [(name, f"{value:.3f}") for name, value in (result.held_out.get("components") or {}).items()]
    of = f"{recipe.evaluate.tokens:,} tokens, as many of each component as there are. Other documents"
    if is_examples(recipe.data.held_out):
        of = f"the answers in examples of at most {recipe.evaluate.tokens:,} tokens together. Other examples"
    of += ", and more of them, give other figures: an evaluation says its own."
    yield "## Held-out loss\n"
    yield f"What the run measured at its end, on {of}\n"
    yield table(rows)


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
            found = {"steps": ["model"], "losses": [None], "repeat_gain": [None], "scores": [found]}
        columns = (found["steps"], found["losses"], found["repeat_gain"], found["scores"])
        recorded = found.get("identity")
        for name, *figures, scores in zip(*columns, strict=True):
            induction, previous = strongest(scores["induction"]), strongest(scores["previous_token"])
            loss, gain = ("" if figure is None else f"{figure:.2f}" for figure in figures)
            rows.append((name, loss, gain, induction, previous))
    except (ValueError, KeyError, TypeError):
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


def use_and_limits(recipe: TrainRecipe) -> Iterator[str]:
    """What the model is for, and what it cannot do."""
    yield f"## Use\n\n{USE if recipe.init else f'{USE} {BASE}'}\n\n## Limits\n"
    yield from (f"- {limit}" for limit in LIMITS)
    yield ""


def repetition(run: Path, recipe: TrainRecipe, result: Result) -> Iterator[str]:
    """How to repeat the run: its corpora, where their recipes lie in the run, and its own recipe, in as many processes
    as the run had, or, where it did not record them, as its mesh needs; in another folder than this run's, with which
    the command would only go on."""
    processes = result.processes or math.prod(max(1, size) for size in astuple(recipe.mesh))
    train = f"bluejay train {quoted(run / 'recipe.toml')}" + (f" --processes {processes}" if processes > 1 else "")
    if (run / "checkpoints").is_dir() or run.resolve() == recipe.directory.resolve():
        train += f" --output {quoted(run.with_name(f'{run.resolve().name}-again'))}"
    text = (run / "recipe.toml").read_text(encoding="utf-8")
    yield "## To repeat it\n"
    builds = [f"bluejay pile build {quoted(path)}\n" for path in sorted(run.glob(f"{CORPORA}/*/recipe.toml"))]
    if builds:
        yield f"```\n{''.join(builds)}{train}\n```\n"
    else:
        yield f"`{train}`, with the data above in their places. The recipe:\n"
    yield f"```toml\n{text}```"


def quoted(path: Path) -> str:
    """A path in a command, as a shell takes it."""
    return shlex.quote(str(path))
