"""Documents of office programs: texts and presentations of Microsoft Office and in OpenDocument."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.formats.faults import record_with_faults
from bluejay.pile.sources.formats.office.blocks import Content, joined
from bluejay.pile.sources.formats.office.opendocument import CONTENT, read_flat, read_opendocument
from bluejay.pile.sources.formats.office.parts import Parts, related, statements
from bluejay.pile.sources.formats.office.rtf import MARK, read_rtf
from bluejay.pile.sources.formats.office.slides import read_slides
from bluejay.pile.sources.formats.office.word import read_word
from bluejay.pile.sources.io.decode import OLD_OFFICE
from bluejay.pile.sources.io.elements import document_element, local_name
from bluejay.pile.sources.io.licences import licence_at, licence_named
from bluejay.pile.sources.io.records import RecordFiles

ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
"""What an encrypted document holds, and an old one, which begins in the same way, does not."""
READERS = {"document": read_word, "presentation": read_slides}
"""What reads a document of Microsoft Office, by the root of its main part."""


@dataclass(frozen=True, kw_only=True)
class Office(RecordFiles):
    """Each file (.docx, .odt, .rtf, .pptx, .odp) is one document, as Markdown: headings, lists, tables, text boxes,
    notes, formulas; no deleted or hidden text, comments, tables of contents, or headers and footers of pages."""

    kind: Literal["office"] = "office"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """What was read of the document; then an exception for each part that is missing or broken. Of what is no
        document, an exception."""
        return record_with_faults(stream, read)

    def document(self, name: str, record: Any) -> Document:
        """The text, with the metadata that the document states."""
        licence = licence_at(record.rights) or licence_named(record.rights) or self.licence
        return Document(joined(record.blocks), name, licence, name, stated(record.meta))


def read(raw: bytes) -> tuple[Content, list[ValueError]]:
    """What the bytes of a file hold, and what is wrong with parts of it. Raises ValueError: they are no document that
    can be read."""
    content = content_of(raw)
    return content, content.faults


def content_of(raw: bytes) -> Content:
    """What the bytes of a file hold. Raises ValueError: they are no document that can be read."""
    if raw.startswith(OLD_OFFICE):
        raise ValueError(
            "encrypted: it needs a password"
            if ENCRYPTED in raw
            else "an office document of an old kind; save it as .docx or .pptx"
        )
    if raw.startswith(MARK):
        return read_rtf(raw)
    if raw.lstrip().startswith((b"<", b"\xef\xbb\xbf<")):
        return read_flat(document_element(raw))
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            parts = Parts(archive)
            return read_opendocument(parts) if CONTENT in parts else read_related(parts)
    except (zipfile.BadZipFile, NotImplementedError) as error:  # the second: a version zipfile cannot read
        raise ValueError(f"not an office document: {error}") from None


def read_related(parts: Parts) -> Content:
    """The text of a document of Microsoft Office. Raises ValueError: it is of another kind."""
    relations = parts.relations("")
    path = related(relations, "officeDocument")
    if not path:
        raise ValueError("not an office document: it names no main part")
    root = parts.xml(path)
    if (reader := READERS.get(local_name(root))) is None:
        is_table = local_name(root) == "workbook"
        raise ValueError("a spreadsheet; save it as CSV" if is_table else "it holds neither text nor slides")
    content = reader(parts, path, root)
    for kind in ("core-properties", "custom-properties"):
        if not (path := related(relations, kind)):
            continue
        try:
            meta, rights = statements(parts.xml(path))
        except ValueError as error:
            content.faults.append(error)
        else:
            content.meta |= stated(meta)
            content.rights = content.rights or rights
    return content
