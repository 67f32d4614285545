"""One command from a user's own text to a model, `bluejay train FILE`; `bluejay new` only writes the recipes.

Two recipes are written beside the run, one for the corpus and one for the model. The model's size and its number of
tokens follow from the speed of this machine and the minutes that the run may take.
"""

import dataclasses
import json
import math
import re
import shlex
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay import recipe as recipes
from bluejay.files import TEMPORARY, require_writable, write_texts
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.pile.build import BuildResult, build
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report.counts import add_counts, largest
from bluejay.pile.sources.folder import sources_of, tree_of
from bluejay.progress import format_duration, say
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard
from bluejay.train.checkpoint.checkpoints import Checkpoints
from bluejay.train.checkpoint.owner import owned
from bluejay.train.distributed import parallel
from bluejay.train.distributed.device import within_memory
from bluejay.train.loop import Run, Trained, timeout, train
from bluejay.train.recipe import Checkpoint, TrainRecipe, is_examples
from bluejay.train.report.compressor import xz_bits_per_byte
from bluejay.train.schedule import Schedule

SIZES = ((2, 64), (4, 128), (4, 192), (6, 256), (6, 384), (8, 512), (12, 768), (16, 1024))
"""Layers and width of the models to choose from."""
LEAST_TOKENS_PER_PARAMETER = 1.0
"""Training tokens for each parameter, below which a smaller model learns more in the same time (docs/log.md)."""
MOST_EPOCHS = 16
"""Repetitions of a text after which more teach nothing (Muennighoff et al. 2023, section 6)."""
FIRST_SCHEDULE, FIRST_SHARE = "constant", 0.6
"""Schedule and share of the first part of a run. The second part, which ends with a cooldown, is as long as the time
allows at the speed that the first had: a machine is not always as fast as in a trial."""
LEAST_SHARE = 0.25
"""Share of the time that training has in any case, on a machine that needs the rest, or more, to prepare the text."""
LEAST_TOKENS = 513
"""Tokens of training text below which there may not be one sequence, and nothing to be learnt."""
LEAST_STEPS = 8
"""Steps that a run has in any case."""
EVALUATIONS = 4
TRIAL_SHARE = 0.03
"""Share of the time in which the speed is measured."""
FINISH_SECONDS = 4.0
"""Time to write the model, and to start and stop."""
BYTES_PER_TOKEN_OF_VOCABULARY = 500
"""Text for each token of a new vocabulary: rarer ones would hardly be learnt."""
USUAL_SIZE = 4_000_000
"""Bytes of text that are expected where none is there yet."""
INSTEAD = "give this one a --name, or replace that one by --force"
"""What to do where a run's name is taken."""
SMALL_MODEL = 50_000_000
"""Parameters up to which all weights of `init` are trained; of a larger model only adapters are."""


@dataclass(frozen=True)
class Result:
    """What was made of a text."""

    trained: Trained
    corpus: Path
    seconds: float
    """Seconds of the whole command."""
    xz_bits_per_byte: float | None
    """Bits per byte of `xz -9` on the held-out text; None if its documents are not there."""

    def summary(self) -> str:
        """The result, beside a compressor, and how to use it."""
        model, bits = shlex.quote(str(self.trained.model)), self.trained.held_out.bits_per_byte
        lines = [self.trained.summary(), f"{format_duration(self.seconds)} in all"]
        if self.xz_bits_per_byte is not None:
            verdict = "fewer than" if bits < self.xz_bits_per_byte else "more than"
            lines.append(
                f"the model needs {bits:.2f} bits for each byte of the held-out text, on which it was not trained, "
                f"{verdict} xz -9 with {self.xz_bits_per_byte:.2f}"
            )
        lines.append(f'bluejay generate {model} "..." continues a text; bluejay serve {model} serves it with a page')
        return "\n".join(lines)


