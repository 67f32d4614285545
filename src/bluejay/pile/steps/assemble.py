"""The corpus as it is read: what the stages left, under its final names, and a checksum of each file."""

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from bluejay.files import sha256_of, write_text
from bluejay.pile.pipeline.graph import Stages
from bluejay.pile.steps.mix import SPLITS
from bluejay.pile.steps.shuffle import LINES, join_buckets
from bluejay.progress import progress
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import dtype_for

CHECKSUMS = "SHA256SUMS"


def assemble(stages: Stages, directory: Path) -> None:
    """Fill `directory` with documents, tokens, tokenizer and checksums; files of stages are linked, not copied."""
    for split in SPLITS:
        link_tables(
            [path / f"{split}.parquet" for path in stages.encoded], directory / "documents" / f"{split}.parquet"
        )
    dropped = [path / "dropped.parquet" for path in (*stages.clean, *stages.encoded)]
    link_tables(dropped, directory / "documents" / "dropped.parquet")
    link_tables([path / "aside.parquet" for path in stages.raw], directory / "documents" / "aside.parquet")
    tokenizer = Tokenizer.load(stages.tokenizer)
    tokenizer.save(directory)
    buckets = {split: [task.directory for task in tasks] for split, tasks in stages.buckets.items()}
    join_buckets(buckets, tokenizer.vocab_size, dtype_for(tokenizer.vocab_size), directory / "tokens")
    if stages.recipe.jsonl:
        for split, directories in buckets.items():
            (directory / "jsonl" / split).mkdir(parents=True)
            for number, bucket in enumerate(directories):
                link(bucket / LINES, directory / "jsonl" / split / f"{number:05}.jsonl.zst")
    write_checksums(directory)


def link_tables(files: list[Path], directory: Path) -> None:
    """A folder of Parquet files, read as one table; those without rows are left out, but one stays for its columns."""
    directory.mkdir(parents=True)
    filled = [file for file in files if pq.read_metadata(file).num_rows]
    for number, file in enumerate(filled or files[:1]):
        link(file, directory / f"{number:05}.parquet")


def link(source: Path, target: Path) -> None:
    """A second name for a file, or where the file system has none, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_checksums(directory: Path) -> None:
    """SHA256SUMS, which `sha256sum --check` reads."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    lines = []
    with progress("checksums", sum(file.stat().st_size for file in files), "B") as bar:
        for file in files:
            lines.append(f"{sha256_of(file)}  {file.relative_to(directory).as_posix()}\n")
            bar.advance(file.stat().st_size)
    write_text(directory / CHECKSUMS, "".join(lines))
