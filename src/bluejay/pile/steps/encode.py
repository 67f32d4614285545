"""The stage that makes tokens of a part's documents, and gives every copy of them its place in the shuffled order."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.files import sha256_of
from bluejay.pile.recipe import Split
from bluejay.pile.steps.clean import CLEAN, DROPPED, batches, offsets_of
from bluejay.pile.steps.dedup import CONTAMINATED, EXACT, KEPT, NEAR, leading
from bluejay.pile.steps.export import lines
from bluejay.pile.steps.mix import SPLITS, copies_of, order_of, split_of
from bluejay.pile.steps.passages import cut
from bluejay.pile.steps.statistics import Survey
from bluejay.pile.text.encoder import Encoder
from bluejay.tokenizer import Tokenizer

REASONS = {EXACT: "exact copy", NEAR: "near-copy", CONTAMINATED: "contaminated"}
PLACED = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "licence", "url", "component")]
    + [(name, pa.int64()) for name in ("bytes", "length", "width")]
    + [("split", pa.uint8()), ("own", pa.uint64())]
)
"""What is known of a document when it has been encoded: its tokens, the bytes of its exported line, its hash."""


@dataclass(frozen=True)
class Encoding:
    """What `encode_part` works on."""

    clean: Path
    """The directory that `clean_part` filled."""
    fates: Path
    """The file that `choose` wrote for this part."""
    checksum: str
    """Of that file."""
    cuts: Path | None
    """The file that `find_passages` wrote for this part, where passages are removed."""
    component: str
    tokenizer: Path
    """A directory that is named by the tokenizer's hash."""
    epochs: float
    split: Split
    seed: int
    text: bool
    """Keep the text, too, for the export."""
    parallel: bool
    """Use all cores."""

    def decisive(self) -> list[Any]:
        """What the tokens follow from."""
        mixing = [self.epochs, self.split.valid, self.split.test, self.seed, self.text]
        mixing += [sha256_of(self.cuts)] if self.cuts else []
        return [self.clean.name, self.checksum, self.component, self.tokenizer.name, *mixing]


