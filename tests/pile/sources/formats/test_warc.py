"""WARC files written by warcio come out as their pages."""

import gzip
import io
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from bluejay.pile.sources.formats import warc
from bluejay.pile.sources.formats.warc import Warc

SENTENCE = "This is the sentence number {} of a café, and it is long enough to be taken for the content of a page."


def archive(pages: int = 3, compressed: bool = True) -> bytes:
    """A crawl: of each page a request, an answer; one page that is not there, one picture, one text of a WET file."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=compressed)

    def write(address: str, kind: str, content: bytes, status: str = "200 OK", **headers: str) -> None:
        lines = StatusAndHeaders(status, list({"Content-Type": "text/html", **headers}.items()), protocol="HTTP/1.1")
        http = None if kind == "conversion" else lines
        record = writer.create_warc_record(
            f"http://example.com/{address}", kind, payload=io.BytesIO(content), length=len(content), http_headers=http,
            warc_content_type="text/plain" if kind == "conversion" else "",
            warc_headers_dict={"WARC-Date": "2020-01-02T03:04:05Z"},
        )  # fmt: skip
        writer.write_record(record)

    for number in range(pages):
        page = f"<html lang=en><title>Page {number}</title><nav>Menu</nav><p>{SENTENCE.format(number)}</p></html>"
        write(f"{number}", "request", b"", "GET / HTTP/1.1")
        write(f"{number}", "response", page.encode("latin-1"), **{"Content-Type": "text/html; charset=ISO-8859-1"})
    write("gone", "response", b"<p>not found", "404 Not Found")
    write("picture", "response", b"\x89PNG", **{"Content-Type": "image/png"})
    packed = gzip.compress(f"<p>{SENTENCE.format('packed')}".encode())
    write("packed", "response", packed, **{"Content-Encoding": "gzip", "Content-Type": "text/html; charset=utf-8"})
    write("text", "conversion", "Plain text of a café.".encode())
    return out.getvalue()


@pytest.mark.parametrize("compressed", [True, False])
def test_pages_come_out_with_address_date_and_title(parsed: Callable, compressed: bool) -> None:
    documents, aside = parsed(Warc(path="x"), archive(compressed=compressed))
    assert not aside
    assert [document.text for document in documents] == [
        *(SENTENCE.format(number) for number in (0, 1, 2, "packed")),
        "Plain text of a café.",
    ]
    assert documents[1].url == "http://example.com/1"
    assert documents[1].meta["title"] == "Page 1"
    assert documents[1].meta["language"] == "en"
    assert documents[1].meta["crawled"] == "2020-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("address", "texts"),
    [
        ("http://example.com/notes.txt", ["A text."]),
        ("metadata://gnu.org/software/wget/warc/wget.log", []),
        ("urn:X-wpull:log", []),
        ("https://example.com/robots.txt", []),
    ],
)
def test_what_a_crawl_says_of_itself_is_no_document(parsed: Callable, address: str, texts: list[str]) -> None:
    out = io.BytesIO()
    record = WARCWriter(out).create_warc_record(
        address, "resource", payload=io.BytesIO(b"A text."), length=7, warc_content_type="text/plain"
    )
    WARCWriter(out, gzip=True).write_record(record)
    documents, aside = parsed(Warc(path="x"), out.getvalue())
    assert ([document.text for document in documents], aside) == (texts, [])


@pytest.mark.parametrize("compressed", [True, False])
def test_wherever_a_file_is_cut_the_pages_before_are_kept_and_the_cut_is_told(
    parsed: Callable, compressed: bool
) -> None:
    whole = archive(pages=2, compressed=compressed)
    texts = [document.text for document in parsed(Warc(path="x"), whole)[0]]
    untold = 0
    for cut in range(1, len(whole), 3):
        try:
            documents, aside = parsed(Warc(path="x"), whole[:cut])
        except ValueError:
            continue
        assert [document.text for document in documents] == texts[: len(documents)]
        untold += not aside
    assert untold <= 8 * 5 / 3 + 8  # at the end of a record, and in the two line ends after it, nothing is missing


def test_broken_http_headers_cost_one_page(parsed: Callable) -> None:
    plain = archive(compressed=False)
    at = plain.index(b"HTTP/1.1 200", plain.index(b"/1\r\n"))
    documents, aside = parsed(Warc(path="x"), plain[:at] + b"\xff" * 12 + plain[at + 12 :])
    assert len(documents) + len(aside) == 5
    assert len(documents) >= 4


def test_what_is_no_archive_is_refused(parsed: Callable) -> None:
    with pytest.raises(ValueError, match="an ARC file; `warcio recompress"):
        parsed(
            Warc(path="x"), gzip.compress(b"filedesc://IA-1.arc.gz 0.0.0.0 19960923142103 text/plain 76\n1 0 Alexa\n")
        )
    with pytest.raises(ValueError, match="WARC"):
        parsed(Warc(path="x"), b"no archive at all " * 100)


def responses(*answers: tuple[str, bytes]) -> bytes:
    """A crawl of answers with these headers and bodies, as a crawler received or rewrote them."""
    records = []
    for number, (headers, body) in enumerate(answers):
        http = f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body
        about = {
            "WARC-Type": "response",
            "WARC-Target-URI": f"http://example.com/{number}",
            "WARC-Record-ID": f"<urn:uuid:{number}>",
            "Content-Type": "application/http; msgtype=response",
            "Content-Length": f"{len(http)}",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in about.items())
        records.append(f"WARC/1.0\r\n{lines}\r\n".encode() + http + b"\r\n\r\n")
    return b"".join(records)


PAGE = f"<html><title>T</title><p>{SENTENCE.format('packed')}</html>".encode()
RAW = zlib.compressobj(wbits=-15)
DEFLATED = RAW.compress(PAGE) + RAW.flush()
PACKED = gzip.compress(PAGE, mtime=0)
CHUNKED = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (PAGE[:50], PAGE[50:])) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Transfer-Encoding: chunked", CHUNKED),
        ("Transfer-Encoding: chunked", CHUNKED[:-5]),
        ("Transfer-Encoding: chunked", PAGE),
        ("Content-Encoding: gzip", gzip.compress(PAGE[:60], mtime=0) + gzip.compress(PAGE[60:], mtime=0)),
        ("Content-Encoding: gzip", gzip.compress(PAGE, mtime=0)[:-8]),
        ("Content-Encoding: x-gzip", PAGE),
        ("Content-Encoding: deflate", zlib.compress(PAGE)),
        ("Content-Encoding: deflate", DEFLATED),
        ("Content-Encoding: deflate", PAGE),
        ("Content-Encoding: br", brotli.compress(PAGE)),
        ("Content-Encoding: br", PAGE),
        ("Content-Encoding: zstd", zstandard.compress(PAGE)),
        ("Content-Encoding: gzip\r\nTransfer-Encoding: chunked", gzip.compress(PAGE, mtime=0)),
        ("Transfer-Encoding: gzip, chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED)),
        ("Transfer-Encoding: gzip", PACKED),
        ("Content-Encoding: deflate, gzip", gzip.compress(zlib.compress(PAGE), mtime=0)),
        ("Content-Encoding: identity", PAGE),
        ("Content-Encoding:", PAGE),
    ],
)
def test_bodies_in_any_coding_or_in_none(parsed: Callable, headers: str, body: bytes) -> None:
    plain = ("Content-Type: text/html", PAGE)
    documents, aside = parsed(Warc(path="x"), responses(plain, (f"Content-Type: text/html\r\n{headers}", body), plain))
    assert [document.text for document in documents] == [SENTENCE.format("packed")] * 3
    assert not aside


@pytest.mark.parametrize(
    "header",
    [
        "Server: a",
        "Content-Type:",
        "Content-Type: text/html charset=utf-8",
        "Content-Type: text/html,text/html",
        "Content-Type: TEXT/HTML, charset=utf-8",
        "Content-Type: unknown/unknown",
        "Content-Type: */*; charset=utf-8",
    ],
)
def test_a_page_is_read_however_its_type_is_written(parsed: Callable, header: str) -> None:
    ((document,), aside) = parsed(Warc(path="x"), responses((header, PAGE)))
    assert (document.text, aside) == (SENTENCE.format("packed"), [])


def test_what_has_no_type_and_is_no_text_is_counted(parsed: Callable) -> None:
    picture = responses(("Server: a", bytes(range(256))))
    documents, (aside,) = parsed(Warc(path="x"), picture)
    assert not documents and aside.reason.startswith("not text")
    identified = picture.replace(b"WARC-Target", b"WARC-Identified-Payload-Type: image/png\r\nWARC-Target")
    assert parsed(Warc(path="x"), identified) == ([], [])


@pytest.mark.parametrize("mixed", [False, True])
def test_header_lines_may_end_with_a_line_feed_alone(parsed: Callable, mixed: bool) -> None:
    body = b"\r\n\r\n" + PAGE
    crlf = responses(("Content-Type: text/html\r\nA: b", body), ("Content-Type: image/png", body))
    start = b"OK\r\n" if mixed else b"OK\n"
    head, bare = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nA: b\r\n\r\n", b"HTTP/1.1 200 " + start
    bare += b"Content-Type: text/html\nA: b\n\n"
    length = len(head + body)
    lf = crlf.replace(head, bare).replace(b"Length: %d" % length, b"Length: %d" % len(bare + body))
    documents, aside = parsed(Warc(path="x"), lf + crlf)
    assert ([document.text for document in documents], aside) == ([SENTENCE.format("packed")] * 2, [])


@pytest.mark.parametrize("length", ["abc", "-5"])
def test_a_length_that_is_none_is_said(parsed: Callable, length: str) -> None:
    one = responses(("Content-Type: text/html", PAGE))
    other = one.replace(b"Content-Length: ", f"Content-Length: {length}\r\nWas: ".encode())
    documents, (aside,) = parsed(Warc(path="x"), one + other)
    assert [document.text for document in documents] == [SENTENCE.format("packed")]
    assert f"a record states '{length}' as its length, so that its end cannot be found" in aside.reason


@pytest.mark.parametrize("kind", ["text/plain; charset={}", "text/html; charset={}"])
@pytest.mark.parametrize(
    ("charset", "codec"), [("ISO-8859-1", "cp1252"), ("gb2312", "gb18030"), ("utf-8", "utf-8"), ("klingon", "cp1252")]
)
def test_charsets_of_answers(parsed: Callable, kind: str, charset: str, codec: str) -> None:
    text = SENTENCE.format("中文，镕" if codec == "gb18030" else "“3 €”")
    answer = (f"Content-Type: {kind.format(charset)}", text.encode(codec))
    ((document,), _) = parsed(Warc(path="x"), responses(answer))
    assert document.text == text


def test_a_page_of_xhtml_is_read_as_xml(parsed: Callable) -> None:
    page = f"<html xmlns='http://www.w3.org/1999/xhtml'><head><title/></head><body><p>{SENTENCE}</p></body></html>"
    ((document,), _) = parsed(Warc(path="x"), responses(("Content-Type: application/xhtml+xml", page.encode())))
    assert document.text == SENTENCE


@pytest.mark.parametrize("kind", ["response", "metadata"])
@pytest.mark.parametrize("cut", [0, 100])
def test_a_record_that_is_too_large_costs_itself(
    parsed: Callable, monkeypatch: pytest.MonkeyPatch, kind: str, cut: int
) -> None:
    small, large = ("Content-Type: text/html", PAGE), ("Content-Type: text/html", PAGE + b" " * 5000)
    monkeypatch.setattr(warc, "MAX_DOCUMENT_BYTES", 4000)
    before, middle, after = (responses(answer) for answer in (small, large, small))
    middle = middle.replace(b"WARC-Type: response", f"WARC-Type: {kind}".encode())
    documents, aside = parsed(Warc(path="x"), before + (middle[:-cut] if cut else middle + after))
    reasons = (
        ["larger than"] * (kind == "response") if not cut else ["nothing more can be read after record 0: EOFError"]
    )
    assert [document.text for document in documents] == [SENTENCE.format("packed")] * (1 if cut else 2)
    assert [entry.reason[: len(says)] for entry, says in zip(aside, reasons, strict=True)] == reasons
