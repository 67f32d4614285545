"""Books in EPUB 2 and 3 (https://www.w3.org/TR/epub-33/)."""

import io
import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal
from urllib.parse import unquote, urldefrag

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.formats.faults import record_with_faults
from bluejay.pile.sources.formats.html import all_text, page_text
from bluejay.pile.sources.io.elements import document_element, line_of, local_name
from bluejay.pile.sources.io.licences import licence_at
from bluejay.pile.sources.io.open import BROKEN
from bluejay.pile.sources.io.records import RecordFiles
from bluejay.pile.sources.io.unpack import file_in

CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
PAGES = {"application/xhtml+xml", "text/html", "text/x-oeb1-document"}


@dataclass(frozen=True, kw_only=True)
class Epub(RecordFiles):
    """Each book is one document: its chapters in reading order, without tables of contents that are marked as such."""

    kind: Literal["epub"] = "epub"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The package document of the book and the texts of its chapters; then an exception for each chapter that is
        missing or broken. Of what is no book, an exception."""
        return record_with_faults(stream, read_book)

    def document(self, name: str, record: Any) -> Document:
        """The text of the chapters, with the metadata of the package document."""
        package, chapters = record
        values: dict[str, list[str]] = {}
        for node in package.iter():
            if node.tag != local_name(node) and (value := line_of(node)):
                values.setdefault(local_name(node), []).append(value)
        meta = {
            "title": first(values, "title"),
            "authors": values.get("creator", []),
            "date": first(values, "date"),
            "language": first(values, "language"),
        }
        rights = first(values, "rights")
        addresses = [value for key in ("source", "identifier") for value in values.get(key, []) if "://" in value]
        text = "\n\n".join(filter(None, chapters))
        licence = licence_at(rights) or rights or self.licence
        return Document(text, name, licence, next(iter(addresses), name), stated(meta))


def read_book(raw: bytes) -> tuple[Any, list[ValueError]]:
    """The package document of a book with the texts of its chapters, and what is wrong with the others. Raises
    ValueError: it is no book, or encrypted."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as book:
            package, paths = chapters_of(book)
            if hidden := encrypted(book).intersection(paths):
                raise ValueError(f"encrypted: {min(hidden)}")
            chapters = [chapter(book, path) for path in paths]
    except (zipfile.BadZipFile, NotImplementedError, KeyError) as error:  # the second: a version zipfile cannot read
        raise ValueError(f"not an EPUB: {error}") from None
    texts = [text for text in chapters if isinstance(text, str)]
    return (package, texts), [error for error in chapters if isinstance(error, ValueError)]


def chapters_of(book: zipfile.ZipFile) -> tuple[Any, list[str]]:
    """The package document of a book, and the paths of its chapters in reading order."""
    name = root_file(book)
    package = document_element(file_in(book, name))
    return package, spine(package, posixpath.dirname(name))


def first(values: dict[str, list[str]], key: str) -> str:
    """The first value of a statement; empty if it is absent."""
    return next(iter(values.get(key, [])), "")


def root_file(book: zipfile.ZipFile) -> str:
    """The path of the package document."""
    for node in document_element(file_in(book, CONTAINER)).iter():
        if local_name(node) == "rootfile" and (path := node.get("full-path")):
            return path
    raise ValueError("not an EPUB: its container names no package document")


def spine(package: Any, folder: str) -> list[str]:
    """The paths of the chapters, in reading order."""
    items = {node.get("id"): node for node in package.iter() if local_name(node) == "item"}
    order = [items.get(node.get("idref")) for node in package.iter() if local_name(node) == "itemref"]
    paths = (
        posixpath.normpath(posixpath.join(folder, unquote(urldefrag(item.get("href", "")).url)))
        for item in order
        if item is not None and item.get("media-type") in PAGES and "nav" not in item.get("properties", "").split()
    )
    return list(dict.fromkeys(paths))  # several places of one file are one chapter


def encrypted(book: zipfile.ZipFile) -> set[str]:
    """The paths of the files that are encrypted: often only fonts, which are no loss."""
    if ENCRYPTION not in book.namelist():
        return set()
    nodes = document_element(file_in(book, ENCRYPTION)).iter()
    named = [node.get("URI") for node in nodes if local_name(node) == "CipherReference"]
    return {posixpath.normpath(unquote(path)) for path in named if path}


def chapter(book: zipfile.ZipFile, path: str) -> str | ValueError:
    """The text of one chapter, or what is wrong with it."""
    try:
        return all_text(page_text(file_in(book, path), None, xml=True))
    except KeyError:
        return ValueError(f"a chapter is missing: {path}")
    except (*BROKEN, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        return ValueError(f"a chapter is broken: {path}: {error}")
