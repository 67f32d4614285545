"""Sources to documents on disk: each text once, in the part that its own hash puts it in."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bluejay.pile.document import Document, SetAside
from bluejay.pile.recipe import Component, PileRecipe, Split
from bluejay.pile.report import Report
from bluejay.progress import progress
from bluejay.tokenizer import well_formed

SPLITS = ("train", "valid", "test")
SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "licence", "url", "meta")])
ROW_GROUP_BYTES = 16_000_000
"""Text held in memory before it is written."""


def gather(recipe: PileRecipe, directory: Path, report: Report) -> None:
    """Write `directory/{train,valid,test}.parquet`; counts go to the report.

    Raises ValueError: a component without documents.
    """
    directory.mkdir()
    seen: set[bytes] = set()
    sources = sum(len(component.source) for component in recipe.component)
    with ExitStack() as stack:
        files = {split: stack.enter_context(DocumentFile(directory / f"{split}.parquet")) for split in SPLITS}
        bar = stack.enter_context(progress("gather", sources, "sources"))
        for component in recipe.component:
            for document in component_documents(component, report):
                key = bytes.fromhex(document.id)
                if key in seen:
                    report.duplicates[component.name] += 1
                    continue
                seen.add(key)
                split = split_of(document.id, recipe.split, recipe.seed)
                report.parts[component.name][split].count(document)
                files[split].add(document)
                bar.advance(0, f"{len(seen):,} documents")
            bar.advance(len(component.source))
            report.require_documents(component)


def component_documents(component: Component, report: Report) -> Iterator[Document]:
    """The documents of a component as they are kept: encodable, not empty, with the component's name and licence."""
    for source in component.source:
        try:
            for found in source.documents():
                if isinstance(found, Document) and found.text.strip():
                    yield adopted(found, component)
                else:
                    reason = found if isinstance(found, SetAside) else SetAside(found.url, "empty")
                    report.set_aside[component.name].append(reason)
        except ValueError as error:
            raise ValueError(f"component {component.name}: {error}") from None


def adopted(document: Document, component: Component) -> Document:
    """A source's document as a component's."""
    licence = document.licence if component.licence == "from-metadata" else component.licence
    meta = {"component": component.name, **document.meta}
    return dataclasses.replace(document, text=well_formed(document.text), licence=licence, meta=meta)


def split_of(document: str, split: Split, seed: int) -> str:
    """The part that a document belongs to, by its id alone."""
    at = uniform(seed, "split", document)
    return "test" if at < split.test else "valid" if at < split.test + split.valid else "train"


def uniform(seed: int, purpose: str, document: str) -> float:
    """A number in [0, 1) for a document, independent between purposes."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{document}".encode()).digest()[:6]) / 2**48


class DocumentFile:
    """A Parquet file of documents, written a row group at a time."""

    def __init__(self, path: Path) -> None:
        self.writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self.rows: list[dict[str, str]] = []
        self.held = 0

    def add(self, document: Document) -> None:
        """Append one document."""
        meta = json.dumps(document.meta, ensure_ascii=True, sort_keys=True)
        names = {name: well_formed(getattr(document, name)) for name in ("source", "licence", "url")}
        self.rows.append({"id": document.id, "text": document.text, "meta": meta, **names})
        self.held += len(document.text)
        if self.held >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one row group."""
        self.writer.write_table(pa.Table.from_pylist(self.rows, schema=SCHEMA))
        self.rows, self.held = [], 0

    def __enter__(self) -> "DocumentFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.flush()
        self.writer.close()
