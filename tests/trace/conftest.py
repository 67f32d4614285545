"""What the tests of tracing share: small corpora, and what brute force finds in them."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bluejay.native import native
from bluejay.tokens import TokenWriter
from bluejay.trace.indexing import index
from bluejay.train.loop import train
from bluejay.train.recipe import Checkpoint, Data, Evaluate, Mixture, Train, TrainRecipe
from bluejay.train.schedule import Schedule

collect_ignore_glob = [] if hasattr(native, "first_rows") else ["test_*"]  # built without the native part


TEXTS = [f"the cat number {n} sat on the mat {n * n} times, said the {n}th dog. " * 3 for n in range(30)]
ANSWER = "a most unusual answer about the cats"


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


@pytest.fixture(scope="session")
def project(tmp_path_factory, byte_tokenizer):
    """A corpus, a base model, and one that was fine-tuned from it, in one folder with relative paths."""
    root = tmp_path_factory.mktemp("project")
    documents = [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in TEXTS]
    known = [{"licence": "MIT", "source": f"source {n}", "url": f"https://example.org/{n}"} for n in range(30)]
    known[3] = {"licence": None, "source": "source 3"}
    write_corpus(
        root / "data" / "c",
        {"train": documents[:28], "valid": documents[28:]},
        rows={
            "train": known[:28],
            "valid": known[28:],
        },
    )
    byte_tokenizer.save(root / "data" / "c")
    (root / "pairs.jsonl").write_text(
        "".join(json.dumps({"prompt": f"what of cat {n}?", "completion": f" {ANSWER} {n}"}) + "\n" for n in range(40))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("BLUEJAY_CACHE", str(root / "cache"))
        index(root / "data" / "c")
        small = {"n_layer": 1, "d_model": 16, "n_head": 1}
        often = {"evaluate": Evaluate(every_steps=50, tokens=64), "checkpoint": Checkpoint(every_steps=15)}
        base = Data((Mixture("data/c/tokens/train"),), sequence_length=64)
        train(TrainRecipe("base", base, Train(tokens=64 * 4 * 40, batch_tokens=256, lr=1e-3), small, **often))
        tuned = Data((Mixture("pairs.jsonl"),), sequence_length=64)
        settings = Train(tokens=64 * 2 * 40, batch_tokens=128, lr=1e-3, schedule=Schedule(warmup=0.1))
        train(TrainRecipe("tuned", tuned, settings, init="runs/base/model", **often))
    return root


@pytest.fixture
def moved(project, tmp_path, monkeypatch):
    """The project in another place, and nothing where it was made; the cache only knows the old place."""
    shutil.copytree(project, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "moved"
