"""The last step: put the outputs of the other steps under their final names, with a checksum of each file."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bluejay.files import sha256_of, write_text
from bluejay.pile.steps.mix import SPLITS
from bluejay.pile.steps.shuffle import LINES
from bluejay.progress import progress
from bluejay.storage import ensure_local
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenWriter, dtype_for

CHECKSUMS = "SHA256SUMS"
"""The name of the file with the checksums, in the folder of the corpus."""


@dataclass(frozen=True)
class Corpus:
    """The outputs of the steps that a finished corpus is assembled from."""

    tables: dict[str, list[Path]]
    """The Parquet files of each table of documents: train, valid, test, dropped and skipped."""
    buckets: dict[str, list[Path]]
    """The folders of the buckets that `Shuffle` sorted, for each split, in order."""
    tokenizer: Path
    jsonl: bool
    """Whether the documents are exported as JSON lines."""


def assemble(corpus: Corpus, directory: Path) -> None:
    """Fill `directory` with documents, tokens, tokenizer and checksums; files are linked where that is possible."""
    for name, files in corpus.tables.items():
        link_table(files, directory / "documents" / f"{name}.parquet")
    tokenizer = Tokenizer.load(ensure_local(corpus.tokenizer))
    tokenizer.save(directory)
    write_shards(corpus.buckets, tokenizer.vocab_size, directory / "tokens")
    if corpus.jsonl:
        for split, buckets in corpus.buckets.items():
            (directory / "jsonl" / split).mkdir(parents=True)
            for number, bucket in enumerate(buckets):
                link(ensure_local(bucket / LINES), directory / "jsonl" / split / f"{number:05}.jsonl.zst")
    write_checksums(directory)


def link_table(files: list[Path], directory: Path) -> None:
    """Link the Parquet files that have rows into one folder; where none has, link one for its columns."""
    directory.mkdir(parents=True)
    files = [ensure_local(file) for file in files]
    filled = [file for file in files if pq.read_metadata(file).num_rows]
    for number, file in enumerate(filled or files[:1]):
        link(file, directory / f"{number:05}.parquet")


def link(source: Path, target: Path) -> None:
    """Create a hard link to a file, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_shards(buckets: dict[str, list[Path]], vocab_size: int, tokens: Path) -> None:
    """Write `tokens/{train,valid,test}` and `tokens/documents.parquet` from the buckets of each split."""
    tokens.mkdir()
    first = pq.read_schema(ensure_local(buckets[SPLITS[0]][0] / "table.parquet"))
    schema = pa.schema([*first, ("shard", pa.string()), ("offset", pa.int64())])
    with (
        progress("shards", sum(map(len, buckets.values())), "buckets") as bar,
        pq.ParquetWriter(tokens / "documents.parquet", schema, compression="zstd") as documents,
    ):
        for split in SPLITS:
            with TokenWriter(tokens / split, vocab_size) as shard:
                for bucket in buckets[split]:
                    table = pq.read_table(ensure_local(bucket / "table.parquet"))
                    sizes, begin = table["length"].to_numpy(), shard.length
                    shard.extend(np.fromfile(ensure_local(bucket / "tokens.bin"), dtype_for(vocab_size)), sizes)
                    table = table.append_column("shard", pa.array([split] * len(table), pa.string()))
                    table = table.append_column("offset", pa.array(begin + np.cumsum(sizes) - sizes, pa.int64()))
                    if len(table):
                        documents.write_table(table)
                    bar.advance(1)


def write_checksums(directory: Path) -> None:
    """Write SHA256SUMS, which `sha256sum --check` reads."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    lines = []
    with progress("checksums", sum(file.stat().st_size for file in files), "B") as bar:
        for file in files:
            lines.append(f"{sha256_of(file)}  {file.relative_to(directory).as_posix()}\n")
            bar.advance(file.stat().st_size)
    write_text(directory / CHECKSUMS, "".join(lines))
