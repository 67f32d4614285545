"""Put all copies of the documents of a split into their final order, one bucket of shuffle keys at a time.

The place of a copy in a shard follows from its shuffle key, so the copies of a bucket are consecutive in the shard.
They are gathered from all parts and sorted by themselves (a two-pass shuffle): memory does not grow with the corpus.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.pile.steps.export import compress

BUCKET_TOKENS = 24_000_000
"""Tokens of a bucket, on average, which are sorted in memory."""
BUCKET_LINE_BYTES = 150_000_000
"""Bytes of exported lines of a bucket, on average."""
N_KEYS = 1 << 64
"""Values of a shuffle key."""
LINES = "lines.jsonl.zst"


@dataclass(frozen=True)
class Shuffle:
    """Sort one bucket. Writes `tokens.bin` and `table.parquet`, and `lines.jsonl.zst` for the export."""

    name: ClassVar[str] = "shuffle"
    split: str
    bucket: int
    n_buckets: int
    parts: tuple[Path, ...]
    dtype: str
    """Type of the token ids."""
    jsonl: bool
    """Whether the documents are exported as JSON lines."""

    def key(self) -> list[Any]:
        """The bucket and the encoded parts."""
        return [self.split, self.bucket, self.n_buckets, [part.name for part in self.parts], self.jsonl]

    def run(self, out: Path) -> dict[str, Any]:
        slices = [bucket_rows(part / f"{self.split}.arrow", self.bucket, self.n_buckets) for part in self.parts]
        table = pa.concat_tables(slices)
        part = np.repeat(np.arange(len(slices)), [len(rows) for rows in slices])
        order = pc.sort_indices(table, [("shuffle_key", "ascending"), ("id", "ascending")])
        table, part = table.take(order), part[order.to_numpy()]
        itemsize = np.dtype(self.dtype).itemsize
        begin, length = itemsize * table["token_offset"].to_numpy(), itemsize * table["length"].to_numpy()
        tokens = gather_bytes([path / "tokens.bin" for path in self.parts], part, begin, length)
        (out / "tokens.bin").write_bytes(tokens)
        if self.jsonl:
            begin, length = table["line_offset"].to_numpy(), table["line_bytes"].to_numpy()
            compress(gather_bytes([path / "lines.bin" for path in self.parts], part, begin, length), out / LINES)
        table = table.drop_columns(["shuffle_key", "token_offset", "line_offset", "line_bytes"])
        pq.write_table(table, out / "table.parquet", compression="zstd")
        return {"documents": len(table)}


def bucket_count(split: str, counts: list[dict[str, Any]], jsonl: bool) -> int:
    """How many buckets a split needs, by the counts of its encoded parts."""
    tokens = sum(part["splits"][split]["tokens"] for part in counts)
    line_bytes = sum(part["splits"][split]["line_bytes"] for part in counts) if jsonl else 0
    return max(-(-tokens // BUCKET_TOKENS), -(-line_bytes // BUCKET_LINE_BYTES), 1)


def bucket_rows(path: Path, bucket: int, n_buckets: int) -> pa.Table:
    """The rows of a part whose shuffle keys fall into a bucket."""
    with pa.memory_map(str(path)) as mapped:
        rows = pa.ipc.open_file(mapped).read_all()
        low, high = -(-N_KEYS * bucket // n_buckets), -(-N_KEYS * (bucket + 1) // n_buckets) - 1
        keys = rows["shuffle_key"].to_numpy()
        begin = np.searchsorted(keys, np.uint64(low), side="left")
        end = np.searchsorted(keys, np.uint64(high), side="right")
        return rows.take(pa.array(np.arange(begin, end)))  # a copy, which outlives the mapping


def gather_bytes(
    files: list[Path], part: NDArray[np.int64], begin: NDArray[np.int64], size: NDArray[np.int64]
) -> memoryview:
    """Concatenate pieces of files: for each i the `size[i]` bytes of file `part[i]` from byte `begin[i]`."""
    ends = np.cumsum(size)
    data = memoryview(bytearray(int(ends[-1]) if len(ends) else 0))
    for number, file in enumerate(files):
        rows = np.flatnonzero(part == number)
        if not len(rows):
            continue
        descriptor = os.open(file, os.O_RDONLY)
        try:
            for end, n, offset in zip(ends[rows].tolist(), size[rows].tolist(), begin[rows].tolist(), strict=True):
                assert os.preadv(descriptor, [data[end - n : end]], offset) == n
        finally:
            os.close(descriptor)
    return data
