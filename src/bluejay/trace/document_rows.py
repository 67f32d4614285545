"""What is known of each document of a corpus, in a file that is read a row at a time (`bluejay.trace.sections`).

A row is a document; its copies, which its epochs or its upsampling made, share it. `documents.rows` holds an array
SHARD_rows for each token shard with the number of each document's row, the rows (`RECORD`), and the addresses.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bluejay.files import sha256_of
from bluejay.trace.sections import (
    Damaged,
    Pages,
    Sections,
    advised,
    as_written,
    paged,
    require_numbers,
    with_sums,
    write_sections,
)

ROWS = "documents.rows"
KIND = "documents"
UNKNOWN = "unknown"
RECORD = np.dtype([("id", "V32"), ("component", "<u4"), ("source", "<u4"), ("licence", "<u4"), ("url", "<u8")])
"""A row: the id, places in the lists of the header, and where its address begins."""
SHA256 = re.compile("[0-9a-f]{64}")
LISTS = ("component", "source", "licence")


class Row(NamedTuple):
    """A document of the corpus."""

    id: str
    """SHA-256 of its text in hexadecimal; SHARD:NUMBER where the corpus has no table of documents."""
    component: str
    source: str
    licence: str
    url: str


def write_rows(path: Path, shards: Sequence[Any], table: Path, content: dict[str, str]) -> None:
    """Write the rows of the documents of token shards (`bluejay.trace.indexing.TokenFile`), by `table` if that exists.
    `content` has a hash of each token shard. Raises ValueError if the table is of another build."""
    common = {"shards": [shard.name for shard in shards], "content": content, "table": hash_of_table(table)}
    if not table.exists():
        write_sections(path, KIND, {"rows": 0, **common}, {})
        return
    import pyarrow as pa

    tables = read_documents(table, shards)
    documents = pa.concat_tables(tables)
    coded = {name: encoded(documents[name]) for name in Row._fields}
    row_of, first = distinct_rows(list(coded.values()))
    records = np.zeros(len(first), RECORD)
    ids, urls = (np.array(coded[name][1], object)[coded[name][0][first]] for name in ("id", "url"))
    if wrong := [id for id in ids if not SHA256.fullmatch(id)]:
        raise ValueError(f"{table} has the id {wrong[0]!r}, which is no SHA-256 in hexadecimal")
    records["id"] = np.frombuffer(b"".join(bytes.fromhex(id) for id in ids), "V32")
    for name in LISTS:
        records[name] = coded[name][0][first]
    texts = [url.encode() for url in urls]
    records["url"] = np.cumsum([0, *map(len, texts)], dtype=np.uint64)[:-1]
    bounds = np.cumsum([0, *map(len, tables)])
    arrays = {f"{shard.name}_rows": row_of[bounds[i] : bounds[i + 1]] for i, shard in enumerate(shards)}
    arrays |= with_sums({"records": paged(records.tobytes()), "urls": paged(b"".join(texts))})
    values = {"rows": len(records), "url_bytes": sum(map(len, texts)), **{name: coded[name][1] for name in LISTS}}
    write_sections(path, KIND, values | common, arrays)


def read_documents(table: Path, shards: Sequence[Any]) -> list[Any]:
    """For each token shard the rows of a table of documents that are of it, in the order of the shard. Raises
    ValueError if the table is damaged, lacks a column, or is of another build."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [*Row._fields, "shard", "offset", "length"]
    try:
        if missing := [name for name in columns if name not in pq.read_schema(table).names]:
            raise ValueError(f"{table} has no column {missing[0]}")
        read = pq.read_table(table, columns=columns)
    except pa.ArrowInvalid:
        raise ValueError(f"{table} is damaged, or no Parquet file") from None
    names = read["shard"].to_numpy(zero_copy_only=False)
    return [check_order(read.filter(names == shard.name), shard, table) for shard in shards]