def train_text(target: Path, minutes: float, force: bool, overrides: list[str], began: float) -> Result:
    """Make a model of a file, a folder of files or a corpus; a run that is there already goes on.

    `began` is the value of `time.monotonic` when the command started, and `overrides` change fields of the training
    recipe; with `force` what was made under the name of the run is replaced. Raises FileNotFoundError if there is no
    such text; ValueError if the name belongs to another run, the text is too little, or an override would decide the
    length, which the minutes do.
    """
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes is {minutes}; it must be a number above 0")
    fields = dict(map(as_text, recipes.parse_overrides(overrides)))
    if lengths := [key for key, text in fields.items() if decides_length(key, text)]:
        raise ValueError(
            f"--{lengths[0]} needs a run of a known length, and that of a run on a text follows from --minutes; "
            "`bluejay new` writes a recipe, in which train.tokens is the length"
        )
    name, output, init = (fields.get(key) for key in ("name", "output", "init"))
    directory = Path(output or f"runs/{name or name_of(target)}").expanduser()
    path, end, least = directory / "train.toml", began + 60 * minutes, LEAST_SHARE * 60 * minutes
    if not force and not path.exists() and any((directory / made).exists() for made in ("recipe.toml", "checkpoints")):
        raise ValueError(f"{directory} holds a run already; {INSTEAD}")
    with owned(directory):  # nothing is replaced while another process trains there
        corpus = target if is_corpus(target) else corpus_made_of(target, directory, init, force)
        if end - time.monotonic() < least:
            took, of, trains = map(format_duration, (time.monotonic() - began, 60 * minutes, least))
            say(f"preparing the text took {took}, and --minutes allows {of}; training takes {trains} all the same")
            end = time.monotonic() + least
        if path.exists() and not force:
            check_corpus(path, corpus)
            say(f"continues with {path}; --force chooses sizes anew")
        else:
            recipe = sized(corpus, directory, name or name_of(target), init, end - time.monotonic())
            storage = fields.get("checkpoint.storage")
            Checkpoints(directory / "checkpoints", Checkpoint(storage=storage)).remove_stale(-1)
            recipes.save(recipe, path)
    here = [*overrides, "--output", str(directory)]  # which may have been moved
    recipe = recipes.load(TrainRecipe, path, here[-2:])
    is_first = recipe.train.schedule.kind == FIRST_SCHEDULE
    if is_first:
        say(f"the time left is that of one of two parts; the first is about {FIRST_SHARE:.0%} of the run")
    trained = train(recipes.load(TrainRecipe, path, here), more_follows=is_first)
    if is_first:
        recipes.save(with_cooldown(recipe, trained, corpus, end - time.monotonic()), path)
        trained = train(recipes.load(TrainRecipe, path, here))
    return Result(trained, corpus, time.monotonic() - began, xz_bits_per_byte(corpus))


def as_text(override: tuple[str, str]) -> tuple[str, str]:
    """The key of an override, and its value as that of a field of text."""
    key, typed = override
    value = recipes.toml_value(typed)
    return key, value if isinstance(value, str) else typed


def decides_length(key: str, value: str) -> bool:
    """Whether an override decides how long a run is, or what happens at fractions of it; a run on a text has two parts,
    the second of which is longer and has another schedule."""
    table = recipes.toml_value(value) if key == "checkpoint" else None
    whole = key in ("train", "train.tokens", "train.schedule", "checkpoint.at") or key.startswith("train.schedule.")
    changes = key in ("data", "data.train") and "changes" in value
    return whole or changes or (isinstance(table, dict) and "at" in table)


def say_skipped(built: BuildResult) -> None:
    """Say how much of a text gave no document, the most frequent reasons, and where all are listed."""
    reasons: dict[str, int] = {}
    for component in built.report.components.values():
        add_counts(reasons, component.skipped)
    if reasons:
        why = ", ".join(f"{n:,} {reason}" for reason, n in largest(reasons, 3))
        where = built.directory / "documents" / "skipped.parquet"
        say(f"files or records that were left out: {sum(reasons.values()):,} ({why}); {where} lists them")


