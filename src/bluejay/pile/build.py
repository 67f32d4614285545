"""A corpus from a recipe: gather, split, learn a tokenizer, write token shards. All of it, or nothing.

DIRECTORY/documents/{train,valid,test}.parquet     id, text, source, licence, url, meta (JSON)
DIRECTORY/tokens/{train,valid,test}.bin and .idx   the shards (`bluejay.tokens`)
DIRECTORY/tokens/documents.parquet                 id, source, licence, url, component, bytes, shard, offset, length
DIRECTORY/tokenizer.json, recipe.toml, report.json
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay.files import atomic_directory, recover_directory
from bluejay.pile import report as reports
from bluejay.pile.gather import SPLITS, gather
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report import Report
from bluejay.pile.shards import new_tokenizer, write_shards
from bluejay.progress import say
from bluejay.recipe import plain, save
from bluejay.tokenizer import Tokenizer

CONTENTS = {"documents", "tokens", "tokenizer.json", "tokenizer_config.json", "recipe.toml", reports.NAME}


@dataclass(frozen=True)
class Built:
    """A whole corpus."""

    directory: Path
    report: Report
    fresh: bool
    """False where it was there already and nothing had to be done."""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON's types, with the directory."""
        return {"directory": str(self.directory), "fresh": self.fresh, **reports.asdict_plain(self.report)}

    def summary(self) -> str:
        """A table of a few lines: documents, bytes and tokens of each component and split."""
        rows = [("component", "split", "documents", "bytes", "tokens")]
        for name, splits in self.report.parts.items():
            for split in (split for split in SPLITS if split in splits):
                part = splits[split]
                rows.append((name, split, f"{part.documents:,}", f"{part.bytes:,}", f"{part.tokens:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ["  ".join(map(padded, row, widths, range(5))) for row in rows]
        duplicates = sum(self.report.duplicates.values())
        aside = sum(map(len, self.report.set_aside.values()))
        lines.append(f"{duplicates:,} duplicates dropped, {aside:,} files set aside (reasons in {reports.NAME})")
        lines.append(f"{self.report.vocab_size:,} tokens in the vocabulary")
        return "\n".join([*lines, f"in {self.directory}"])


def padded(cell: str, width: int, column: int) -> str:
    """A cell of the summary: names to the left, numbers to the right."""
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def build(recipe: PileRecipe) -> Built:
    """Build the corpus of a recipe in `recipe.directory`, unless it is there already, whole and from this recipe.

    Raises ValueError: a component without documents, a directory that holds other things; OSError: what a disk can do.
    """
    directory = recipe.directory
    recover_directory(directory)
    digest = hashlib.sha256(json.dumps(plain(recipe), sort_keys=True).encode()).hexdigest()
    built = Report.load(directory)
    if built and built.recipe_sha256 == digest:
        say(f"{directory} is built from this recipe already; remove it to read the sources anew")
        return Built(directory, built, fresh=False)
    require_replaceable(directory)
    with atomic_directory(directory) as temporary:
        report = Report(recipe.name, digest)
        gather(recipe, temporary / "documents", report)
        require_training_text(recipe, report)
        tokenizer = choose_tokenizer(recipe, temporary / "documents", report)
        tokenizer.save(temporary)
        write_shards(recipe, tokenizer, temporary / "documents", temporary / "tokens", report)
        save(recipe, temporary / "recipe.toml")
        report.save(temporary)
    return Built(directory, report, fresh=True)


def require_replaceable(directory: Path) -> None:
    """Raises ValueError where building would remove what no build has made."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; the corpus needs a folder")
    others = sorted(path.name for path in directory.glob("*") if path.name not in CONTENTS)
    if others:
        raise ValueError(f"{directory} holds {others[0]}, which is no part of a corpus; set output to another folder")


def require_training_text(recipe: PileRecipe, report: Report) -> None:
    """Raises ValueError where nothing is left to train on; says which held-out part is empty."""
    if not report.total("train").documents:
        raise ValueError("no document fell in the training part; give more text or lower split.valid and split.test")
    for split, share in (("valid", recipe.split.valid), ("test", recipe.split.test)):
        if share and not report.total(split).documents:
            say(f"no document fell in the {split} part; give more text or raise split.{split}")


def choose_tokenizer(recipe: PileRecipe, documents: Path, report: Report) -> Tokenizer:
    """The tokenizer that the recipe names, or a new one."""
    choice = recipe.tokenizer
    if choice.train is None:
        assert choice.path is not None
        tokenizer = Tokenizer.load(choice.path)
    else:
        tokenizer = new_tokenizer(choice.train, recipe.seed, documents, report.total("train").bytes)
        if tokenizer.vocab_size < choice.train.vocab_size:
            say(f"the text gives only {tokenizer.vocab_size:,} of the {choice.train.vocab_size:,} tokens asked for")
    report.vocab_size, report.tokenizer_sha256 = tokenizer.vocab_size, tokenizer.sha256
    return tokenizer
