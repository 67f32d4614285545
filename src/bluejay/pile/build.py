"""Build a corpus from a recipe. A build that was killed, or whose recipe was changed, runs only the missing steps.

DIRECTORY/documents/{train,valid,test,dropped,skipped}.parquet/   id, text, source, licence, url, meta (JSON)
DIRECTORY/tokens/{train,valid,test}.bin and .idx                  the shards (`bluejay.tokens`)
DIRECTORY/tokens/documents.parquet                                the place of every document in the shards
DIRECTORY/jsonl/{train,valid,test}/                               the documents as The Pile was published, on request
DIRECTORY/tokenizer.json, recipe.toml, SHA256SUMS, report.json
DIRECTORY.stages/                                                 the outputs of the steps, for the next build

With object storage, the corpus is copied to STORAGE/corpus and the outputs to STORAGE/stages.
"""

import fnmatch
import hashlib
import json
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bluejay.fetch import without_credentials
from bluejay.files import atomic_directory, parse_json, recover_directory, sha256_of
from bluejay.pile.pipeline.check import require_usable
from bluejay.pile.pipeline.executor import Executor
from bluejay.pile.pipeline.graph import Pipeline
from bluejay.pile.pipeline.runner import Runner
from bluejay.pile.pipeline.task import locked, remove_unused
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report import counts
from bluejay.pile.report.counts import Report
from bluejay.pile.steps.assemble import CHECKSUMS, assemble, link
from bluejay.progress import counted, say
from bluejay.recipe import check, plain, save
from bluejay.storage import Storage
from bluejay.tokens import DOCUMENTS_TABLE

INDEX = "index"
"""The folder with the index of the tokens (`bluejay.trace`), of which a new build keeps what still fits."""
INDEX_ROWS = "documents.rows"
"""The file of the index with what the table of documents says."""
RECIPE = "recipe.toml"
"""The name of the file with the recipe, in the folder of a corpus."""
CONTENTS = {"documents", "tokens", "jsonl", "card", "tokenizer.json", "tokenizer_config.json", RECIPE}
"""The names of all that a build, or a verb for a built corpus, writes into the corpus's folder."""
CONTENTS |= {CHECKSUMS, counts.NAME, INDEX}
BY_THE_SYSTEM = (".DS_Store", "._*", ".directory", "Thumbs.db", "desktop.ini", ".nfs*")
"""Patterns of files that file managers and network file systems leave in any folder."""


