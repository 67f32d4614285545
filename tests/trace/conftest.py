"""What the tests of tracing share: small corpora, and what brute force finds in them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bluejay.native import native
from bluejay.tokens import TokenWriter

collect_ignore_glob = [] if hasattr(native, "SuffixIndex16") else ["test_*"]  # built without the native part


def write_corpus(
    directory: Path,
    shards: dict[str, Sequence[Sequence[int]]],
    vocab_size: int = 259,
    rows: dict[str, Sequence[dict[str, str]]] | None = None,
) -> Path:
    """A corpus of documents given by their ids; `rows` are its table, which it lacks where they are None."""
    table: dict[str, list] = {name: [] for name in ("id", "component", "source", "licence", "url")}
    table |= {"bytes": [], "length": [], "shard": [], "offset": []}
    for name, documents in shards.items():
        with TokenWriter(directory / "tokens" / name, vocab_size) as writer:
            for number, ids in enumerate(documents):
                offset, length = writer.add(ids)
                known = (rows or {}).get(name, [{}] * len(documents))[number]
                default = {"id": f"{len(table['id']):064x}", "component": "all", "source": "test", "licence": None}
                for key, value in {**default, "url": None, "bytes": length, **known}.items():
                    table[key].append(value)
                table["length"].append(length)
                table["shard"].append(name)
                table["offset"].append(offset)
    if rows is not None:
        pq.write_table(pa.table(table), directory / "tokens" / "documents.parquet")
    return directory


@pytest.fixture
def corpus() -> Callable[..., Path]:
    """Writes a corpus: `corpus(directory, {"train": [[1, 2], [3]]})`."""
    return write_corpus


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing is noted in the user's cache."""
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
