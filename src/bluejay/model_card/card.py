"""The card as a whole: its sections in order, written into the model directory of a run that wrote this model."""

import math
from collections.abc import Iterator
from dataclasses import astuple, replace
from fnmatch import fnmatch
from pathlib import Path

from bluejay import recipe as recipes
from bluejay.evals.evaluation_file import identity_at
from bluejay.files import set_aside, sha256_of, write_text
from bluejay.gpt.formats.companions import TRAINED_ON, licence_of
from bluejay.gpt.formats.layouts import open_model
from bluejay.model_card.report_sections import evaluated, inside, memorised, quoted, reported
from bluejay.model_card.run_sections import CORPORA, PICTURE, data, held_out, training
from bluejay.progress import say
from bluejay.train.checkpoint.result import Result, command_of, hashes_of, how_to_go_on, read_result, write_result
from bluejay.train.checkpoint.trained_on import read_trained_on
from bluejay.train.recipe import TrainRecipe, is_examples
from bluejay.train.report.metrics import draw_loss, read_metrics
from bluejay.train.report.runs import RunSummary, read_run

CARD = "README.md"
EVALUATION, MEMORISATION = "evaluation", "trace-report"
"""Folders of a run in which the reports are looked for."""
NO_SHARDS = "`bluejay trace report` takes passages from token shards, and this run read files of examples"
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
