"""A file to documents, whatever is broken in it."""

from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, Protocol, runtime_checkable

from bluejay.pile.documents import Document, Skipped

LONGEST_REASON = 200
"""Characters; some parsers quote what they could not read."""


@runtime_checkable
class Parser(Protocol):
    """How a format is parsed (`records.RecordFiles`, in which every format says how)."""

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]: ...

    def document(self, name: str, record: Any) -> Document: ...


def parse(source: Parser, name: str, stream: BufferedIOBase, start: int = 0) -> Iterator[Document | Skipped | int]:
    """One result for each record from number `start` on; before the first, and wherever a time limit may begin anew,
    how many records were reached.

    Raises ValueError: the file is broken before its first record; ModuleNotFoundError: its parser is not installed.
    """
    records, reached = source.records(name, stream), 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except ModuleNotFoundError:
            raise
        except Exception as error:  # a dozen libraries share no class for damaged input; it is named in the report
            if reached == 0:
                raise ValueError(reason(error)) from error
            yield Skipped(name, f"nothing more can be read after record {reached - 1}: {reason(error)}")
            return
        reached += record is not None
        if record is None or reached <= start + 1:
            yield reached
        if record is not None and reached > start:
            yield parse_record(source, name, record, reached - 1)


def parse_record(source: Parser, name: str, record: Any, number: int) -> Document | Skipped:
    """The document of one record, or why there is none; a record may itself be the exception that says it."""
    if isinstance(record, Exception):
        return Skipped(label(name, number), reason(record))
    try:
        document = source.document(name, record)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the same: one document is set aside with its reason, the others are read
        return Skipped(label(name, number), reason(error))
    return document if document.text.strip() else Skipped(label(name, number), "there is no text in it")


def label(name: str, number: int) -> str:
    """What a record is called where it is set aside; the first, often the only one, as its file."""
    return f"{name}#{number}" if number else name


def reason(error: Exception) -> str:
    """An exception as a short reason: its own words where they are meant for people."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} ..."
