"""Crawls of the web: WARC files (ISO 28500), as Common Crawl publishes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from bluejay.pile.document import Document
from bluejay.pile.sources.html import Extract, page
from bluejay.pile.sources.records import RecordFiles

PAGES = ("text/html", "application/xhtml+xml")
SUCCESS = 200


@dataclass(frozen=True, kw_only=True)
class Warc(RecordFiles):
    """Each successful answer that is a web page, and each conversion to plain text (WET files), is one document."""

    kind: Literal["warc"] = "warc"
    extract: Extract = "resiliparse"
    """As in `html`."""
    language: str = "English"
    """As in `html`."""

    def records(self, name: str, stream: BinaryIO) -> Iterator[Any]:
        """Address, record id, date, encoding and content of each page."""
        from fastwarc.warc import ArchiveIterator, WarcRecordType

        kinds = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
        for record in ArchiveIterator(stream, record_types=kinds, parse_http=True, auto_decode="all"):
            kind, charset, headers = "text/plain", "utf-8", record.headers
            if record.record_type != WarcRecordType.conversion:
                kind, charset = record.http_content_type or headers.get("Content-Type", ""), record.http_charset
                if record.is_http_parsed and record.http_headers.status_code != SUCCESS:
                    kind = ""
            if kind.split(";")[0].strip().lower() not in (*PAGES, "text/plain"):
                yield None
                continue
            address, date = headers.get("WARC-Target-URI", name).strip("<>"), headers.get("WARC-Date", "")
            yield address, record.record_id, date, kind, charset, record.reader.read()

    def document(self, name: str, record: Any) -> Document:
        """The page without its boilerplate."""
        address, identifier, date, kind, charset, raw = record
        meta = {"record": identifier.strip("<>"), "crawled": date}
        if kind == "text/plain":
            return Document(raw.decode("utf-8", "replace"), name, self.licence, address, meta)
        found = page(self, raw, charset, name, address)
        return Document(found.text, name, found.licence, found.url, {**found.meta, **meta})
