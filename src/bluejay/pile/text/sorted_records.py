"""Records in the order of a 64-bit key, one file for each part, from which any range of keys is read.

A record has a key and mostly a row number, and may have more. The keys are hashes, so equal ranges hold about equally
many records, and a task that compares all documents reads one range of every file. Rows are numbered within a file;
across files they go on counting, in the order of the files.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_KEYS = 1 << 64
"""Values of a key."""
RECORDS_AT_ONCE = 1 << 20
"""Records that `in_order` holds in memory, on average."""


def key_range(bucket: int, n_buckets: int) -> tuple[int, int]:
    """The first key of a bucket, and one past its last."""
    return -(-N_KEYS * bucket // n_buckets), -(-N_KEYS * (bucket + 1) // n_buckets)


def sorted_records(keys: NDArray[np.uint64], **columns: NDArray[Any]) -> NDArray[Any]:
    """A record (key, row, *columns) for each key (n,), in the order of the keys, equal ones in that of the rows."""
    order = np.argsort(keys, kind="stable")
    kinds = [(name, values.dtype) for name, values in columns.items()]
    found = np.empty(len(keys), [("key", np.uint64), ("row", row_type(len(keys))), *kinds])
    found["key"], found["row"] = keys[order], order
    for name, values in columns.items():
        found[name] = values[order]
    return found


def row_type(rows: int) -> type[np.unsignedinteger] | type[np.signedinteger]:
    """The type of row numbers below `rows`."""
    return np.uint32 if rows < 1 << 32 else np.int64


@dataclass(frozen=True)
class ConcatenatedArray:
    """One `.npy` file per part, read as one array: rows are numbered across the parts, in the order of the recipe."""

    files: tuple[Path, ...]
    starts: NDArray[np.int64]
    """(files + 1,): the first row of each file, then the number of all rows."""
    arrays: tuple[NDArray[Any], ...] = ()
    """The files mapped into memory, where they stay open."""

    @classmethod
    def of(cls, files: Sequence[Path], stay_open: bool = False) -> "ConcatenatedArray":
        """Concatenate files; only their headers are read. A process may map some ten thousand files at once."""
        lengths, arrays = [], []
        for array in (np.load(file, mmap_mode="r") for file in files):
            lengths.append(len(array))
            arrays += [array] * stay_open
        return cls(tuple(files), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), tuple(arrays))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The values of some rows, in the order of `rows`."""
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], self.starts).tolist()
        found = [
            self.file(number)[rows[order[a:b]] - start]
            for number, (start, a, b) in enumerate(zip(self.starts.tolist(), bounds, bounds[1:], strict=False))
            if a < b
        ]
        values = np.concatenate(found) if found else self.file(0)[:0]
        return values[np.argsort(order, kind="stable")]

    def file(self, number: int) -> NDArray[Any]:
        """The array of one file."""
        return self.arrays[number] if self.arrays else np.load(self.files[number], mmap_mode="r")