def new(directory: Path, text: Path | None = None) -> list[Path]:
    """Write a recipe for a corpus of `text` and one for a small model of it, to be edited; returns their paths.

    Without `text` the corpus is of the files that will be in the folder `text` of `directory`, which is made.

    Raises FileNotFoundError if there is no such text; ValueError if one of the recipes is there already.
    """
    paths = [directory / "pile.toml", directory / "train.toml"]
    if there := [path for path in paths if path.exists()]:
        raise ValueError(f"{there[0]} is there already; name another folder")
    if directory.is_file():
        command = f"bluejay new FOLDER {shlex.quote(str(text or directory))}"
        raise ValueError(f"{directory} is a file; name a folder first: {command}")
    require_writable(directory, is_folder=True)
    name = name_of(directory)
    if text is None:
        (directory / "text").mkdir(parents=True, exist_ok=True)
    corpus = corpus_recipe_of(text or directory / "text", directory, name, None, files_come_later=text is None)
    recipe = training_recipe(corpus.directory, name, None, 4, 128, 1_000_000)
    write_texts(dict(zip(paths, map(recipes.as_toml, (corpus, recipe)), strict=True)))
    return paths


def name_of(target: Path) -> str:
    """A name for a run, after the file or the folder."""
    name = target.resolve().name
    return re.sub(r"[^\w.-]+", "-", name.split(".")[0] or name).strip("-.") or "text"


def is_corpus(target: Path) -> bool:
    """Whether a folder is a corpus that `bluejay pile build` made."""
    return (target / "tokens" / "train.idx").is_file() and (target / "tokenizer.json").is_file()


def corpus_made_of(target: Path, directory: Path, init: str | None, force: bool) -> Path:
    """The corpus of a text, which is built unless it is there and not to be replaced. Of a text of which none can be
    made, no recipe stays either."""
    is_new = not (directory / "pile.toml").exists()
    path = write_corpus_recipe(target, directory, init, force)
    try:
        built = build(recipes.load(PileRecipe, path), force=force)
    except (OSError, ValueError) as error:
        if is_new:
            path.unlink()
        if "has no documents" in str(error) and is_examples(target.name):
            raise ValueError(f"{error}; {other_uses(target)}") from None
        raise
    say_skipped(built)
    return built.directory


def other_uses(table: Path) -> str:
    """How a table is learnt of which no text could be read: its rows may be examples, or the text has another name."""
    new = f"bluejay new FOLDER {shlex.quote(str(table))}"
    return (
        f'`{new}` writes a recipe, in whose source text = "NAME" names another column; and a recipe with init and '
        f"data.train = [{{ shards = {json.dumps(str(table), ensure_ascii=False)} }}] learns answers to prompts"
    )


def check_corpus(path: Path, corpus: Path) -> None:
    """Raise ValueError if the recipe of a run that is there already does not train on this corpus."""
    prefixes = [prefix for part in recipes.load(TrainRecipe, path).data.train for prefix in part.prefixes]
    if (corpus / "tokens" / "train").resolve() not in [Path(prefix).resolve() for prefix in prefixes]:
        raise ValueError(f"{path.parent} holds a run of another text; {INSTEAD}")


def write_corpus_recipe(target: Path, directory: Path, init: str | None, force: bool) -> Path:
    """Write the recipe of the corpus, or find it as it was written for the same text before."""
    recipe, path = corpus_recipe_of(target, directory, name_of(directory), init), directory / "pile.toml"
    if path.exists() and not force:
        if places_of(recipes.load(PileRecipe, path)) != places_of(recipe):
            raise ValueError(f"{directory} holds a run of another text; {INSTEAD}")
        return path
    recipes.save(recipe, path)
    return path


def places_of(recipe: PileRecipe) -> list[dict[str, Any]]:
    """The sources of a corpus without what they leave out, by which a run knows its text again."""
    sources = recipes.plain(recipe)["component"][0]["source"]
    return [{key: value for key, value in source.items() if key not in ("exclude", "max_bytes")} for source in sources]


