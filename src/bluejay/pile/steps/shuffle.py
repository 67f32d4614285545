"""The last stages: all copies in their final order, a bucket of hashes at a time, and the buckets end to end.

A document's place in a shard is the order of its hash, so a bucket of hashes is a stretch of the shard: it is gathered
from all parts and sorted by itself (the two-pass shuffle), in memory that does not grow with the corpus.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.pile.steps.export import compress
from bluejay.pile.steps.mix import SPLITS
from bluejay.tokens import TokenWriter

BUCKET_TOKENS = 24_000_000
"""Tokens that are put in order at once."""
BUCKET_LINES = 150_000_000
"""Bytes of text that are exported at once."""
HASHES = 1 << 64
LINES = "lines.jsonl.zst"


@dataclass(frozen=True)
class Bucket:
    """What `gather_bucket` works on."""

    split: str
    number: int
    of: int
    parts: tuple[Path, ...]
    """The directories that `encode_part` filled."""
    dtype: str
    """Of their tokens."""
    text: bool
    """Write the lines, too."""

    def decisive(self) -> list[Any]:
        """What the bucket follows from."""
        return [self.split, self.number, self.of, [part.name for part in self.parts], self.text]


def buckets(split: str, counts: list[dict[str, Any]], text: bool) -> int:
    """How many buckets a split needs, by the counts of its encoded parts."""
    tokens = sum(part["splits"][split]["tokens"] for part in counts)
    lines = sum(part["splits"][split]["lines"] for part in counts) if text else 0
    return max(-(-tokens // BUCKET_TOKENS), -(-lines // BUCKET_LINES), 1)


def gather_bucket(bucket: Bucket, directory: Path) -> dict[str, Any]:
    """Write `tokens.bin` and `table.parquet`, and with text `lines.jsonl.zst`: a stretch of the shard."""
    slices = [stretch(part / f"{bucket.split}.arrow", bucket.number, bucket.of) for part in bucket.parts]
    table = pa.concat_tables(slices)
    part = np.repeat(np.arange(len(slices)), [len(rows) for rows in slices])
    order = pc.sort_indices(table, [("order", "ascending"), ("id", "ascending")])
    table, part = table.take(order), part[order.to_numpy()]
    size = np.dtype(bucket.dtype).itemsize
    at, length, line, width = (table[name].to_numpy() for name in ("at", "length", "line", "width"))
    tokens = collected([path / "tokens.bin" for path in bucket.parts], part, size * at, size * length)
    (directory / "tokens.bin").write_bytes(tokens)
    if bucket.text:
        compress(collected([path / "lines.bin" for path in bucket.parts], part, line, width), directory / LINES)
    pq.write_table(
        table.drop_columns(["order", "at", "line", "width"]), directory / "table.parquet", compression="zstd"
    )
    return {"documents": len(table)}


def stretch(path: Path, bucket: int, of: int) -> pa.Table:
    """The rows of a part whose order falls in a bucket."""
    with pa.memory_map(str(path)) as mapped:
        rows = pa.ipc.open_file(mapped).read_all()
        low, high = -(-HASHES * bucket // of), -(-HASHES * (bucket + 1) // of) - 1
        order = rows["order"].to_numpy()
        begin = np.searchsorted(order, np.uint64(low), side="left")
        end = np.searchsorted(order, np.uint64(high), side="right")
        return rows.take(pa.array(np.arange(begin, end)))  # a copy, which outlives the mapping


def collected(files: list[Path], part: NDArray[np.int64], at: NDArray[np.int64], size: NDArray[np.int64]) -> memoryview:
    """Pieces of files end to end: of file `part[i]`, the `size[i]` bytes from byte `at[i]`."""
    ends = np.cumsum(size)
    data = memoryview(bytearray(int(ends[-1]) if len(ends) else 0))
    for number, file in enumerate(files):
        rows = np.flatnonzero(part == number)
        if not len(rows):
            continue
        descriptor = os.open(file, os.O_RDONLY)
        try:
            for end, n, begin in zip(ends[rows].tolist(), size[rows].tolist(), at[rows].tolist(), strict=True):
                assert os.preadv(descriptor, [data[end - n : end]], begin) == n
        finally:
            os.close(descriptor)
    return data


def join_buckets(directories: dict[str, list[Path]], vocab_size: int, dtype: str, tokens: Path) -> None:
    """Write `tokens/{train,valid,test}` and `tokens/documents.parquet` from the buckets of each split."""
    tokens.mkdir()
    placed = pa.schema([("shard", pa.string()), ("offset", pa.int64())])
    first = pq.read_schema(directories[SPLITS[0]][0] / "table.parquet")
    schema = pa.schema([*first, *placed])
    with pq.ParquetWriter(tokens / "documents.parquet", schema, compression="zstd") as documents:
        for split in SPLITS:
            with TokenWriter(tokens / split, vocab_size) as shard:
                for directory in directories[split]:
                    table = pq.read_table(directory / "table.parquet")
                    sizes, begin = table["length"].to_numpy(), shard.length
                    shard.extend(np.fromfile(directory / "tokens.bin", dtype), sizes)
                    table = table.append_column("shard", pa.array([split] * len(table), pa.string()))
                    table = table.append_column("offset", pa.array(begin + np.cumsum(sizes) - sizes, pa.int64()))
                    if len(table):
                        documents.write_table(table)
