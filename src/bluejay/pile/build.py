"""A corpus from a recipe, stage by stage; a build that was cut off, or whose recipe was changed, does what is missing.

DIRECTORY/documents/{train,valid,test,dropped,aside}.parquet/   id, text, source, licence, url, meta (JSON)
DIRECTORY/tokens/{train,valid,test}.bin and .idx                the shards (`bluejay.tokens`)
DIRECTORY/tokens/documents.parquet                              every document's place in them
DIRECTORY/jsonl/{train,valid,test}/                             the documents as The Pile was published, if asked for
DIRECTORY/tokenizer.json, recipe.toml, SHA256SUMS, report.json
DIRECTORY.stages/                                               what the stages left for the next build
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bluejay.files import atomic_directory, recover_directory
from bluejay.pile.pipeline.executor import Engine
from bluejay.pile.pipeline.graph import Stages
from bluejay.pile.pipeline.task import locked, sweep
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report import counts as reports
from bluejay.pile.report.counts import Report
from bluejay.pile.steps.assemble import assemble
from bluejay.progress import say
from bluejay.recipe import plain, save

CONTENTS = {"documents", "tokens", "jsonl", "card", "tokenizer.json", "tokenizer_config.json", "recipe.toml"}
CONTENTS |= {"SHA256SUMS", reports.NAME}


@dataclass(frozen=True)
class Built:
    """A whole corpus."""

    directory: Path
    report: Report
    fresh: bool
    """False where it was there already and nothing had to be done."""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON's types, with the directory."""
        return {"directory": str(self.directory), "fresh": self.fresh, **asdict(self.report)}

    def summary(self) -> str:
        """A table of a few lines: documents, bytes and tokens of each component and split."""
        rows = [("component", "split", "documents", "bytes", "tokens")]
        for name, component in self.report.components.items():
            for split, part in component.splits.items():
                if part.documents:
                    rows.append((name, split, f"{part.documents:,}", f"{part.bytes:,}", f"{part.tokens:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ["  ".join(map(padded, row, widths, range(5))) for row in rows]
        dropped = sum(sum(component.dropped.values()) for component in self.report.components.values())
        aside = sum(sum(component.set_aside.values()) for component in self.report.components.values())
        lines.append(f"{dropped:,} documents dropped, {aside:,} files set aside (reasons in {reports.NAME})")
        lines.append(f"{self.report.vocab_size:,} tokens in the vocabulary")
        return "\n".join([*lines, f"in {self.directory}"])


def padded(cell: str, width: int, column: int) -> str:
    """A cell of the summary: names to the left, numbers to the right."""
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def build(recipe: PileRecipe, engine: Engine | None = None) -> Built:
    """Build the corpus of a recipe in `recipe.directory`, unless it is there already, whole and from this recipe.

    Without an engine the work is done in this process.
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
    work = directory.with_name(f"{directory.name}.stages")
    with locked(work):
        report = Report(recipe.name, digest)
        stages = Stages(recipe, engine or Engine(), work, report)
        stages.run()
        with atomic_directory(directory) as temporary:
            assemble(stages, temporary)
            save(recipe, temporary / "recipe.toml")
            report.save(temporary)
        sweep(work, stages.used)
    return Built(directory, report, fresh=True)


def require_replaceable(directory: Path) -> None:
    """Raises ValueError where building would remove what no build has made."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; the corpus needs a folder")
    others = sorted(path.name for path in directory.glob("*") if path.name not in CONTENTS)
    if others:
        raise ValueError(f"{directory} holds {others[0]}, which is no part of a corpus; set output to another folder")
