"""Put all copies of the documents of a split into their final order, one bucket of shuffle keys at a time.

The place of a copy in a shard follows from its shuffle key, so the copies of a bucket are consecutive in the shard.
They are gathered from all outputs of `Encode` and sorted by themselves: memory does not grow with the corpus. A task
sorts several buckets, so that the outputs are not opened again for each. Where there are more outputs than one task may
open, `MergeEncoded` makes one of several.
"""

import itertools
import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.pile.steps.export import compress
from bluejay.pile.steps.merge import listed
from bluejay.pile.steps.mix import SPLITS
from bluejay.pile.text.sorted_records import key_range
from bluejay.storage import ensure_local

BUCKET_TOKENS = 24_000_000
"""Tokens of a bucket, on average, which are sorted in memory."""
BUCKET_LINE_BYTES = 150_000_000
"""Bytes of exported lines of a bucket, on average."""
BUCKETS_AT_ONCE = 8
"""Buckets that a task sorts, one after the other."""
LINES = "lines.jsonl.zst"
"""The file with the exported lines of a bucket."""


@dataclass(frozen=True)
class Shuffle:
    """Sort some buckets, from `first` to below `end`.

    Writes a folder for each, named by its number, with `tokens.bin` and `table.parquet`, and `lines.jsonl.zst` for the
    export.
    """

    name: ClassVar[str] = "shuffle"
    listing: Path
    """The outputs of `Encode` or `MergeEncoded`."""
    split: str
    first: int
    end: int
    n_buckets: int
    """Buckets of the split."""
    dtype: str
    """Type of the token ids."""
    jsonl: bool
    """Whether the documents are exported as JSON lines."""

    def key(self) -> list[Any]:
        """The buckets and the encoded parts."""
        return [self.listing.name, self.split, self.first, self.end, self.n_buckets, self.jsonl]

    def run(self, out: Path) -> dict[str, Any]:
        copies, documents = Copies(listed(self.listing), self.split, self.dtype, self.jsonl), 0
        pieces = copies.pieces([key_range(bucket, self.n_buckets) for bucket in range(self.first, self.end)])
        for folder, (table, tokens, lines) in zip(self.folders(out), pieces, strict=True):
            folder.mkdir()
            (folder / "tokens.bin").write_bytes(tokens)
            if self.jsonl:
                compress(lines, folder / LINES)
            table = table.drop_columns(["shuffle_key", "token_offset", "line_offset", "line_bytes"])
            pq.write_table(table, folder / "table.parquet", compression="zstd")
            documents += len(table)
        return {"documents": documents}

    def folders(self, out: Path) -> list[Path]:
        """The folder of each bucket in the output `out`, in order."""
        return [out / str(bucket) for bucket in range(self.first, self.end)]


