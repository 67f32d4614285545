"""The corpus of a user's own text: its recipe, and what the build says of it."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from pyarrow.dataset import dataset

from bluejay import recipe as recipes
from bluejay.files import TEMPORARY
from bluejay.pile.build import BuildResult, build
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.sources.folder import sources_of, tree_of
from bluejay.progress import say
from bluejay.train.recipe import TrainRecipe, is_examples

BYTES_PER_TOKEN_OF_VOCABULARY = 500
"""Text for each token of a new vocabulary: rarer ones would hardly be learnt."""
USUAL_SIZE = 4_000_000
"""Bytes of text that are expected where none is there yet."""
MOST_REASONS = 8
"""Reasons for leaving files out that are said one by one."""
INSTEAD = "give this one a --name, or replace that one by --force"
"""What to do where a run's name is taken."""


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


def say_skipped(built: BuildResult) -> None:
    """Say how much of a text gave no document, the most frequent reasons, each with an example, and where all files are
    listed."""
    if not any(component.skipped for component in built.report.components.values()):
        return
    listed = built.directory / "documents" / "skipped.parquet"
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for rows in dataset(listed).to_batches(columns=["name", "reason"]):
        for row in rows.to_pylist():
            reason = row["reason"].partition(":")[0]
            counts[reason] += 1
            examples.setdefault(reason, Path(row["name"]).name)
    say(f"files or records that were left out: {counts.total():,}; {listed} lists them")
    for reason, n in counts.most_common(MOST_REASONS):
        say(f"  {n:,}{',' if n == 1 else ' such as'} {examples[reason]}: {reason}")
    if others := counts.most_common()[MOST_REASONS:]:
        say(f"  {sum(n for _, n in others):,} for other reasons")


def other_uses(table: Path) -> str:
    """How a table is learnt of which no text could be read: its rows may be examples, or the text has another name."""
    new = f"bluejay new FOLDER {shlex.quote(str(table))}"
    return (
        f'`{new}` writes a recipe, in whose source text = "NAME" names another column; to learn answers to prompts, '
        "copy a recipe by `bluejay recipes train/chat`, and name the file in it: "
        f"data.train = [{{ shards = {json.dumps(str(table), ensure_ascii=False)} }}]"
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


def name_of(target: Path) -> str:
    """A name for a run, after the file or the folder."""
    name = target.resolve().name
    return re.sub(r"[^\w.-]+", "-", name.split(".")[0] or name).strip("-.") or "text"


def is_corpus(target: Path) -> bool:
    """Whether a folder is a corpus that `bluejay pile build` made."""
    return (target / "tokens" / "train.idx").is_file() and (target / "tokenizer.json").is_file()
