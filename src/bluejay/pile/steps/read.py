"""The first step: read the documents of a source, a few of its files at a time."""

import glob
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from bluejay.decompress import MachineFault
from bluejay.fetch import is_address, without_credentials
from bluejay.files import finite, sha256_of
from bluejay.pile.documents import Document, Skipped, as_json
from bluejay.pile.recipe import Component
from bluejay.pile.sources import Source
from bluejay.pile.sources.code.tree import SourceFiles, Tree
from bluejay.pile.sources.folder import HIDDEN
from bluejay.pile.sources.formats.latex import Latex
from bluejay.pile.sources.io.open import local, matches, stamp_of
from bluejay.pile.sources.io.ranges import FileRange
from bluejay.pile.text.document_table import RAW, SKIPPED, TableWriter
from bluejay.progress import say
from bluejay.recipe import plain
from bluejay.tokenizer import well_formed

PART_BYTES = 64_000_000
"""Consecutive files of a source are read by one task, up to this total size."""
MOST_UNITS = 8192
"""Files that one task reads, at most: each takes a part of a millisecond, however small it is."""
PIECE_CHARACTERS = 256_000_000
"""Text of a part that is cleaned, signed and encoded as one; of a larger part, several pieces are."""
MAX_CHARACTERS = 10_000_000
"""Characters of the longest document; the filters need about 40 bytes of memory per character of a text."""
CUT = ("text", "tree")
"""Kinds of sources whose longer texts are cut into several documents; those of other kinds are skipped."""


@dataclass(frozen=True)
class Part:
    """A few units of one source, which pass through the pipeline together up to the tokens."""

    component: Component
    """The component, of whose sources it has only this one."""
    source: Source
    units: tuple[str, ...]
    size: int
    """Bytes of its units, as `size_of` gives them."""
    place: FileRange | None = None
    """The range of its one file, where that is large."""

    def __str__(self) -> str:
        more = f" and {len(self.units) - 1:,} more" if len(self.units) > 1 else ""
        more += f" from byte {self.place.start:,} on" if self.place else ""
        return f"{self.component.name}: {without_credentials(self.units[0])}{more}"

    def key(self) -> list[Any]:
        """The source and its files; a changed file has another size or another modification time."""
        stamps = [stamp for unit in self.units for stamp in stamps_of(self.source, unit)]
        place = [vars(self.place)] if self.place else []
        key = [self.component.name, self.component.licence, plain(self.source), self.units, stamps, *place]
        return without_credentials(key)


@dataclass(frozen=True)
class Read:
    """Read a part. Writes `documents.parquet` (RAW) and `skipped.parquet` (SKIPPED); of a part of more text than
    PIECE_CHARACTERS, such as one of a large file, also `documents-1.parquet` and so on.

    Counts the documents, their files and the skipped pieces of the source by reason, and gives the checksums of the
    files that documents came from.
    """

    name: ClassVar[str] = "read"
    part: Part

    def key(self) -> list[Any]:
        return self.part.key()

    def run(self, out: Path) -> dict[str, Any]:
        counts: dict[str, Any] = {"documents": 0, "pieces": 0, "skipped": Counter[str](), "inputs": []}
        with TableWriter(out / "skipped.parquet", SKIPPED) as aside, ExitStack() as stack:
            writer, size = None, 0
            for row in self.rows(counts["inputs"]):
                if isinstance(row, Skipped):
                    counts["skipped"][reason_class(row.reason)] += 1
                    values = self.part.component.name, without_credentials(row.name), row.reason
                    aside.add(dict(zip(SKIPPED.names, map(well_formed, values), strict=True)), sum(map(len, values)))
                    continue
                if writer is None:
                    writer = stack.enter_context(TableWriter(out / raw_file(counts["pieces"]), RAW))
                    counts["pieces"] += 1
                writer.add(row, len(row["text"]))
                counts["documents"] += 1
                size += len(row["text"])
                # Row groups end where they would without pieces, because text is held out of each one by itself.
                if size >= PIECE_CHARACTERS and not writer.rows:
                    stack.close()
                    writer, size = None, 0
        if not counts["pieces"]:
            counts["pieces"] = 1
            with TableWriter(out / raw_file(0), RAW):
                pass
        return counts

    def rows(self, inputs: list[dict[str, str]]) -> Iterator[dict[str, str] | Skipped]:
        """The documents as rows of RAW, and the other pieces of the source. Adds to `inputs` what `input_of` gives of
        each unit that had a document; of one that is no text, such as an empty disk of 200 GB, that would take long."""
        part = self.part
        for unit in part.units:
            has_document = part.place is not None  # which another range may have
            for found in read_unit(part.source, unit, part.place):
                row = found if isinstance(found, Skipped) else row_of(found, part.component)
                has_document = has_document or not isinstance(row, Skipped)
                yield row
            if has_document:
                inputs += input_of(part.source, unit, part.place)