@dataclass(frozen=True)
class BuildResult:
    """A complete corpus."""

    directory: Path
    report: Report
    fresh: bool
    """Whether this build wrote the corpus; False where it was already up to date."""

    def as_dict(self) -> dict[str, Any]:
        """The directory and the report as JSON types."""
        return {"directory": str(self.directory), "fresh": self.fresh, **asdict(self.report)}

    def summary(self) -> str:
        """A table of the documents, bytes and tokens of each component and split."""
        rows = [("component", "split", "documents", "bytes", "tokens")]
        for name, component in self.report.components.items():
            for split, part in component.splits.items():
                if part.documents:
                    rows.append((name, split, f"{part.documents:,}", f"{part.bytes:,}", f"{part.tokens:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ["  ".join(map(align, row, widths, range(5))) for row in rows]
        dropped = sum(sum(component.dropped.values()) for component in self.report.components.values())
        skipped = sum(sum(component.skipped.values()) for component in self.report.components.values())
        pieces = counted(skipped, "piece of a source", "pieces of sources")
        lines.append(f"{counted(dropped, 'document')} dropped, {pieces} skipped (reasons in {counts.NAME})")
        lines.append(f"{self.report.vocab_size:,} tokens in the vocabulary")
        return "\n".join([*lines, f"in {self.directory}"])


def align(cell: str, width: int, column: int) -> str:
    """Pad a cell of the summary: names to the left, numbers to the right."""
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def build(recipe: PileRecipe, executor: Executor | None = None, force: bool = False) -> BuildResult:
    """Build the corpus of a recipe in `recipe.directory`, unless a complete corpus of the same recipe is there.

    Without an executor, all work is done in this process. With `force` a
    corpus of the same recipe, whose files may have changed, and one of other sources are replaced.

    Raises ValueError: the recipe names what is not there, a component has no documents, or the directory or the storage
    holds a corpus of other sources, or other files; OSError: the disk is full or cannot be written.
    """
    directory = recipe.directory
    recover_directory(directory)
    storage = Storage(recipe.storage) if recipe.storage else None
    public = check(PileRecipe, without_credentials(plain(recipe)), "the recipe")
    if storage:
        storage.check()
        require_replaceable_stored(storage.at("corpus"))
        if not force:
            require_same_sources_stored(storage.at("corpus"), public)
    settings = {name: value for name, value in plain(public).items() if name not in (INDEX, "storage")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    built = Report.load(directory)
    if built and built.recipe_sha256 == digest and not force:
        say(
            f"{directory} is built from this recipe already; --force builds it from the files as they are now, or "
            f"remove it and {recipe.stages} to read all files again (those that were downloaded stay in the cache)"
        )
        if storage:
            copy(directory, storage)
        return BuildResult(directory, built, fresh=False)
    require_replaceable(directory)
    if not force:
        require_same_sources(directory, public)
    require_usable(recipe)
    with locked(recipe.stages):
        report = Report(recipe.name, digest)
        outputs = storage.at("stages") if storage else None
        runner = Runner(executor or Executor(), recipe.stages, storage=outputs)
        corpus = Pipeline(recipe, runner, report).run()
        with atomic_directory(directory) as temporary:
            assemble(corpus, temporary)
            save(public, temporary / RECIPE)
            keep_index(directory, temporary)
            report.save(temporary)
        if storage:
            copy(directory, storage)
        remove_unused(recipe.stages, runner.used, outputs)
    return BuildResult(directory, report, fresh=True)


def keep_index(before: Path, now: Path) -> None:
    """Link the index of the corpus that was there into the new one: `bluejay index` uses what fits the new tokens. Its
    rows are left out where the table of documents is another, so that the index counts as half built."""
    tables = [directory / "tokens" / DOCUMENTS_TABLE for directory in (before, now)]
    same_table = tables[0].is_file() and sha256_of(tables[0]) == sha256_of(tables[1])
    for file in before.glob(f"{INDEX}/*"):
        if same_table or file.name != INDEX_ROWS:
            (now / INDEX).mkdir(exist_ok=True)
            link(file, now / INDEX / file.name)


def copy(directory: Path, storage: Storage) -> None:
    """Copy a corpus to object storage, its checksums last, unless it is there."""
    place = storage.at("corpus")
    sums = place.read(CHECKSUMS) if place.exists(CHECKSUMS) else b""
    if sums != (directory / CHECKSUMS).read_bytes():
        say(f"copying the corpus to {place.address}")
        place.put(directory / RECIPE, RECIPE)  # by which a later build knows what an interrupted copy left
        storage.put_directory(directory, "corpus", CHECKSUMS)


def require_same_sources(directory: Path, recipe: PileRecipe) -> None:
    """Raise ValueError where the directory holds a corpus that `is_another`."""
    try:
        saved = (directory / RECIPE).read_bytes()
    except OSError:
        return
    if names := is_another(saved, recipe):
        raise ValueError(
            f"{directory} holds a corpus of other sources ({names}); "
            "set name or output to another folder, or replace it by --force"
        )


def require_same_sources_stored(place: Storage, recipe: PileRecipe) -> None:
    """Raise ValueError where a place in object storage holds a corpus that `is_another`."""
    if place.exists(RECIPE) and (names := is_another(place.read(RECIPE), recipe)):
        raise ValueError(
            f"{place.address} holds a corpus of other sources ({names}); "
            "set storage to another folder, or replace it by --force"
        )


def is_another(saved: bytes, recipe: PileRecipe) -> str:
    """The first components of a corpus, by the recipe saved with it, where it shares no source with a recipe and so is
    another one's; empty where it shares one, or the saved recipe cannot be read.

    A source is known by its kind, path and package, whatever else of it a recipe changed.
    """
    try:
        before = without_credentials(tomllib.loads(saved.decode()))["component"]
        now = plain(recipe)["component"]
        places, others = ({place_of(source) for part in parts for source in part["source"]} for parts in (now, before))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return ""
    return ", ".join(component["name"] for component in before[:3]) if places.isdisjoint(others) else ""


def place_of(source: dict[str, Any]) -> tuple[str | None, ...]:
    """What names the files of a source, in a recipe."""
    return tuple(source.get(field) for field in ("kind", "path", "name"))


def require_replaceable(directory: Path) -> None:
    """Raise ValueError where the directory holds anything that no build wrote: building would remove it.

    Names alone do not tell a corpus from a user's `jsonl` or `documents`; its report does, without which no build ends.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; the corpus needs a folder")
    held, others = contents_of(path.name for path in directory.glob("*"))
    if others:
        raise ValueError(f"{directory} holds {others[0]}, which is not part of a corpus; set output to another folder")
    if held and not has_report(directory):
        raise ValueError(
            f"{directory} holds {held[0]}, but no {counts.NAME} of a corpus; set output to another folder, or remove it"
        )


def require_replaceable_stored(place: Storage) -> None:
    """Raise ValueError where a place in object storage holds anything that no build copied there. An interrupted copy
    may lack the report, but no copy lacks the recipe."""
    held, others = contents_of({name.partition("/")[0] for name in place.files()})
    if others:
        raise ValueError(
            f"{place.address} holds {others[0]}, which is not part of a corpus; set storage to another folder"
        )
    if held and RECIPE not in held:
        raise ValueError(
            f"{place.address} holds {held[0]}, but no {RECIPE} of a corpus; set storage to another folder, or remove it"
        )


def contents_of(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """What a folder holds, without the files that file managers leave there; and what of it is no part of a corpus."""
    held = [name for name in sorted(names) if not any(fnmatch.fnmatchcase(name, one) for one in BY_THE_SYSTEM)]
    return held, [name for name in held if name not in CONTENTS]


def has_report(directory: Path) -> bool:
    """Whether a build of any version wrote the report in the directory."""
    try:
        return "recipe_sha256" in parse_json((directory / counts.NAME).read_bytes())
    except (OSError, ValueError, TypeError):
        return False
