"""The tables of documents that pass from step to step: their columns, and how they are read, written and hashed.

They are Parquet files of row groups of about 16 MB of text, or less where other columns are large, which a step reads
and handles one at a time.
"""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.storage import ensure_local

RAW = pa.schema([(name, pa.string()) for name in ("text", "source", "licence", "url", "meta")])
"""Columns of a document as its source gave it."""
CLEAN = pa.schema([("id", pa.string()), *RAW])
"""Columns of a cleaned document; `id` is the sha256 of its text, in hexadecimal."""
DROPPED = pa.schema([*CLEAN, ("reason", pa.string()), ("of", pa.string())])
"""Columns of a dropped document: why it was dropped, and for copies the id of the document kept in its place."""
SKIPPED = pa.schema([(name, pa.string()) for name in ("component", "name", "reason")])
"""Columns of a piece of a source that gave no document."""
COMPRESSION = "lz4"
"""Compression of tables that only later steps read: decompression is faster than a disk."""
ROW_GROUP_BYTES = 16_000_000
"""Text that a writer holds in memory before it writes a row group."""
MOST_HELD = 16 * ROW_GROUP_BYTES
"""Characters of all columns that a writer holds at most, where metadata such as images are far larger than the text."""


class TableWriter:
    """Writes dictionaries into a Parquet file, one row group at a time; a context manager."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.writer = schema, pq.ParquetWriter(path, schema, compression=COMPRESSION)
        self.rows: list[dict[str, str]] = []
        self.buffered_bytes = self.held = self.count = 0

    def add(self, row: dict[str, str], size: int) -> None:
        """Append one row with about `size` bytes of text."""
        self.rows.append(row)
        self.count += 1
        self.buffered_bytes += size
        self.held += sum(map(len, row.values()))
        if self.buffered_bytes >= ROW_GROUP_BYTES or self.held >= MOST_HELD:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows as one row group."""
        self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows, self.buffered_bytes, self.held = [], 0, 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None and self.rows:
            self.flush()
        self.writer.close()


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield each row group of a Parquet file as one batch."""
    with pq.ParquetFile(ensure_local(path)) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns).combine_chunks().to_batches()


def read_texts(path: Path, wanted: NDArray[np.bool_]) -> Iterator[pa.StringArray]:
    """Yield the texts of the `wanted` documents (n,) of a Parquet file, from one row group after the other. A row group
    that has none of them is not read, and neither is such a file."""
    if not wanted.any():
        return
    with pq.ParquetFile(ensure_local(path)) as file:
        start = 0
        for group in range(file.num_row_groups):
            rows = slice(start, start + file.metadata.row_group(group).num_rows)
            start = rows.stop
            if wanted[rows].any():
                texts = file.read_row_group(group, ["text"])["text"]
                yield texts.filter(pa.array(wanted[rows])).combine_chunks()


def with_text(batch: pa.RecordBatch, texts: pa.StringArray) -> pa.RecordBatch:
    """Replace the column `text`."""
    return batch.set_column(batch.schema.get_field_index("text"), RAW.field("text"), texts)


def byte_lengths(texts: pa.StringArray) -> NDArray[np.int64]:
    """The UTF-8 bytes of each text, (n,)."""
    return np.diff(byte_offsets(texts)).astype(np.int64)


def byte_offsets(texts: pa.StringArray) -> NDArray[np.int32]:
    """Where each text begins in the array's data buffer, and where the last one ends: (n + 1,)."""
    return np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, 4 * texts.offset)


def text_digests(texts: pa.StringArray) -> list[bytes]:
    """The sha256 of each text."""
    data, offsets = memoryview(texts.buffers()[2] or b""), byte_offsets(texts).tolist()
    return [hashlib.sha256(data[a:b]).digest() for a, b in itertools.pairwise(offsets)]


def hex_ids(digests: list[bytes]) -> pa.StringArray:
    """Digests in hexadecimal, as the column `id` holds them."""
    return pa.array([digest.hex() for digest in digests], pa.string())


def text_hashes(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """The first 8 bytes of each id (n,) S32, as a number: a hash of the document's text."""
    return ids.view(">u8").reshape(-1, 4)[:, 0].astype(np.uint64)
