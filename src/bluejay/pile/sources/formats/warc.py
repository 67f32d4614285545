"""Crawls of the web in WARC files (ISO 28500), the format of Common Crawl."""

import contextlib
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, ClassVar, Literal

from bluejay.pile.documents import MAX_DOCUMENT_BYTES, Document, too_large
from bluejay.pile.sources.formats.html import Extract, page
from bluejay.pile.sources.io.decode import decode_text, start_of
from bluejay.pile.sources.io.open import BROKEN, decompressed
from bluejay.pile.sources.io.ranges import Records
from bluejay.pile.sources.io.records import RecordFiles

XHTML = "application/xhtml+xml"
PAGES = ("text/html", XHTML)
NO_TYPE = ("", "*/*", "unknown/unknown", "application/unknown")
"""What stands for a media type where a server knows none (https://mimesniff.spec.whatwg.org/, section 5)."""
END_OF_TYPE = re.compile(r"[\s;,]")
CRAWLERS = re.compile(r"<?(?:metadata:|urn:x-wpull:|https?://[^/?#]+/robots\.txt\b)", re.IGNORECASE)
"""Addresses of what a crawler writes about a crawl, such as the log of wget, and of what a site says to crawlers."""
SUCCESS = 200
ARC = b"filedesc://"
"""The start of a crawl in the format before WARC."""
GZIP = 16 + zlib.MAX_WBITS
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
HEAD = re.compile(rb"(?s:.*?)\n\r?\n")
"""The header lines of an HTTP message, and the empty line after them."""
LONE_LF = re.compile(rb"(?<!\r)\n")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
"""The line before each chunk of a body: its size, and extensions."""