def corpus_recipe_of(
    target: Path, directory: Path, name: str, init: str | None, files_come_later: bool = False
) -> PileRecipe:
    """The recipe of a corpus of one file, or of all files in a folder but those that are written to `directory`, or as
    corpora and runs of this name. Raises FileNotFoundError if it is not there; ValueError if it cannot be read."""
    if not target.exists():
        raise FileNotFoundError(f"{target} is neither a recipe (NAME.toml) nor a text: there is no such file or folder")
    corpora = [Path(f"data/{name}{ending}") for ending in ("", ".stages", TEMPORARY, f".replaced{TEMPORARY}")]
    sources, size = sources_of(target, [directory, Path(f"runs/{name}"), *corpora])
    if not sources and files_come_later:
        sources, size = [tree_of(target, [])], USUAL_SIZE
    if not sources:
        raise ValueError(f"{target} holds no files")
    vocabulary = min(max(512, 1 << round(size / BYTES_PER_TOKEN_OF_VOCABULARY).bit_length()), 8192)
    tokenizer = {"path": init} if init else {"train": {"vocab_size": vocabulary}}
    values: dict[str, Any] = {
        "name": name,
        "tokenizer": tokenizer,
        "split": {"valid": 0.02, "test": 0.0},
        "component": [{"name": name, "licence": "unknown", "source": sources}],
    }
    return recipes.check(PileRecipe, values, str(target))


def sized(corpus: Path, directory: Path, name: str, init: str | None, seconds: float) -> TrainRecipe:
    """The recipe of the run that takes about `seconds` on this machine, by a trial of its speed."""
    n_tokens = len(TokenShard(corpus / "tokens" / "train").tokens)
    if n_tokens < LEAST_TOKENS:
        raise ValueError(f"the text gives {n_tokens:,} tokens, too few to train on; give more text, and --force")
    trial = max(1.0, TRIAL_SHARE * seconds)
    began = time.monotonic()
    if init is not None:
        chosen = training_recipe(corpus, name, init, 0, 0, 1_000_000)
        speed = speed_of(chosen, trial)
    else:
        chosen, speed = choose_size(corpus, name, seconds, n_tokens, trial)
    left = seconds - (time.monotonic() - began) - FINISH_SECONDS
    # An evaluation is a forward pass, a third of the work of a step.
    left -= EVALUATIONS * chosen.evaluate.tokens / (3 * speed)
    tokens, most = int(max(0.1 * seconds, left) * speed), MOST_EPOCHS * n_tokens
    if tokens > most:
        say(
            f"the text gives {n_tokens:,} tokens, which more than {MOST_EPOCHS} epochs teach nothing new; "
            f"the run takes {format_duration(most / speed)} in place of {format_duration(seconds)}"
        )
    shape = chosen.model.get("n_layer", 0), chosen.model.get("d_model", 0)
    recipe = training_recipe(corpus, name, init, *shape, min(tokens, most))
    epochs = recipe.train.tokens / n_tokens
    say(f"{speed:,.0f} tokens/s: about {recipe.train.tokens:,} tokens, {epochs:.1f} epochs")
    tokens = max(recipe.train.batch_tokens, int(FIRST_SHARE * recipe.train.tokens))
    warmup = max(recipe.train.schedule.warmup, warmup_of(tokens, recipe.train.batch_tokens))
    schedule = Schedule(FIRST_SCHEDULE, warmup, final=recipe.train.schedule.final)
    return dataclasses.replace(
        recipe, output=str(directory), train=dataclasses.replace(recipe.train, tokens=tokens, schedule=schedule)
    )


def with_cooldown(recipe: TrainRecipe, trained: Trained, corpus: Path, seconds: float) -> TrainRecipe:
    """The recipe that continues the first part of a run to its end in about `seconds`, by the speed that it had."""
    done, batch = recipe.train.tokens, recipe.train.batch_tokens
    speed = trained.steps * batch / max(trained.seconds, 1e-9)
    usual = (1 - FIRST_SHARE) / FIRST_SHARE * done
    more = min(max(0.2 * usual, speed * (seconds - FINISH_SECONDS)), 10 * usual)
    most = MOST_EPOCHS * len(TokenShard(corpus / "tokens" / "train").tokens)
    tokens = max(done + batch, min(int(done + more), most))
    cooldown = min(0.3, (tokens - done) / tokens)
    schedule = dataclasses.replace(recipe.train.schedule, kind="wsd", cooldown=cooldown)
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, tokens=tokens, schedule=schedule))


