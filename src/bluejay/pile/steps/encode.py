"""Tokenize the documents of a part, and give every copy of a document its place in the shuffled order."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.files import sha256_of
from bluejay.pile.recipe import Split
from bluejay.pile.steps.dedup import CONTAMINATED, DROP_REASONS, Decisions
from bluejay.pile.steps.export import jsonl_lines
from bluejay.pile.steps.mix import SPLITS, copies_of, shuffle_keys
from bluejay.pile.steps.passages import cut_passages
from bluejay.pile.steps.statistics import Statistics
from bluejay.pile.text.document_table import CLEAN, DROPPED, byte_lengths, read_batches, text_hashes
from bluejay.pile.text.encoder import Encoder
from bluejay.storage import ensure_local
from bluejay.tokenizer import Tokenizer

ENCODED = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "licence", "url", "component")]
    + [(name, pa.int64()) for name in ("bytes", "length", "line_bytes")]
    + [("split", pa.uint8()), ("text_hash", pa.uint64())]
)
"""Columns of an encoded document: `length` counts its tokens, `line_bytes` the bytes of its exported line."""


@dataclass(frozen=True)
class KeptDocuments:
    """Documents of one batch that stay in the corpus."""

    table: pa.RecordBatch
    """Rows of CLEAN."""
    splits: NDArray[np.uint8]
    """The split of each, an index in SPLITS, (n,)."""
    hashes: NDArray[np.uint64]
    """The text hash of each before passages were cut, which decides its copies and its places: (n,)."""


@dataclass(frozen=True)
class Encode:
    """Tokenize a part.

    Writes {train,valid,test}.parquet (CLEAN), dropped.parquet (DROPPED), tokens.bin and, for the export, lines.bin; and
    {train,valid,test}.arrow: a row per copy in shuffled order, with its place in tokens.bin and lines.bin. Counts what
    `Statistics` counts.
    """

    name: ClassVar[str] = "encode"
    clean: Path
    decisions: Path
    """The file that `Decide` wrote for this part."""
    passages: Path | None
    """The file that `LocatePassages` wrote for this part; None where passages stay."""
    component: str
    tokenizer: Path
    epochs: float
    split: Split
    seed: int
    test_reasons: tuple[str, ...]
    """The reasons for which documents are contaminated, in the order of their numbers."""
    jsonl: bool
    """Whether the documents are exported as JSON lines."""
    parallel: bool
    """Whether tokenizing may use all cores; it changes no output."""

    def key(self) -> list[Any]:
        """The documents, what was decided about them, the tokenizer, the mix and the export."""
        mix = [self.epochs, self.split.valid, self.split.test, self.seed, self.jsonl]
        files = [sha256_of(ensure_local(path)) for path in (self.decisions, self.passages) if path]
        return [self.clean.name, files, self.component, self.tokenizer.name, self.test_reasons, *mix]

    def run(self, out: Path) -> dict[str, Any]:
        statistics, tables = Statistics(self.seed), [ENCODED.empty_table()]
        encoder = load_encoder(self.tokenizer, self.parallel)
        with ExitStack() as stack:
            *split_files, dropped_file = (
                stack.enter_context(pq.ParquetWriter(out / f"{name}.parquet", schema, compression="zstd"))
                for name, schema in {**dict.fromkeys(SPLITS, CLEAN), "dropped": DROPPED}.items()
            )
            tokens_file, lines_file = (
                stack.enter_context((out / name).open("wb")) for name in ("tokens.bin", "lines.bin")
            )
            documents = self.kept_documents(dropped_file)
            if self.passages:
                documents = self.without_passages(documents, dropped_file, statistics)
            for kept in documents:
                for number, file in enumerate(split_files):
                    append(file, kept.table.filter(pa.array(kept.splits == number)))
                texts = kept.table["text"].to_pylist()
                ids, lengths = encoder(texts)
                tokens_file.write(ids.astype(encoder.dtype).data)
                lines = jsonl_lines(texts, self.component) if self.jsonl else [b""] * len(texts)
                lines_file.writelines(lines)
                sizes = byte_lengths(kept.table["text"])
                tables.append(self.encoded_rows(kept, sizes, lengths, [len(line) for line in lines]))
                statistics.add(kept.table, sizes, kept.splits, kept.hashes)
        table = pa.concat_tables(tables)
        for number, name in enumerate(SPLITS):
            copies = self.copies_in_order(table, number)
            totals = {"tokens": int(np.sum(copies["length"])), "line_bytes": int(np.sum(copies["line_bytes"]))}
            statistics.splits[name] |= totals
            with pa.OSFile(str(out / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, copies.schema) as file:
                file.write_table(copies.combine_chunks())
        return statistics.as_dict()

    def kept_documents(self, dropped_file: pq.ParquetWriter) -> Iterator[KeptDocuments]:
        """Yield the documents that stay, batch by batch, and write the others to the table of dropped documents."""
        decisions, hashes = Decisions.load(self.decisions), text_hashes(np.load(ensure_local(self.clean / "ids.npy")))
        splits, start = decisions.splits(self.split, self.seed), 0
        for batch in read_batches(self.clean / "documents.parquet"):
            rows = slice(start, start + len(batch))
            start, kept = rows.stop, decisions.kept[rows]
            append(dropped_file, dropped_rows(batch, decisions[rows], self.test_reasons))
            yield KeptDocuments(batch.filter(pa.array(kept)), splits[rows][kept], hashes[rows][kept])

    def without_passages(
        self, documents: Iterator[KeptDocuments], dropped_file: pq.ParquetWriter, statistics: Statistics
    ) -> Iterator[KeptDocuments]:
        """Cut the repeated passages out of the documents, and drop the documents of which nothing is left."""
        assert self.passages
        spans, first = np.load(ensure_local(self.passages)), 0
        for kept in documents:
            begin, end = np.searchsorted(spans[:, 0], [first, first + len(kept.table)])
            table, emptied, left = cut_passages(kept.table, spans[begin:end] - [first, 0, 0])
            first += len(kept.table)
            append(dropped_file, emptied)
            statistics.emptied += len(emptied)
            yield KeptDocuments(table, kept.splits[left], kept.hashes[left])

    def encoded_rows(
        self, kept: KeptDocuments, sizes: NDArray[np.int64], lengths: NDArray[np.int64], line_bytes: list[int]
    ) -> pa.Table:
        """The rows of ENCODED."""
        columns = {name: kept.table[name] for name in ("id", "source", "licence", "url")}
        columns |= {"component": pa.repeat(self.component, len(kept.table)), "bytes": sizes, "length": lengths}
        columns |= {"line_bytes": line_bytes, "split": kept.splits, "text_hash": kept.hashes}
        return pa.table(columns, schema=ENCODED)

    def copies_in_order(self, table: pa.Table, split: int) -> pa.Table:
        """A row per copy of the documents of a split, in the order of `shuffle_key`.

        `token_offset` and `line_offset` say where its tokens and its line begin in tokens.bin and lines.bin, in tokens
        and in bytes.
        """
        rows = np.flatnonzero(table["split"].to_numpy() == split)
        all_hashes = table["text_hash"].to_numpy()
        hashes = all_hashes[rows]
        times = copies_of(hashes, self.epochs, self.seed) if split == 0 else np.ones(len(rows), np.int64)
        n_copies = int(times.max(initial=0))
        keys = [shuffle_keys(hashes[times > copy], copy, self.seed) for copy in range(n_copies)]
        key = np.concatenate([np.empty(0, np.uint64), *keys])
        row = np.concatenate([np.empty(0, np.int64), *(rows[times > copy] for copy in range(n_copies))])
        order = np.lexsort((all_hashes[row], key))
        copies = table.take(pa.array(row[order])).drop_columns(["split", "text_hash"])
        copies = copies.append_column("shuffle_key", pa.array(key[order]))
        for name, column in (("token_offset", "length"), ("line_offset", "line_bytes")):
            offsets = np.cumsum(table[column].to_numpy()) - table[column].to_numpy()
            copies = copies.append_column(name, pa.array(offsets[row[order]]))
        return copies


def append(file: pq.ParquetWriter, rows: pa.RecordBatch) -> None:
    """Write rows as one row group, unless there are none."""
    if len(rows):
        file.write_batch(rows)


@cache
def load_encoder(tokenizer: Path, parallel: bool) -> Encoder:
    """The encoder of a tokenizer, loaded once per process: that takes a second, longer than many parts."""
    return Encoder(Tokenizer.load(ensure_local(tokenizer)), parallel)


def dropped_rows(batch: pa.RecordBatch, decisions: Decisions, test_reasons: tuple[str, ...]) -> pa.RecordBatch:
    """The documents of a batch that are dropped, as rows of DROPPED."""
    dropped = ~decisions.kept
    kinds = decisions.decision[dropped].tolist()
    ids = zip(decisions.representative_id[dropped], kinds, strict=True)
    representatives = [bytes(id).hex() if kind < CONTAMINATED else None for id, kind in ids]
    reasons = (*DROP_REASONS, *test_reasons)
    rows = batch.filter(pa.array(dropped)).append_column("reason", pa.array([reasons[kind - 1] for kind in kinds]))
    return rows.append_column("of", pa.array(representatives, pa.string())).cast(DROPPED)