@dataclass(frozen=True, kw_only=True)
class Warc(RecordFiles):
    """Each successful response that is a web page or plain text, and each conversion to plain text (WET files), is one
    document. The logs of crawlers and robots.txt are not read."""

    RECORDS: ClassVar = Records(b"WARC/1.", whole_members=True)
    kind: Literal["warc"] = "warc"
    extract: Extract = "resiliparse"
    """What extracts the main text. resiliparse is 6 to 30 times faster; The Pile used justext (its section 2.1)."""
    language: str = "English"
    """The language by whose frequent words justext recognises prose, under its English name."""

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The records that are pages, in memory; an exception in place of one that is too large."""
        from fastwarc.warc import ArchiveIterator, WarcRecordType

        kinds = (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion)
        content = decompressed(stream)
        if start_of(content).startswith(ARC):
            raise ValueError("an ARC file; `warcio recompress FILE.arc.gz FILE.warc.gz` makes a WARC file of it")
        unpacked: Any = UntilDamaged(content)
        # All kinds are requested, because a record with truncated headers has none.
        for record in ArchiveIterator(unpacked, record_types=WarcRecordType.any_type, parse_http=False):
            stated = record.headers.get("Content-Length") or "-1"
            if not stated.isdecimal() and stated != "-1":
                raise ValueError(f"a record states {stated!r} as its length, so that its end cannot be found")
            whole = int(stated)
            is_wanted = record.record_type in kinds and not CRAWLERS.match(record.headers.get("WARC-Target-URI") or "")
            if is_wanted and whole <= MAX_DOCUMENT_BYTES:
                content = record.reader.read()
                size = len(content)
                record.set_bytes_content(with_line_ends(content) if record.is_http else content)
            else:
                size = record.reader.consume()
            if size != whole:  # the library mistakes the end of a truncated file for that of the record
                raise EOFError("the archive ends within a record")
            if not is_wanted or whole > MAX_DOCUMENT_BYTES:
                yield too_large() if is_wanted else None
                continue
            with contextlib.suppress(OSError):  # malformed HTTP headers, which `document` reports
                record.parse_http(auto_decode="none")
            is_page = not record.is_http_parsed or status(record) in (SUCCESS, None)
            yield record if is_page and media_type(record) in (*PAGES, "text/plain", "application/http") else None
        if unpacked.error:
            raise unpacked.error

    def document(self, name: str, record: Any) -> Document:
        """The main text of the page."""
        headers = record.headers
        address = headers.get("WARC-Target-URI", name).strip("<>")
        meta = {"record": record.record_id.strip("<>"), "crawled": headers.get("WARC-Date", "")}
        if media_type(record) == "application/http":
            raise ValueError(f"broken HTTP headers: {address}")
        raw = unpacked(record)
        if media_type(record) == "text/plain":
            return Document(decode_text(raw, record.http_charset), name, self.licence, address, meta)
        found = page(self, raw, record.http_charset, name, address, xml=media_type(record) == XHTML)
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


def with_line_ends(message: bytes) -> bytes:
    """An HTTP message whose header lines end with CR and LF, as the library needs them; LF alone is allowed, too (RFC
    9112, section 2.2)."""
    head = HEAD.match(message)
    if head is None or not LONE_LF.search(head[0]):
        return message
    return LONE_LF.sub(b"\r\n", head[0]) + message[head.end() :]


def status(record: Any) -> int | None:
    """The status of a response; None where its headers have none."""
    return record.http_headers.status_code if record.http_headers else None


def unpacked(record: Any) -> bytes:
    """The body of a response. Many crawlers decode bodies and keep the headers that say that they are encoded, so a
    body that is not in an encoding which its headers name is taken as it is."""
    raw = record.reader.read(MAX_DOCUMENT_BYTES + 1)
    headers = record.http_headers if record.is_http_parsed and record.http_headers else {}
    stated = codings(headers.get("Content-Encoding", "")) + codings(headers.get("Transfer-Encoding", ""))
    for coding in reversed(stated):
        raw = decoded(raw, coding)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise too_large()
    return raw


def codings(header: str | None) -> list[str]:
    """The names in a list of codings."""
    return [name.strip().lower().removeprefix("x-") for name in (header or "").split(",")]


def joined(raw: bytes) -> bytes:
    """The chunks of a body (RFC 9112, section 7.1), those before a damage; the body itself if it is not chunked."""
    parts, at = [], 0
    while found := CHUNK.match(raw, at):
        size = int(found[1], 16)
        parts.append(raw[found.end() : found.end() + size])
        at = found.end() + size
        if size == 0 or at >= len(raw):
            return b"".join(parts)
        at += 2 * raw.startswith(b"\r\n", at) or raw.startswith(b"\n", at)
    return b"".join(parts) or raw


def decoded(raw: bytes, coding: str) -> bytes:
    """A body without one coding, what stands before a damage; the body itself if it is not so coded."""
    if coding == "chunked":
        return joined(raw)
    if coding == "br":
        return without_brotli(raw)
    windows = {"gzip": (GZIP,), "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS)}.get(coding, ())
    if coding == "zstd" and raw.startswith(ZSTD_MAGIC):
        return decompressed(io.BytesIO(raw)).read(MAX_DOCUMENT_BYTES + 1)
    for window in windows:
        parts, held = [], raw
        try:
            while held and sum(map(len, parts)) <= MAX_DOCUMENT_BYTES:
                unpacker = zlib.decompressobj(window)
                parts.append(unpacker.decompress(held, MAX_DOCUMENT_BYTES + 1))
                held = unpacker.unused_data if window == GZIP else b""
        except zlib.error:
            pass
        if any(parts):
            return b"".join(parts)
    return raw


def without_brotli(raw: bytes) -> bytes:
    """A body without Brotli's coding; the body itself if it is text already."""
    from fastwarc.stream_io import BrotliReader

    try:
        return BrotliReader(io.BytesIO(raw)).read(MAX_DOCUMENT_BYTES + 1) or raw
    except OSError:
        return raw


def media_type(record: Any) -> str:
    """The media type of the content; "application/http" if the HTTP headers could not be parsed. Where those say none,
    it is that which the crawler identified, or that of a page."""
    kind = record.http_content_type if record.is_http_parsed else record.headers.get("Content-Type")
    named = END_OF_TYPE.split((kind or "").strip(), maxsplit=1)[0].lower()
    if record.is_http_parsed and named in NO_TYPE:
        return (record.headers.get("WARC-Identified-Payload-Type") or "text/html").lower()
    return named