def raw_file(piece: int) -> str:
    """The name of the file with the documents of a piece of a part."""
    return f"documents-{piece}.parquet" if piece else "documents.parquet"


def parts_of(component: Component, written: Sequence[Path] = ()) -> tuple[list[Part], list[str]]:
    """Split a component into parts; also gives the reasons why optional sources are missing. Files in the folders
    `written`, which are those of the corpus itself, are left out.

    Raises ValueError: a source that is not optional has no units.
    """
    parts, missing = [], []
    for given in component.source:
        try:
            source, units = without_outputs(given, [path.resolve() for path in written])
        except ValueError as error:
            if not getattr(given, "optional", False):
                raise ValueError(f"component {component.name}: {error}") from None
            say(f"component {component.name} is built without one of its sources: {error}")
            missing.append(str(error))
            continue
        for group, size in group_units(source, units):
            places = ranges_of(source, group[0], size) if len(group) == 1 else [None]
            alone = replace(component, source=(source,))  # a task would carry all of the component's sources
            parts += [Part(alone, source, group, size // len(places), place) for place in places]
    return parts, missing


def without_outputs(source: Source, written: Sequence[Path]) -> tuple[Source, list[str]]:
    """A source that leaves out what is in the folders `written`, and its units. That there is a corpus is said.

    Raises ValueError: it has no others.
    """
    path, units, left = getattr(source, "path", None), [], False
    if isinstance(source, Tree):
        root = source.root
        within = [folder.relative_to(root).as_posix() for folder in written if folder.is_relative_to(root)]
        if "." in within or any(root.is_relative_to(folder) for folder in written):
            raise ValueError(f"{path} is where the corpus is written; set output to a folder elsewhere")
        new = [f"{glob.escape(name)}/*" for name in within if not matches(f"{name}/", source.exclude)]
        source, left = replace(source, exclude=(*source.exclude, *new)), bool(new)
        units = source.units()
        if len(source.include) > 1 or source.exclude:
            names = [name for unit in source.folders() for name in (*source.files_in(unit), f"{unit}/")]
            source.say_idle(names, expected=(*HIDDEN, *(f"{glob.escape(name)}/*" for name in within)))
    elif path is None or is_address(path) or isinstance(source, SourceFiles):
        return source, source.units()
    else:
        real, found = cache(Path.resolve), source.units()
        units = [unit for unit in found if not any(real(Path(unit).parent).is_relative_to(own) for own in written)]
        left = len(units) < len(found)
        if not units:
            raise ValueError(f"no file matches {path} but those of the corpus that this recipe makes")
    if left and written[0].exists():
        say(f"the corpus in {written[0]} is left out of {path}, since it is made from that")
    return source, units


def ranges_of(source: Source, unit: str, size: int) -> list[FileRange] | list[None]:
    """The ranges in which a large file is read; None alone for any other unit."""
    records = getattr(source, "RECORDS", None)
    if size <= 2 * PART_BYTES or records is None or stat_of(source, unit) is None or not records.has_ranges(unit):
        return [None]
    n = math.ceil(size / PART_BYTES)
    return [FileRange(size * number // n, size * (number + 1) // n) for number in range(n)]


def group_units(source: Source, units: list[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Group consecutive units up to PART_BYTES and MOST_UNITS; yields each group and its bytes."""
    group: list[str] = []
    group_bytes = 0
    for unit in units:
        size = size_of(source, unit)
        if group and (group_bytes + size > PART_BYTES or len(group) == MOST_UNITS):
            yield tuple(group), group_bytes
            group, group_bytes = [], 0
        group.append(unit)
        group_bytes += size
    yield tuple(group), group_bytes


def size_of(source: Source, unit: str) -> int:
    """The bytes of a unit's files on this machine; PART_BYTES for a unit that has none."""
    if isinstance(source, Tree):
        return sum(int(size) for _, size, *_ in source.stamps(unit))
    stat = stat_of(source, unit)
    return stat.st_size if stat else PART_BYTES


def stat_of(source: Source, unit: str) -> os.stat_result | None:
    """The status of a unit that is a file of this machine; None for any other unit, whatever file has its name."""
    if isinstance(source, SourceFiles) or getattr(source, "path", None) is None or is_address(unit):
        return None
    path = Path(unit)
    return path.stat() if path.is_file() else None


def stamps_of(source: Source, unit: str) -> list[tuple[Any, ...]]:
    """What changes with the files of a unit: what the source says itself, or `stamp_of` its file."""
    stamps = getattr(source, "stamps", None)
    if stamps:
        return stamps(unit)
    return [stamp_of(Path(file)) for file in files_of(source, unit)] if stat_of(source, unit) else []


def files_of(source: Source, unit: str) -> list[str]:
    """The files that a unit, which is a file, is read from: itself, and those that it includes."""
    return source.files_of(unit) if isinstance(source, Latex) else [unit]


def read_unit(source: Any, unit: str, place: FileRange | None = None) -> Iterator[Document | Skipped]:
    """The documents of a unit, or of a range of it. A unit that cannot be read, or only in part, yields a Skipped with
    the reason."""
    try:
        everything = source.read_range(unit, place) if place else source.read(unit)
        for found in cut(everything) if source.kind in CUT else everything:
            if isinstance(found, Document) and not found.text.strip():
                yield Skipped(found.url, "empty")
            elif isinstance(found, Document) and len(found.text) > MAX_CHARACTERS:
                yield Skipped(found.url, f"longer than {MAX_CHARACTERS:,} characters")
            else:
                yield found
    except (OSError, MemoryError, ImportError, MachineFault):  # a fault of this machine, not of the unit
        raise
    except Exception as error:  # a dozen libraries share no class for damaged input; the report names the class
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        yield Skipped(unit, reason)


def cut(everything: Iterable[Document | Skipped]) -> Iterator[Document | Skipped]:
    """What a source gives, of which consecutive documents of one address are a whole text; of a text of more than
    MAX_CHARACTERS, documents that together are that text, numbered from 1 as `part` in `meta`. Each ends after its last
    paragraph, else line, else word, if that leaves it at least half as long."""
    for _, group in groupby(everything, key=lambda found: found.url if isinstance(found, Document) else None):
        document, text, number = None, "", 0
        for found in group:
            if isinstance(found, Skipped):
                yield found
                continue
            document, text, start = found, text + found.text, 0
            while len(text) - start > MAX_CHARACTERS:
                least, most = start + MAX_CHARACTERS // 2, start + MAX_CHARACTERS
                breaks = (text.rfind(mark, least, most) + len(mark) for mark in ("\n\n", "\n", " "))
                end = next((place for place in breaks if place > least), most)
                if text[start:end].strip():
                    number += 1
                    yield replace(document, text=text[start:end], meta={**document.meta, "part": number})
                start = end
            text = text[start:]
        if document and not number:
            yield replace(document, text=text)
        elif document and text.strip():
            yield replace(document, text=text, meta={**document.meta, "part": number + 1})


def row_of(document: Document, component: Component) -> dict[str, str] | Skipped:
    """A row of RAW: text that UTF-8 can encode, addresses without passwords, and the component's name and licence."""
    licence = document.licence if component.licence == "from-metadata" else component.licence
    source, url = without_credentials(document.source), without_credentials(document.url)
    try:
        meta = json_text(without_credentials({**document.meta, "component": component.name}))
        if "\\ud" in meta:  # half of a character that UTF-16 writes as two, which other readers of JSON refuse
            meta = json_text(json.loads(well_formed(json.dumps(json.loads(meta), ensure_ascii=False))))
    except (RecursionError, TypeError) as error:  # TypeError: names that are not all text
        return Skipped(document.url, f"its metadata cannot be written as JSON: {error}")
    values = {"text": document.text, "source": source, "licence": licence, "url": url}
    return {**{key: well_formed(value) for key, value in values.items()}, "meta": meta}


def json_text(value: dict[str, Any]) -> str:
    """A dictionary as JSON, which has neither NaN nor infinity (RFC 8259, section 6) nor bytes: they become null."""
    try:
        return json.dumps(value, sort_keys=True, default=as_json, allow_nan=False)
    except ValueError:
        return json.dumps(finite(value), sort_keys=True, default=as_json)


def reason_class(reason: str) -> str:
    """The general part of a reason, under which it is counted."""
    return reason.partition(":")[0][:80]


def input_of(source: Source, unit: str, place: FileRange | None) -> list[dict[str, str]]:
    """Name and sha256 of a unit's file and of those that it includes; empty where the unit is not one file, or one that
    may not be read, and for all but its first range."""
    if place and place.start:
        return []
    name = well_formed(without_credentials(unit))
    declared = getattr(source, "sha256", None)
    if declared:
        return [{"name": name, "sha256": declared}]
    if (stat_of(source, unit) and os.access(unit, os.R_OK)) or is_address(unit):
        return [
            {"name": well_formed(without_credentials(file)), "sha256": sha256_of(local(file))}
            for file in files_of(source, unit)
        ]
    return []
