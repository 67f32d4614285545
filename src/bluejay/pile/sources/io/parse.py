"""From a file to documents, whatever parts of it are damaged."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Protocol, runtime_checkable

from bluejay.pile.documents import Document, Skipped, is_machine_fault
from bluejay.pile.sources.io.ranges import FileRange

MAX_REASON = 200
"""Characters of a reason; some parsers quote what they could not read."""


@runtime_checkable
class Parser(Protocol):
    """How a format is parsed: the two methods that `records.RecordFiles` documents and each format implements."""

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]: ...

    def document(self, name: str, record: Any) -> Document: ...


@dataclass(frozen=True)
class Count:
    """Finds the records of a format and parses none."""

    parser: Parser

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        return self.parser.records(name, stream)

    def document(self, name: str, record: Any) -> Document:
        return Document("a record", name, "", name)


def parse(
    source: Parser, name: str, stream: BufferedIOBase, start: int = 0, place: FileRange | None = None
) -> Iterator[Document | Skipped | int]:
    """One result for each record from number `start` on; also the number of records reached so far, before the first
    result and wherever the time limit may restart. The stream may be that of a range of a file, which may be empty.

    Raises ValueError: the file holds no record, or is damaged before the first; and what `is_machine_fault`.
    """
    first = place.first if place else 0
    records, reached, is_empty = source.records(name, stream), 0, True
    while True:
        try:
            record = next(records)
        except StopIteration:
            if is_empty and not (place and place.start):
                raise ValueError("it holds nothing of this kind") from None
            return
        except Exception as error:  # a dozen libraries share no class for damaged input; the report names it
            if is_machine_fault(error):
                raise
            if first + reached == 0:
                raise ValueError(reason(error)) from error
            yield Skipped(name, f"nothing more can be read after record {first + reached - 1}: {reason(error)}")
            return
        is_empty = False
        reached += record is not None
        if record is None or reached <= start + 1:
            yield reached
        if record is not None and reached > start:
            yield parse_record(source, name, record, first + reached - 1)


def parse_record(source: Parser, name: str, record: Any, number: int) -> Document | Skipped:
    """The document of one record, or the reason why there is none; a record may be an exception that states it, or the
    result itself."""
    if isinstance(record, (Document, Skipped)):
        return record
    if isinstance(record, Exception):
        return Skipped(label(name, number), reason(record))
    try:
        document = source.document(name, record)
    except Exception as error:  # likewise; one record is skipped, the others are read
        if is_machine_fault(error):
            raise
        return Skipped(label(name, number), reason(error))
    return document if document.text.strip() else Skipped(label(name, number), "there is no text in it")


def label(name: str, number: int) -> str:
    """The name of a skipped record. The first, often the only one, is named like its file."""
    return f"{name}#{number}" if number else name


def reason(error: Exception) -> str:
    """A short reason from an exception; a ValueError's message is meant for people and needs no class name."""
    if isinstance(error, (MemoryError, RecursionError)):
        return "takes too much memory to parse" if isinstance(error, MemoryError) else "it is nested too deeply"
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} ..."
