"""One command from a user's own text to a model, `bluejay train FILE`; `bluejay new` only writes the recipes.

Two recipes are written beside the run, one for the corpus and one for the model. The model's size and its number of
tokens follow from the speed of this machine and the minutes that the run may take.
"""

import math
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from bluejay import recipe as recipes
from bluejay.files import require_writable, write_texts
from bluejay.own_text.corpus import INSTEAD, check_corpus, corpus_made_of, corpus_recipe_of, is_corpus, name_of
from bluejay.own_text.sizes import FIRST_SCHEDULE, FIRST_SHARE, sized, training_recipe, with_cooldown
from bluejay.progress import format_duration, say
from bluejay.train.checkpoint.checkpoints import Checkpoints
from bluejay.train.checkpoint.owner import owned
from bluejay.train.loop import Trained, train
from bluejay.train.recipe import Checkpoint, TrainRecipe, directory_of
from bluejay.train.report.compressor import xz_bits_per_byte

LEAST_SHARE = 0.25
"""Share of the time that training has in any case, on a machine that needs the rest, or more, to prepare the text."""


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
    directory = directory_of(name or name_of(target), output).expanduser()
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