def encode_part(encoding: Encoding, directory: Path) -> dict[str, Any]:
    """Write the part's documents by split, what was dropped of it, its tokens, and its share of the document table.

    {train,valid,test}.parquet (CLEAN), dropped.parquet (DROPPED), tokens.bin and, for the export, lines.bin;
    {train,valid,test}.arrow: a row per copy in the order of the shard, with its place in tokens.bin and lines.bin.
    """
    chosen = np.load(encoding.fates)
    fate, stands, own = chosen["fate"], chosen["stands"], leading(np.load(encoding.clean / "ids.npy"))
    split = split_of(leading(stands), encoding.split, encoding.seed)
    spans = np.load(encoding.cuts) if encoding.cuts else np.empty((0, 3), np.int64)
    encoder = encoder_of(encoding.tokenizer, encoding.parallel)
    survey, tables, start, seen = Survey(encoding.seed), [PLACED.empty_table()], 0, 0
    with ExitStack() as stack:
        files = [stack.enter_context(documents_file(directory / f"{name}.parquet", CLEAN)) for name in SPLITS]
        dropped = stack.enter_context(documents_file(directory / "dropped.parquet", DROPPED))
        tokens, text = (stack.enter_context((directory / f"{name}.bin").open("wb")) for name in ("tokens", "lines"))
        for batch in batches(encoding.clean / "documents.parquet"):
            part = slice(start, start + len(batch))
            keep, start = fate[part] == KEPT, part.stop
            append(dropped, side_table(batch, fate[part], stands[part]))
            kept, splits, hashes = batch.filter(pa.array(keep)), split[part][keep], own[part][keep]
            if encoding.cuts:
                begin, end = np.searchsorted(spans[:, 0], [seen, seen + len(kept)])
                seen += len(kept)
                kept, gone, left = cut(kept, spans[begin:end] - [seen - len(kept), 0, 0])
                append(dropped, gone)
                survey.cut += len(gone)
                splits, hashes = splits[left], hashes[left]
            for number, file in enumerate(files):
                append(file, kept.filter(pa.array(splits == number)))
            texts = kept["text"].to_pylist()
            ids, lengths = encoder(texts)
            tokens.write(ids.astype(encoder.dtype).data)
            exported = lines(texts, encoding.component) if encoding.text else [b""] * len(texts)
            text.writelines(exported)
            sizes = np.diff(offsets_of(kept["text"])).astype(np.int64)
            measures = {"bytes": sizes, "length": lengths, "width": [len(line) for line in exported]}
            tables.append(placed(kept, encoding.component, measures | {"split": splits, "own": hashes}))
            survey.see(kept, sizes, splits, hashes)
    table = pa.concat_tables(tables)
    for number, name in enumerate(SPLITS):
        rows = in_order(table, number, encoding)
        survey.splits[name] |= {"tokens": int(np.sum(rows["length"])), "lines": int(np.sum(rows["width"]))}
        with pa.OSFile(str(directory / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as file:
            file.write_table(rows.combine_chunks())
    return survey.as_dict()


@cache
def encoder_of(tokenizer: Path, parallel: bool) -> Encoder:
    """A tokenizer takes a second to load, a part is often encoded in less."""
    return Encoder(Tokenizer.load(tokenizer), parallel)


def documents_file(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet file that stays in the corpus."""
    return pq.ParquetWriter(path, schema, compression="zstd")


def append(file: pq.ParquetWriter, batch: pa.RecordBatch) -> None:
    """Write a batch as a row group, unless it is empty."""
    if len(batch):
        file.write_batch(batch)


def side_table(batch: pa.RecordBatch, fate: NDArray[np.uint8], stands: NDArray[Any]) -> pa.RecordBatch:
    """The documents that are not kept, each with the reason and the id of the one that stands for it."""
    out = fate != KEPT
    of = [bytes(id).hex() if f != CONTAMINATED else None for id, f in zip(stands[out], fate[out].tolist(), strict=True)]
    rows = batch.filter(pa.array(out)).append_column("reason", pa.array([REASONS[f] for f in fate[out].tolist()]))
    return rows.append_column("of", pa.array(of, pa.string())).cast(DROPPED)


def placed(kept: pa.RecordBatch, component: str, measures: dict[str, Any]) -> pa.Table:
    """The rows of PLACED."""
    columns = {name: kept[name] for name in ("id", "source", "licence", "url")}
    return pa.table({**columns, "component": pa.repeat(component, len(kept)), **measures}, schema=PLACED)


def in_order(table: pa.Table, split: int, encoding: Encoding) -> pa.Table:
    """A row per copy of the documents of a split, by `order`; with `at` and `line`, where its tokens and line begin.

    `at` counts tokens, `line` bytes.
    """
    starts = {
        name: np.cumsum(table[column].to_numpy()) - table[column].to_numpy()
        for name, column in (("at", "length"), ("line", "width"))
    }
    rows = np.flatnonzero(table["split"].to_numpy() == split)
    own = table["own"].to_numpy()[rows]
    times = copies_of(own, encoding.epochs, encoding.seed) if split == 0 else np.ones(len(rows), np.int64)
    order = [order_of(own[times > copy], copy, encoding.seed) for copy in range(int(times.max(initial=0)))]
    row = np.concatenate([np.empty(0, np.int64), *(rows[times > copy] for copy in range(len(order)))])
    keys = np.concatenate([np.empty(0, np.uint64), *order])
    by_key = np.lexsort((table["own"].to_numpy()[row], keys))
    taken = (
        table.take(pa.array(row[by_key])).drop_columns(["split", "own"]).append_column("order", pa.array(keys[by_key]))
    )
    for name, values in starts.items():
        taken = taken.append_column(name, pa.array(values[row[by_key]]))
    return taken
