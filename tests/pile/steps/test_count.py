"""A large file read in ranges gives the rows that it gives in one piece."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bluejay.pile.documents import Skipped
from bluejay.pile.recipe import Component
from bluejay.pile.sources.formats.mediawiki import MediaWiki
from bluejay.pile.sources.formats.tables import JSONLines
from bluejay.pile.sources.formats.warc import Warc
from bluejay.pile.steps import read
from bluejay.pile.steps.count import CountRecords, placed
from bluejay.pile.steps.read import Read, parts_of
from tests.pile.sources.formats.test_mediawiki import DUMP, page
from tests.pile.sources.formats.test_warc import archive
from tests.pile.sources.io.test_ranges import text


def rows(source: Any, out: Path) -> tuple[list[dict[str, str]], list[Skipped], int]:
    """The rows and skipped pieces of a source, and of how many parts."""
    parts, _ = parts_of(Component("A", source=(source,)))
    counts = [CountRecords(part).run(out) for part in parts if part.place]
    parts = placed(parts, counts)
    found = [row for part in parts for row in Read(part).rows([])]
    skipped = [row for row in found if isinstance(row, Skipped)]
    return [row for row in found if not isinstance(row, Skipped)], skipped, len(parts)


def lines(n: int) -> bytes:
    """Lines of JSON, of which some are empty and some are no record."""
    found = [json.dumps({"text": line.decode() or "none"}) for line in text(n).split(b"\n")]
    found[5::50], found[7::50] = [""] * len(found[5::50]), ["{"] * len(found[7::50])
    return "\n".join(found).encode()


def dump(n: int) -> bytes:
    """A dump of articles, other pages and broken ones."""
    pages = [
        page(f"{at}", "<b>" if at % 20 == 3 else line.decode(), at % 7) for at, line in enumerate(text(n).split(b"\n"))
    ]
    return DUMP.format("".join(pages)).encode()


def crawl(pages: int) -> bytes:
    """A crawl of many pages, and one of no text between them."""
    whole, page = archive(pages), b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p></p>"
    fields = b"WARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: %d" % len(
        page
    )
    return whole + gzip.compress(b"WARC/1.0\r\n" + fields + b"\r\n\r\n" + page + b"\r\n\r\n") + whole


FILES = {
    "jsonl": (JSONLines(path="x", kind="jsonl"), lines(1500)),
    "jsonl.zst": (JSONLines(path="x", kind="jsonl"), zstandard.compress(lines(500)) + zstandard.compress(lines(900))),
    "warc": (Warc(path="x"), crawl(10)),
    "mediawiki": (MediaWiki(path="x"), bz2.compress(dump(3000), 1)),
}


@pytest.mark.parametrize("kind", FILES)
def test_ranges_give_the_rows_of_the_file(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, data = FILES[kind]
    (tmp_path / "file").write_bytes(data)
    source = type(source)(**{**vars(source), "path": str(tmp_path / "file")})
    whole = rows(source, tmp_path)
    monkeypatch.setattr(read, "PART_BYTES", len(data) // 5)
    cut = rows(source, tmp_path)
    assert whole[2] == 1 and cut[2] >= (2 if kind == "jsonl.zst" else 3)
    assert cut[:2] == whole[:2]
    assert len(whole[0]) > 20 and whole[1]


def test_a_broken_member_costs_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, place = archive(10), tmp_path / "file"
    members = [at for at in range(len(whole)) if whole.startswith(b"\x1f\x8b\x08", at)]
    monkeypatch.setattr(read, "PART_BYTES", len(whole) // 5)
    for broken in (3, len(members) // 2):
        at = members[broken] + 12
        place.write_bytes(whole[:at] + bytes(20) + whole[at + 20 :])
        found, skipped, parts = rows(Warc(path=str(place)), tmp_path)
        assert parts >= 3 and len(skipped) == 1
        assert 5 <= len(found) <= 12  # a member may hold a request, which is no document
        assert found[-1]["text"] == "Plain text of a café."


def test_a_file_of_one_value_is_read_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "PART_BYTES", 100)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 100)
    (tmp_path / "b.jsonl").write_text("[\n" + '{"text": "a"},\n' * 100 + "]")
    parts, _ = parts_of(Component("A", source=(JSONLines(path=f"{tmp_path}/*.jsonl", kind="jsonl"),)))
    assert [part.place is None for part in parts] == [False] * 14 + [True]
    assert str(parts[1]).endswith("a.jsonl from byte 100 on")
