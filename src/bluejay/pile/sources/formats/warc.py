"""Crawls of the web in WARC files (ISO 28500), the format of Common Crawl."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document
from bluejay.pile.sources.formats.html import Extract, page
from bluejay.pile.sources.io.open import BROKEN, decompressed
from bluejay.pile.sources.io.records import RecordFiles

PAGES = ("text/html", "application/xhtml+xml")
SUCCESS = 200


@dataclass(frozen=True, kw_only=True)
class Warc(RecordFiles):
    """Each successful response that is a web page, and each conversion to plain text (WET files), is one document."""

    kind: Literal["warc"] = "warc"
    extract: Extract = "resiliparse"
    """What extracts the main text of a page; `html.Html` describes the choices."""
    language: str = "English"
    """The language by whose frequent words justext recognises prose, under its English name."""

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The records that are pages, in memory."""
        from fastwarc.warc import ArchiveIterator, WarcRecordType

        kinds = (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion)
        unpacked: Any = UntilDamaged(decompressed(stream))
        # All kinds are requested, because a record with truncated headers has none.
        for record in ArchiveIterator(unpacked, record_types=WarcRecordType.any_type, parse_http=False):
            whole = int(record.headers.get("Content-Length") or -1)
            record.freeze()
            if record.content_length != whole:  # the library mistakes the end of a truncated file for it
                raise EOFError("the archive ends within a record")
            if record.record_type not in kinds:
                yield None
                continue
            with contextlib.suppress(OSError):  # malformed HTTP headers, which `document` reports
                record.parse_http(auto_decode="all")
            is_page = not record.is_http_parsed or record.http_headers.status_code in (SUCCESS, None)
            yield record if is_page and media_type(record) in (*PAGES, "text/plain", "application/http") else None
        if unpacked.error:
            raise unpacked.error

    def document(self, name: str, record: Any) -> Document:
        """The main text of the page."""
        headers = record.headers
        address = headers.get("WARC-Target-URI", name).strip("<>")
        meta = {"record": record.record_id.strip("<>"), "crawled": headers.get("WARC-Date", "")}
        if media_type(record) == "application/http":
            raise ValueError(f"{address} has broken HTTP headers")
        raw = record.reader.read()
        if media_type(record) == "text/plain":
            return Document(raw.decode("utf-8", "replace"), name, self.licence, address, meta)
        found = page(self, raw, record.http_charset, name, address)
        return Document(found.text, name, found.licence, found.url, {**found.meta, **meta})


class UntilDamaged:
    """A stream that ends where it is damaged, and keeps the error, so that the content before it is not lost."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self.stream: Any = stream
        self.at = 0
        self.error: Exception | None = None

    def tell(self) -> int:
        """The number of bytes read so far."""
        return self.at

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; empty at the end."""
        try:
            content = self.stream.read1(size)
        except BROKEN as error:
            content, self.error = b"", error
        self.at += len(content)
        return content


def media_type(record: Any) -> str:
    """The media type of the content; "application/http" if the HTTP headers could not be parsed."""
    kind = record.http_content_type if record.is_http_parsed else record.headers.get("Content-Type")
    return (kind or "").split(";")[0].strip().lower()
