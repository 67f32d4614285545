"""The first stage: sources to documents on disk, some units of a source at a time."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bluejay.files import sha256_of
from bluejay.pile.documents import Document, Skipped
from bluejay.pile.recipe import Component
from bluejay.pile.sources import Source
from bluejay.pile.sources.io.fetch import is_address
from bluejay.pile.sources.io.open import local
from bluejay.progress import say
from bluejay.recipe import plain
from bluejay.tokenizer import well_formed

PART_BYTES = 64_000_000
"""Files that stand together in a source are read by one task, up to this size."""
ROW_GROUP_BYTES = 16_000_000
"""Text that is held in memory before it is written, and that later stages handle at once."""
LONGEST = 10_000_000
"""Characters of a document; the filters need some 40 bytes for each character of one text."""
RAW = pa.schema([(name, pa.string()) for name in ("text", "source", "licence", "url", "meta")])
ASIDE = pa.schema([(name, pa.string()) for name in ("component", "name", "reason")])


@dataclass(frozen=True)
class Part:
    """Some units of one source of a component: what one task works on, from here to the tokens."""

    component: Component
    source: Source
    units: tuple[str, ...]
    size: int
    """Bytes of its files, as far as they are files of this machine."""

    def decisive(self) -> list[Any]:
        """What its documents follow from; a file that has changed has another size or another time."""
        stamps = [(stat.st_size, stat.st_mtime_ns) for stat in map(stat_of, self.units) if stat]
        return [self.component.name, self.component.licence, plain(self.source), self.units, stamps]


def parts_of(component: Component) -> tuple[list[Part], list[str]]:
    """The parts of a component, and why optional sources are missing.

    Raises ValueError: a source has nothing, and is not optional.
    """
    parts, missing = [], []
    for source in component.source:
        try:
            units = source.units()
        except ValueError as error:
            if not getattr(source, "optional", False):
                raise ValueError(f"component {component.name}: {error}") from None
            say(f"component {component.name} goes without a source: {error}")
            missing.append(str(error))
            continue
        for group, size in grouped(units):
            parts.append(Part(component, source, group, size))
    return parts, missing


def grouped(units: list[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Units in their order, small files together; and the bytes of each group."""
    group: list[str] = []
    held = 0
    for unit in units:
        stat = stat_of(unit)
        size = stat.st_size if stat else PART_BYTES
        if group and held + size > PART_BYTES:
            yield tuple(group), held
            group, held = [], 0
        group.append(unit)
        held += size
    yield tuple(group), held


def stat_of(unit: str) -> os.stat_result | None:
    """The state of the file that a unit is, if it is one."""
    path = Path(unit)
    return path.stat() if not is_address(unit) and path.is_file() else None


def read_part(part: Part, directory: Path) -> dict[str, Any]:
    """Write `documents.parquet` and `aside.parquet`; gives counts, and the checksums of the files that were read."""
    aside: list[Skipped] = []
    with Writer(directory / "documents.parquet", RAW) as writer:
        for unit in part.units:
            for found in unit_documents(part, unit):
                if isinstance(found, Skipped):
                    aside.append(found)
                else:
                    writer.add(row_of(found, part.component), len(found.text))
    rows = [
        {"component": part.component.name, **{key: well_formed(text) for key, text in vars(a).items()}} for a in aside
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=ASIDE), directory / "aside.parquet")
    return {
        "documents": writer.count,
        "set_aside": Counter(short(entry.reason) for entry in aside),
        "inputs": [entry for unit in part.units for entry in input_of(part.source, unit)],
    }


def unit_documents(part: Part, unit: str) -> Iterator[Document | Skipped]:
    """What a unit holds; what makes it unreadable, at once or on the way, is set aside like a broken document."""
    try:
        for found in part.source.read(unit):
            if isinstance(found, Document) and not found.text.strip():
                yield Skipped(found.url, "empty")
            elif isinstance(found, Document) and len(found.text) > LONGEST:
                yield Skipped(found.url, f"longer than {LONGEST:,} characters")
            else:
                yield found
    except (OSError, MemoryError, ImportError):  # of this machine, not of the unit
        raise
    except Exception as error:  # a dozen libraries share no class for damaged input; it is named in the report
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        yield Skipped(unit, reason)


def row_of(document: Document, component: Component) -> dict[str, str]:
    """A source's document as a component's: encodable, with the component's name and licence."""
    licence = document.licence if component.licence == "from-metadata" else component.licence
    meta = json.dumps({"component": component.name, **document.meta}, sort_keys=True, default=str)
    values = {"text": document.text, "source": document.source, "licence": licence, "url": document.url}
    return {**{key: well_formed(value) for key, value in values.items()}, "meta": meta}


def short(reason: str) -> str:
    """The general part of a reason, by which it is counted."""
    return reason.partition(":")[0][:80]


def input_of(source: Source, unit: str) -> list[dict[str, str]]:
    """Name and sha256 of the file that a unit was read from, where it is one file."""
    declared = getattr(source, "sha256", None)
    if declared:
        return [{"name": unit, "sha256": declared}]
    if stat_of(unit) or is_address(unit):
        return [{"name": unit, "sha256": sha256_of(local(unit))}]
    return []


class Writer:
    """A Parquet file that is written a row group at a time, of dictionaries: `writer.add(row, bytes)`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.writer = schema, pq.ParquetWriter(path, schema, compression="lz4")
        self.rows: list[dict[str, str]] = []
        self.held = self.count = 0

    def add(self, row: dict[str, str], size: int) -> None:
        """Append one row of about `size` bytes."""
        self.rows.append(row)
        self.count += 1
        self.held += size
        if self.held >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one row group."""
        self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows, self.held = [], 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None and self.rows:
            self.flush()
        self.writer.close()