@dataclass(frozen=True)
class MergeEncoded:
    """Merge several outputs of `Encode` into one.

    Writes {train,valid,test}.arrow as `Encode` does, and tokens.bin and lines.bin, in which every copy has a place of
    its own, in the order of the shuffle keys. Counts the tokens and the bytes of lines of each split.
    """

    name: ClassVar[str] = "merge-encoded"
    listing: Path
    pieces: tuple[int, ...]
    """For each split the ranges of shuffle keys that are sorted in memory one after the other."""
    dtype: str
    """Type of the token ids."""

    def key(self) -> list[Any]:
        """The encoded parts. The ranges change no output."""
        return [self.listing.name]

    def run(self, out: Path) -> dict[str, Any]:
        counts, width = {}, np.dtype(self.dtype).itemsize
        with (out / "tokens.bin").open("wb") as tokens_file, (out / "lines.bin").open("wb") as lines_file:
            for split, pieces in zip(SPLITS, self.pieces, strict=True):
                copies = Copies(listed(self.listing), split, self.dtype)
                with ExitStack() as stack:
                    sink = stack.enter_context(pa.OSFile(str(out / f"{split}.arrow"), "wb"))
                    file = stack.enter_context(pa.ipc.new_file(sink, copies.schema))
                    first = tokens_file.tell(), lines_file.tell()
                    for table, tokens, lines in copies.pieces([key_range(piece, pieces) for piece in range(pieces)]):
                        table = placed(table, "token_offset", "length", tokens_file.tell() // width)
                        table = placed(table, "line_offset", "line_bytes", lines_file.tell())
                        file.write_table(table.combine_chunks())
                        tokens_file.write(tokens)
                        lines_file.write(lines)
                tokens, lines = tokens_file.tell() - first[0], lines_file.tell() - first[1]
                counts[split] = {"tokens": tokens // width, "line_bytes": lines}
        return {"splits": counts}


def placed(table: pa.Table, column: str, sizes: str, first: int) -> pa.Table:
    """Set a column of offsets: the rows stand one after the other, from `first` on."""
    lengths = table[sizes].to_numpy()
    offsets = pa.array(first + np.cumsum(lengths) - lengths, pa.int64())
    return table.set_column(table.schema.get_field_index(column), table.schema.field(column), offsets)


class Copies:
    """The copies of a split in several outputs of `Encode`, each in the order of the shuffle keys. They are mapped."""

    def __init__(self, outputs: Sequence[Path], split: str, dtype: str, lines: bool = True) -> None:
        """Without `lines`, those files are not opened, and no lines are given."""
        files = [pa.ipc.open_file(pa.py_buffer(mapped(output / f"{split}.arrow"))) for output in outputs]
        self.schema = files[0].schema
        self.batches = [[b for n in range(file.num_record_batches) if len(b := file.get_batch(n))] for file in files]
        self.keys = [[batch["shuffle_key"].to_numpy() for batch in batches] for batches in self.batches]
        self.tokens = MappedFiles([mapped(output / "tokens.bin") for output in outputs])
        self.lines = MappedFiles([mapped(output / "lines.bin") for output in outputs]) if lines else None
        self.width = np.dtype(dtype).itemsize

    def pieces(self, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[pa.Table, memoryview, memoryview]]:
        """Yield, for each range of shuffle keys, the rows of its copies in order, their tokens and their lines.

        The bytes of tokens and lines are overwritten for the next range.
        """
        for low, high in ranges:
            rows = (rows_between(*file, low, high) for file in zip(self.batches, self.keys, strict=True))
            slices = [pa.Table.from_batches(some, self.schema) for some in rows]
            table = pa.concat_tables(slices)
            part = np.repeat(np.arange(len(slices)), [len(rows) for rows in slices])
            order = pc.sort_indices(table, [("shuffle_key", "ascending"), ("id", "ascending")])
            table, part = table.take(order), part[order.to_numpy()]
            begin, length = (self.width * table[name].to_numpy() for name in ("token_offset", "length"))
            tokens = self.tokens.gather(part, begin, length)
            begin, length = (table[name].to_numpy() for name in ("line_offset", "line_bytes"))
            yield table, tokens, self.lines.gather(part, begin, length) if self.lines else memoryview(b"")


def bucket_count(split: str, counts: list[dict[str, Any]], jsonl: bool) -> int:
    """How many buckets a split needs, by the counts of its encoded parts."""
    tokens = sum(part["splits"][split]["tokens"] for part in counts)
    line_bytes = sum(part["splits"][split]["line_bytes"] for part in counts) if jsonl else 0
    return max(-(-tokens // BUCKET_TOKENS), -(-line_bytes // BUCKET_LINE_BYTES), 1)


def rows_between(
    batches: Sequence[pa.RecordBatch], keys: Sequence[NDArray[np.uint64]], low: int, high: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows with shuffle keys from `low` to below `high`, of batches in their order, none of them empty.

    `keys` are the shuffle keys of each batch, (rows,).
    """
    first = [int(some[0]) for some in keys]
    within = slice(max(bisect_right(first, low) - 1, 0), bisect_left(first, high))
    for batch, some in zip(batches[within], keys[within], strict=True):
        begin, end = (bisect_left(some, bound, key=int) for bound in (low, high))
        yield batch.slice(begin, end - begin)


@dataclass
class MappedFiles:
    """Files that are mapped into memory, and a buffer in which pieces of them are gathered."""

    files: Sequence[NDArray[np.uint8]]
    buffer: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    """Kept, because new memory costs more than the copying where the page cache has taken all that was free."""

    def gather(self, part: NDArray[np.int64], begin: NDArray[np.int64], size: NDArray[np.int64]) -> memoryview:
        """Concatenate (pieces,): for each i the `size[i]` bytes of file `part[i]` from byte `begin[i]`.

        The result is overwritten by the next call.
        """
        ends = np.cumsum(size)
        n_bytes = int(size.sum())
        if n_bytes > len(self.buffer):
            self.buffer = np.empty(n_bytes + n_bytes // 8, np.uint8)
        data = self.buffer[:n_bytes]
        order = np.argsort(part, kind="stable")
        bounds = np.searchsorted(part[order], np.arange(len(self.files) + 1))
        for file, (first, last) in zip(self.files, itertools.pairwise(bounds.tolist()), strict=True):
            rows = order[first:last]
            for end, n, offset in zip(ends[rows].tolist(), size[rows].tolist(), begin[rows].tolist(), strict=True):
                data[end - n : end] = file[offset : offset + n]
        return data.data


def mapped(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, mapped into memory: numpy's own maps take four times as long, and again for each slice."""
    path = ensure_local(path)
    if not path.stat().st_size:
        return np.empty(0, np.uint8)
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
