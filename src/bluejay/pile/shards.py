"""Documents to tokens: the tokenizer from the training part, then one shuffled shard per split."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bluejay.pile.gather import SPLITS, uniform
from bluejay.pile.recipe import PileRecipe, TrainTokenizer
from bluejay.pile.report import Report
from bluejay.progress import Bar, progress
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard, TokenWriter

DOCUMENTS_AT_ONCE = 256


def new_tokenizer(choice: TrainTokenizer, seed: int, documents: Path, training_bytes: int) -> Tokenizer:
    """A BPE learned from the training part, or where that is larger than the sample, from a random share of it."""
    share = choice.sample_bytes / max(training_bytes, 1)
    with progress("tokenizer", min(choice.sample_bytes, training_bytes), "B") as bar:

        def sample() -> Iterator[str]:
            for ids, texts in batches(documents / "train.parquet"):
                for document, text in zip(ids, texts, strict=True):
                    if uniform(seed, "sample", document) < share:
                        yield text
                        bar.advance(len(text.encode()))

        return Tokenizer.train(sample(), choice.vocab_size)


def write_shards(recipe: PileRecipe, tokenizer: Tokenizer, documents: Path, tokens: Path, report: Report) -> None:
    """Write `tokens/{train,valid,test}` and `tokens/documents.parquet`, which tells each document's place in them."""
    tokens.mkdir()
    tables = []
    with progress("tokens", sum(report.total(split).bytes for split in SPLITS), "B") as bar:
        for split in SPLITS:
            encoded, sizes = tokens / f"{split}.unshuffled", []
            with TokenWriter(encoded, tokenizer.vocab_size) as shard:
                for texts in encode(tokenizer, documents / f"{split}.parquet", bar):
                    sizes += [size for size, _ in texts]
                    for _, ids in texts:
                        shard.add(ids)
            table = described(documents / f"{split}.parquet", sizes)
            tables.append(shuffled(recipe, split, table, TokenShard(encoded), tokens / split, tokenizer.vocab_size))
            for suffix in (".bin", ".idx"):
                encoded.with_suffix(f".unshuffled{suffix}").unlink()
    table = pa.concat_tables(tables)
    pq.write_table(table, tokens / "documents.parquet", compression="zstd")
    counted = table.group_by(["component", "shard"]).aggregate([("length", "sum")])
    for row in counted.to_pylist():
        report.parts[row["component"]][row["shard"]].tokens = row["length_sum"]


def encode(tokenizer: Tokenizer, path: Path, bar: Bar) -> Iterator[list[tuple[int, list[int]]]]:
    """For each document its size in bytes and its ids, ended by <|endoftext|>; some documents at a time."""
    for _, texts in batches(path):
        sizes = [len(text.encode()) for text in texts]
        yield [(size, [*ids, tokenizer.eot]) for size, ids in zip(sizes, tokenizer.encode_batch(texts), strict=True)]
        bar.advance(sum(sizes))


def described(path: Path, sizes: list[int]) -> pa.Table:
    """What the document table says of documents before their place: id, source, licence, url, component, bytes."""
    table = pq.read_table(path, columns=["id", "source", "licence", "url", "meta"])
    component = pa.array([json.loads(meta)["component"] for meta in table["meta"].to_pylist()], pa.string())
    table = table.drop_columns("meta").append_column("component", component)
    return table.append_column("bytes", pa.array(sizes, pa.int64()))


def shuffled(
    recipe: PileRecipe, split: str, table: pa.Table, encoded: TokenShard, prefix: Path, vocab_size: int
) -> pa.Table:
    """Write a split's documents in their final order, as often as their epochs say; the table's rows in that order."""
    epochs = {component.name: component.epochs if split == "train" else 1.0 for component in recipe.component}
    copies = []
    for row, (document, name) in enumerate(zip(table["id"].to_pylist(), table["component"].to_pylist(), strict=True)):
        whole = math.floor(epochs[name] + uniform(recipe.seed, "epochs", document))
        copies += [(order_of(recipe.seed, copy, document), row) for copy in range(whole)]
    rows = [row for _, row in sorted(copies)]
    with TokenWriter(prefix, vocab_size) as shard:
        places = np.array([shard.add(encoded[row]) for row in rows], dtype=np.int64).reshape(-1, 2)
    table = table.take(pa.array(rows, pa.int64())).append_column("shard", pa.array([split] * len(rows), pa.string()))
    table = table.append_column("offset", pa.array(places[:, 0]))
    return table.append_column("length", pa.array(places[:, 1]))


def order_of(seed: int, copy: int, document: str) -> bytes:
    """What documents are sorted by: a random order that is a pure function of the seed and the texts."""
    return hashlib.sha256(f"{seed}/order/{copy}/{document}".encode()).digest()


def batches(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Ids and texts of a Parquet file of documents, some at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(DOCUMENTS_AT_ONCE, columns=["id", "text"]):
            yield batch["id"].to_pylist(), batch["text"].to_pylist()
