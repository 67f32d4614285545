"""Find the documents of a part that share a passage with a test set."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from bluejay.files import sha256_of
from bluejay.pile.recipe import Decontaminate
from bluejay.pile.sources.io.open import local
from bluejay.pile.text.document_table import read_batches
from bluejay.pile.text.test_sets import TestSetIndex, files_of, reason_of
from bluejay.testsets.catalogue import PREFIX
from bluejay.testsets.rows import identity


@dataclass(frozen=True)
class MatchTests:
    """Writes `reasons.parquet`: for each document why it is contaminated, null where it is not."""

    name: ClassVar[str] = "match_tests"
    clean: Path
    tests: tuple[tuple[str, str], ...]
    """Path and checksum of each file of the test sets."""
    ngram: int
    """Words of the shortest passage that counts."""

    def key(self) -> list[Any]:
        """The documents, the names and contents of the test sets, and the length of a passage."""
        return [self.clean.name, self.ngram, [[reason_of(path), checksum] for path, checksum in self.tests]]

    def run(self, out: Path) -> dict[str, Any]:
        index = load_index(self.tests, self.ngram)
        with pq.ParquetWriter(out / "reasons.parquet", pa.schema([("reason", pa.string())])) as writer:
            for batch in read_batches(self.clean / "documents.parquet", ["text"]):
                writer.write_batch(pa.record_batch({"reason": index.reasons(batch["text"])}))
        return {}


def test_files(settings: Decontaminate) -> tuple[tuple[str, str], ...]:
    """Path and checksum of each file of the test sets. Raises ValueError: nothing matches a pattern or a name."""
    paths = [path for pattern in settings.against for path in files_of(pattern)]
    return tuple((path, checksum(path)) for path in paths)


def test_reasons(tests: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The different reasons for which `MatchTests` finds documents contaminated."""
    return tuple(dict.fromkeys(reason_of(path) for path, _ in tests))


def checksum(path: str) -> str:
    """What identifies the content of a test set: the sha256 of a file, or that of the wheel that holds it."""
    return identity(path.removeprefix(PREFIX)) if path.startswith(PREFIX) else sha256_of(local(path))


@cache
def load_index(tests: tuple[tuple[str, str], ...], ngram: int) -> TestSetIndex:
    """The index of test sets, given by path and checksum, which a worker builds once: reading them takes long."""
    return TestSetIndex.load([path for path, _ in tests], ngram)