def choose_size(corpus: Path, name: str, seconds: float, n_tokens: int, trial: float) -> tuple[TrainRecipe, float]:
    """The largest model that sees enough tokens in the time, and its speed in tokens per second."""
    chosen: tuple[TrainRecipe, float] | None = None
    vocab_size = Tokenizer.load(corpus).vocab_size
    for n_layer, d_model in SIZES:
        recipe = training_recipe(corpus, name, None, n_layer, d_model, 1_000_000)
        speed = speed_of(recipe, trial)
        config = recipe.gpt_config(vocab_size)
        tokens = min(speed * seconds, MOST_EPOCHS * n_tokens)
        if chosen is not None and tokens < LEAST_TOKENS_PER_PARAMETER * config.n_parameters:
            break
        chosen = recipe, speed
        # The next size is about twice as slow; one that is sure to see too little is not tried.
        if tokens / 2 < 0.7 * LEAST_TOKENS_PER_PARAMETER * config.n_parameters:
            break
    assert chosen is not None
    return chosen


def training_recipe(corpus: Path, name: str, init: str | None, n_layer: int, d_model: int, tokens: int) -> TrainRecipe:
    """A recipe for a corpus: a GPT-J of a size, or the further training of the model `init`."""
    length = 512 if init or d_model > 192 else 256
    if init is not None:
        length = min(length, open_model(locate(init)).config.n_ctx)
    held_out = len(TokenShard(corpus / "tokens" / "valid").tokens) if (corpus / "tokens").is_dir() else 10**6
    batch = min(max(2 * length, 1 << max(0, round(tokens / 1000).bit_length() - 1)), 16_384)
    steps = max(LEAST_STEPS, tokens // batch)
    head = 32 if d_model < 384 else 64
    values: dict[str, Any] = {
        "name": name,
        "data": {"train": [{"shards": str(corpus / "tokens" / "train")}], "sequence_length": length},
        "train": {
            "tokens": max(tokens, LEAST_STEPS * batch),
            "batch_tokens": batch,
            "schedule": {"kind": "wsd", "warmup": warmup_of(steps * batch, batch), "cooldown": 0.3, "final": 0.0},
            "optimizer": {"kind": "adamw", "betas": [0.9, 0.98], "weight_decay": 0.1},
        },
        "evaluate": {"every_steps": max(1, steps // EVALUATIONS), "tokens": min(32_768, max(length, held_out))},
        "checkpoint": {"every_steps": max(1, steps // EVALUATIONS), "every_minutes": 5.0},
    }
    if init is None:
        values["model"] = {
            "preset": "gpt-j",
            "n_layer": n_layer,
            "d_model": d_model,
            "n_head": d_model // head,
            "rotary_dim": head // 2,
        }
        values["train"]["lr"] = round(3e-3 * min(1.0, (192 / d_model) ** 0.75), 5)
    else:
        large = open_model(locate(init)).config.n_parameters > SMALL_MODEL
        values |= {"init": init} | ({"lora": {"rank": 16, "alpha": 32.0}} if large else {})
        values["train"]["lr"] = 1e-3 if large else 5e-4
    return recipes.check(TrainRecipe, values, "the recipe")


def warmup_of(tokens: int, batch_tokens: int) -> float:
    """The share of a run in which the learning rate rises, at least one step of it."""
    return max(0.03, 1.01 / -(-tokens // batch_tokens))


def speed_of(recipe: TrainRecipe, seconds: float) -> float:
    """Training tokens per second of a recipe on this machine, by some of its steps, which are thrown away."""
    with (
        tempfile.TemporaryDirectory() as folder,
        parallel.init_world(recipe.mesh, timeout(recipe)) as world,
        within_memory(),
    ):
        run = Run(dataclasses.replace(recipe, output=folder), world)
        durations: list[float] = []
        while len(durations) < 4 or sum(durations[2:]) < seconds:
            began = time.perf_counter()
            run.stepper.gradient(run.batches.batch(len(durations), world.data_shard))
            run.stepper.update(0.0)
            durations.append(time.perf_counter() - began)
    measured = durations[2:]  # the first ones are slower: memory is allocated, kernels are chosen
    return recipe.train.batch_tokens * len(measured) / sum(measured)