@dataclass(frozen=True)
class SortedRecords:
    """Files of `sorted_records`, read as one table that is sorted by the key."""

    arrays: tuple[NDArray[Any], ...]
    """The records of each file, mapped into memory, (n,) each."""
    starts: NDArray[np.int64]
    """(files + 1,): the first row of each file, then the number of all rows."""

    @classmethod
    def open(cls, files: Sequence[Path], band: int | None = None) -> "SortedRecords":
        """Map files into memory; of files of several tables, one for each band, that of a band."""
        arrays = [np.asarray(np.load(file, mmap_mode="r")) for file in files]
        return cls.of(arrays if band is None else [array[band] for array in arrays])

    @classmethod
    def of(cls, arrays: Sequence[NDArray[Any]]) -> "SortedRecords":
        """The table of the records of several files."""
        return cls(tuple(arrays), np.cumsum([0, *map(len, arrays)]))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a record, whose row numbers may be larger than those of the files."""
        kinds = {name: kind for name, (kind, *_) in (self.arrays[0].dtype.fields or {}).items()}
        return np.dtype([(name, row_type(len(self)) if name == "row" else kind) for name, kind in kinds.items()])

    def between(self, low: int, high: int) -> NDArray[Any]:
        """The records with keys from `low` to below `high`, by their keys and then their rows: (m,)."""
        return self.records([slice(*span) for span in self.spans(low, high)])

    def repeated_between(self, low: int, high: int) -> NDArray[Any]:
        """Those of `between` whose key another one has. The keys alone are sorted, and few records copied."""
        spans = self.spans(low, high)
        keys = np.concatenate([array["key"][a:b] for array, (a, b) in zip(self.arrays, spans, strict=True)])
        order = np.argsort(keys, kind="stable")
        same = np.diff(keys[order]) == 0
        repeated = np.zeros(len(keys), np.bool_)
        repeated[order[(np.append(False, same) | np.append(same, False))[: len(keys)]]] = True
        pieces = np.split(repeated, np.cumsum([b - a for a, b in spans])[:-1])
        return self.records([a + np.flatnonzero(piece) for (a, _), piece in zip(spans, pieces, strict=True)])

    def spans(self, low: int, high: int) -> list[tuple[int, int]]:
        """Where the records with keys from `low` to below `high` begin and end in each file."""
        keys = [array["key"] for array in self.arrays]
        starts = [bisect_left(some, low, key=int) for some in keys]
        return [(a, bisect_left(some, high, lo=a, key=int)) for some, a in zip(keys, starts, strict=True)]

    def records(self, places: Sequence[slice | NDArray[np.int64]]) -> NDArray[Any]:
        """The records at some places of each file, by their keys and then their rows: (m,)."""
        pieces = [np.empty(0, self.dtype)]
        for array, place, start in zip(self.arrays, places, self.starts.tolist(), strict=False):
            pieces.append(array[place].astype(self.dtype))
            if "row" in (self.dtype.names or ()):
                pieces[-1]["row"] += start
        found = np.concatenate(pieces)
        return found[np.argsort(found["key"], kind="stable")]

    def in_order(self) -> Iterator[NDArray[Any]]:
        """Yield all records in order, about RECORDS_AT_ONCE at a time."""
        filled = [array["key"] for array in self.arrays if len(array)]
        if not filled:
            return
        low, high = min(int(keys[0]) for keys in filled), max(int(keys[-1]) for keys in filled) + 1
        pieces = -(-len(self) // RECORDS_AT_ONCE)
        bounds = [low + (high - low) * piece // pieces for piece in range(pieces + 1)]
        for begin, end in itertools.pairwise(bounds):
            yield self.between(begin, end)


def write_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], pieces: Iterator[NDArray[Any]]) -> None:
    """Write an array as `np.save` does, from pieces that follow each other in memory order."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(piece.astype(dtype, copy=False).tobytes())


def merge_sorted(files: Sequence[Path], out: Path) -> None:
    """Merge files of `sorted_records` into one. They may hold a table for each of several bands, (bands, n)."""
    arrays = [np.load(file, mmap_mode="r") for file in files]
    *bands, _ = arrays[0].shape
    tables = [SortedRecords.of([array[band] for array in arrays]) for band in range(*bands)] if bands else None
    tables = tables or [SortedRecords.of(arrays)]
    pieces = (piece for table in tables for piece in table.in_order())
    write_array(out, tables[0].dtype, (*bands, len(tables[0])), pieces)


def concatenate(files: Sequence[Path], out: Path) -> None:
    """Write the arrays of several files, (n, ...), as one."""
    whole = ConcatenatedArray.of(files, stay_open=True)
    first, rows = whole.file(0), range(0, len(whole), RECORDS_AT_ONCE)
    pieces = (whole[np.arange(row, min(row + RECORDS_AT_ONCE, len(whole)))] for row in rows)
    write_array(out, first.dtype, (len(whole), *first.shape[1:]), pieces)