def distinct_rows(coded: Sequence[tuple[np.ndarray, list[str]]]) -> tuple[np.ndarray, np.ndarray]:
    """The number of each document's row, where documents with the same values in all columns (`encoded`) share one;
    and the first document of each row. Rows are in the order of their first documents."""
    same = np.zeros(len(coded[0][0]), np.int64)
    for codes, names in coded:
        _, same = np.unique(same * (len(names) + 1) + codes, return_inverse=True)
    _, first, row_of = np.unique(same, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[row_of].astype(np.uint32), np.sort(first)


def hash_of_table(table: Path) -> str | None:
    """The SHA-256 of a table of documents; None where there is none."""
    return sha256_of(table) if table.exists() else None


def check_order(rows: Any, shard: Any, table: Path) -> Any:
    """The rows of a token shard in the order of its documents. Raises ValueError if they are others."""
    order = np.lexsort((rows["length"].to_numpy(), rows["offset"].to_numpy()))
    rows = rows.take(order)
    ends = rows["offset"].to_numpy() + rows["length"].to_numpy()
    if not (np.array_equal(rows["offset"].to_numpy(), shard.offsets[:-1]) and np.array_equal(ends, shard.offsets[1:])):
        raise ValueError(f"{table} does not list the documents of {shard.path}; they are of different builds")
    return rows


def encoded(column: Any) -> tuple[np.ndarray, list[str]]:
    """The numbers of a column's values in the list of different ones, and that list; nothing is an empty text."""
    import pyarrow.compute as pc

    coded: Any = pc.fill_null(column.cast("string"), "").combine_chunks().dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()


class Rows:
    """The rows of an indexed corpus. Raises FileNotFoundError or Damaged."""

    def __init__(self, path: Path) -> None:
        sections = Sections(path, KIND)
        self.path, self.values = path, sections.values
        with as_written(path):
            require_numbers(self.values, path, "rows")
            self.content: dict[str, str] = dict(self.values["content"])
            self.has_table = self.values["rows"] > 0
            if self.has_table:
                require_numbers(self.values, path, "url_bytes")
                self.of = {name: sections[f"{name}_rows"] for name in self.values["shards"]}
                self.records, self.urls = Pages(sections, "records"), Pages(sections, "urls")
                size = self.values["rows"] * RECORD.itemsize
                if len(self.records.bytes) < size or len(self.urls.bytes) < self.values["url_bytes"]:
                    raise Damaged(f"{path} is damaged: its rows are cut off")
                self.table = self.records.bytes[:size].view(RECORD)

    def rows(self, shard: str, documents: np.ndarray) -> np.ndarray:
        """The number of the row of each document of a shard; documents without a table are a row each. Raises
        Damaged."""
        with advised(self.path.parents[1]), as_written(self.path):
            return self.of[shard][documents].astype(np.int64) if self.has_table else documents.astype(np.int64)

    def read(self, shard: str, rows: Sequence[int]) -> list[Row]:
        """Rows. Raises Damaged."""
        if not self.has_table:
            return [Row(f"{shard}:{row}", "all", UNKNOWN, UNKNOWN, "") for row in rows]
        with advised(self.path.parents[1]), as_written(self.path):
            return self._read(rows)

    def _read(self, rows: Sequence[int]) -> list[Row]:
        of, size = np.array(rows, np.int64), RECORD.itemsize
        after = np.minimum(of + 1, len(self.table) - 1)  # the row behind says where the address of one ends
        self.records.check(of * size, (after + 1) * size)
        here, begins = self.table[of], self.table["url"][of].astype(np.int64)
        ends = np.where(after > of, self.table["url"][after].astype(np.int64), self.values["url_bytes"])
        self.urls.check(begins, ends)
        ids, addresses = here["id"].tobytes().hex(), self.urls.bytes
        names = ([self.values[name][number] for number in here[name].tolist()] for name in LISTS)
        return [
            Row(ids[64 * i : 64 * (i + 1)], component, source, licence or UNKNOWN, addresses[a:b].tobytes().decode())
            for i, (component, source, licence, a, b) in enumerate(
                zip(*names, begins.tolist(), ends.tolist(), strict=True)
            )
        ]
