"""A small wheel in the layout of the real ones, in a cache of its own."""

import gzip
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from bluejay.testsets import catalogue
from bluejay.testsets.rows import UNCONDITIONAL, wheel_file

STORY = "the quick brown fox jumped over the lazy dog while the old grey cat slept on the warm mat"


def arrow(rows: list[dict]) -> bytes:
    """A file of rows as the Hugging Face hub has them."""
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def request(document: int, index: int, context: str, choices: list[str], **more: object) -> dict:
    """A row as OLMES writes it: a request for one choice of a question."""
    doc = {"id": str(document), "query": context, "choices": choices, "gold": 0}
    return {
        "request_type": "loglikelihood",
        "doc": doc,
        "request": {"context": context, "continuation": f" {choices[index]}"},
        "idx": index,
        "doc_id": document,
        "label": 0,
        **more,
    }


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, tuple[str, bytes]]], Path]:
    """Makes a wheel of {name of a test set: (path, content)}, puts it into the cache and names its test sets."""

    def make(contents: dict[str, tuple[str, bytes]]) -> Path:
        file = tmp_path / "small-1.0-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as packed:
            for path, data in contents.values():
                packed.writestr(path, data)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
        place = tmp_path / "cache" / "files" / sha256 / file.name
        place.parent.mkdir(parents=True)
        file.rename(place)
        small = catalogue.Wheel("small", "1.0", sha256)
        for name, (path, _) in contents.items():
            monkeypatch.setitem(catalogue.BY_NAME, name, catalogue.TestSet(name, path, "MIT", small))
        wheel_file.cache_clear()
        return place

    return make


@pytest.fixture
def small(wheel: Callable) -> Path:
    """A wheel with one file of each kind."""
    doubled = [
        request(document, index, context, ["a cat", "a dog"])
        for offset, context in ((0, f"Q {STORY}"), (UNCONDITIONAL, "Answer:"))
        for document in (offset, offset + 1)
        for index in (0, 1)
    ]
    lines = "\n".join(map(json.dumps, doubled)).encode()
    return wheel(
        {
            "table": ("data/table.arrow", arrow([{"text": STORY, "label": 1}, {"text": "short", "label": 0}])),
            "prompts": ("data/prompts.jsonl.gz", gzip.compress(lines)),
            "lines": ("data/lines.jsonl", '{"text": "one\u2028line"}\n\n{"text": "two"}\n'.encode()),
            "sheet": ("data/sheet.csv", b',kind,text\n0,gender,"he, she"\n'),
        }
    )
