"""A file at an address is downloaded once, completely, and is the file that was asked for."""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow.parquet as pq
import pytest

from bluejay.fetch import fetch, is_address
from bluejay.pile.build import build
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report.card import write_card
from bluejay.pile.sources.formats.text import Text
from bluejay.pile.sources.io.open import matching, open_bytes
from bluejay.recipe import check, load

DATA = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """A server of files that supports ranges, and closes the connection where it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.closed: str | None = None
        self.passwords: list[str | None] = []
        self.asked: list[tuple[str, str]] = []
        self.version = '"1"'
        self.cache = Path()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        self.server.passwords.append(self.headers.get("Authorization"))
        if self.server.statuses:
            return self.answer(self.server.statuses.pop(0), b"")
        if self.server.closed and self.server.closed in path:
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        if "list-type=2" in query:
            return self.listing(path)
        data = self.server.files.get(path)
        if data is None:
            return self.answer(404, b"")
        if self.headers.get("Range", "").removeprefix("bytes=") == f"{len(data)}-":
            return self.answer(416, b"")
        if self.headers.get("Range") and self.headers.get("If-Range") in (None, self.server.version):
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last or len(data) - 1) + 1]
            span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            return self.answer(206, part, {"Content-Range": span})
        return self.answer(200, data)

    do_HEAD = do_GET

    def listing(self, bucket: str) -> None:
        """S3's ListObjectsV2."""
        keys = sorted(path.removeprefix(f"{bucket}/") for path in self.server.files if path.startswith(f"{bucket}/"))
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.files[f'{bucket}/{key}'])}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>1</ETag></Contents>"
            for key in keys
        )
        self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode())

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "ETag": self.server.version,
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            "Content-Length": str(len(body)),
            **(headers or {}),
            **self.server.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
            self.wfile.write(body[:cut])
            self.close_connection = cut < len(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("bluejay.download.time.sleep", lambda seconds: None)
    with Server() as server:
        server.cache = tmp_path / "cache"
        server.files["/bucket/data/file%20name.bin"] = DATA
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server: Server) -> None:
    address = f"{server.url}/bucket/data/file%20name.bin"
    file = fetch(address, SHA256)
    assert file.read_bytes() == DATA
    assert file.name == "file name.bin"
    assert fetch(address, SHA256) == file
    assert len(server.asked) == 1
    lock = file.with_name(f"{file.name}.lock")
    assert {path.name for path in file.parent.iterdir()} <= {file.name, lock.name}
    lock.unlink(missing_ok=True)
    lock.mkdir()  # it cannot be locked, as another user's
    assert fetch(address, SHA256) == file


def test_two_at_once_fetch_one_file(server: Server) -> None:
    server.files["/f"] = DATA
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(f"{server.url}/f", SHA256), range(4)))
    assert len(set(found)) == len(server.asked) == 1
    assert found[0].read_bytes() == DATA


def test_a_broken_connection_is_resumed(server: Server) -> None:
    server.files["/f"] = DATA
    server.cuts = [1_500_000, 2_000_000]
    assert fetch(f"{server.url}/f").read_bytes() == DATA
    starts = [int(span.strip("bytes=-") or 0) for _, span in server.asked]
    assert starts[0] == 0
    assert 1_400_000 < starts[1] <= 1_500_000
    assert 3_300_000 < starts[2] <= 3_500_000


def test_a_file_that_has_changed_is_downloaded_anew(server: Server) -> None:
    server.files["/f"] = DATA
    server.cuts = [1_000_000, *[0] * 4]
    with pytest.raises(ValueError, match="cannot be fetched"):
        fetch(f"{server.url}/f")
    server.version, server.files["/f"], server.cuts = '"2"', DATA[::-1], []
    assert fetch(f"{server.url}/f").read_bytes() == DATA[::-1]


def test_a_download_killed_before_its_last_step_is_completed(server: Server) -> None:
    server.files["/f"] = DATA
    server.cuts = [1_000_000, *[0] * 4]
    with pytest.raises(ValueError, match="cannot be fetched"):
        fetch(f"{server.url}/f", SHA256)
    (partial,) = (file for file in (server.cache / "files" / SHA256).iterdir() if file.suffix == ".partial")
    partial.write_bytes(DATA)
    assert fetch(f"{server.url}/f", SHA256).read_bytes() == DATA


def test_a_file_with_another_sha256_is_refused(server: Server) -> None:
    server.files["/f"] = b"something else"
    with pytest.raises(ValueError, match=f"sha256 .*, not {SHA256}"):
        fetch(f"{server.url}/f", SHA256)
    server.files["/f"] = DATA
    assert fetch(f"{server.url}/f", SHA256).read_bytes() == DATA


@pytest.mark.parametrize(
    ("name", "is_refused"), [("a.jsonl.gz", True), ("A.TXT", True), ("page", False), ("a.html", False)]
)
def test_the_page_of_a_login_is_not_kept_as_a_file(name: str, is_refused: bool, server: Server) -> None:
    page = server.files[f"/{name}"] = b"\n<!DOCTYPE html><title>Log in</title>"
    if is_refused:
        for sha256 in (None, SHA256):
            with pytest.raises(ValueError, match=f"a web page came in place of {name}: log in"):
                fetch(f"{server.url}/{name}", sha256)
        server.files[f"/{name}"] = DATA
        assert fetch(f"{server.url}/{name}").read_bytes() == DATA
    else:
        assert fetch(f"{server.url}/{name}").read_bytes() == page


def test_a_file_damaged_in_the_cache_is_downloaded_again(server: Server) -> None:
    server.files["/f"] = DATA
    fetch(f"{server.url}/f", SHA256).write_bytes(DATA[:-1])
    assert fetch(f"{server.url}/f", SHA256).read_bytes() == DATA


def test_a_missing_file_is_reported_in_one_sentence_and_asked_for_once(server: Server) -> None:
    with pytest.raises(ValueError, match=r"missing\.txt cannot be fetched: 404 Not Found$"):
        fetch(f"{server.url}/missing.txt")
    assert len(server.asked) == 1


def test_a_server_that_is_overloaded_for_a_moment_is_asked_again(server: Server) -> None:
    server.files["/f"] = DATA
    server.statuses = [503, 429]
    assert fetch(f"{server.url}/f", SHA256).read_bytes() == DATA
    server.statuses = [503] * 4
    with pytest.raises(ValueError, match=r"g cannot be fetched: no more bytes of g arrive: 503 Service Unavailable"):
        fetch(f"{server.url}/g")


@pytest.mark.parametrize(
    ("asked", "waits"), [("7", 7), ("45", 45), ("soon", 1), ("Thu, 01 Jan 2026 00:00:00 GMT", 1), ("3600", None)]
)
def test_a_server_that_asks_for_a_pause_gets_it(
    asked: str, waits: int | None, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/f"] = DATA
    server.statuses, server.headers = [429], {"Retry-After": asked}
    slept: list[float] = []
    monkeypatch.setattr("bluejay.download.time.sleep", slept.append)
    if waits is None:
        with pytest.raises(ValueError, match=r"429 Too Many Requests; the server asks to wait for 3,600 s$"):
            fetch(f"{server.url}/f")
    else:
        assert fetch(f"{server.url}/f").read_bytes() == DATA
        assert ("the server asks to wait for 45 s" in capsys.readouterr().err) == (waits == 45)
    assert slept == ([waits] if waits else [])


@pytest.mark.parametrize("sent", ["bytes 0-5119999/5120000", ""])
def test_other_bytes_than_those_asked_for_are_not_appended(sent: str, server: Server) -> None:
    server.files["/f"] = DATA
    server.cuts, server.headers = [1_000_000], {"Content-Range": sent}
    assert fetch(f"{server.url}/f").read_bytes() == DATA
    assert [span != "" for _, span in server.asked] == [False, True, False]


def test_passwords_are_those_of_the_address_or_of_netrc(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/f"] = server.files["/g"] = DATA
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login you password hidden\n")
    (tmp_path / ".netrc").chmod(0o600)
    fetch(f"{server.url}/f")
    fetch(f"{server.url.replace('//', '//me:secret@')}/g")
    assert [base64.b64decode((sent or "").split()[1]) for sent in server.passwords] == [b"you:hidden", b"me:secret"]


def test_passwords_are_not_shown(server: Server) -> None:
    with pytest.raises(ValueError, match="cannot be fetched: 404") as raised:
        fetch(f"{server.url.replace('//', '//me:secret@')}/missing.txt")
    assert "secret" not in str(raised.value)


def test_passwords_stay_out_of_a_corpus_and_what_they_opened_is_said(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files |= {
        "/a.txt": b"One text, of a few words.\n" * 40,
        "/b.jsonl": b'{"text": "Another."}\n{"no": 1}\n{"text": "A link.", "from": "https://a.org/?u=https://me@b.org"}\n',
        "/c.epub": b"no book",
    }
    hidden = server.url.replace("//", "//me:s3c@ret@")
    source = [
        {"kind": kind, "path": f"{hidden}/{name}"}
        for kind, name in (("text", "a.txt"), ("jsonl", "b.jsonl"), ("epub", "c.epub"))
    ]
    values = {
        "name": "n",
        "output": str(tmp_path / "out"),
        "tokenizer": {"train": {"vocab_size": 300}},
        "component": [{"name": "A", "source": source}],
    }
    recipe = check(PileRecipe, values, "the test")
    directory = build(recipe).directory
    rows = [row for file in directory.rglob("*.parquet") if file.is_file() for row in pq.read_table(file).to_pylist()]
    written = json.dumps(rows) + write_card(directory).read_text()
    written += "".join((directory / name).read_text() for name in ("report.json", "recipe.toml"))
    assert "ret@" not in written
    assert all(text in written for text in (f"{server.url}/a.txt", f"{server.url}/c.epub", "?u=https://me@b.org"))

    saved = load(PileRecipe, directory / "recipe.toml")
    assert not build(saved).fresh  # the same sources, by which a corpus is known
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "empty"))
    server.statuses = [401] * 9
    with pytest.raises(ValueError, match=r"a\.txt cannot be fetched: 401 Unauthorized; write user and password into"):
        build(replace(saved, output=str(tmp_path / "again")))


def test_a_text_at_an_address_is_read(server: Server) -> None:
    server.files["/notes.txt"] = "Größe".encode()
    source = Text("text", f"{server.url}/notes.txt", licence="CC0-1.0")
    (document,) = [found for unit in source.units() for found in source.read(unit)]
    assert (document.text, document.url, document.licence) == ("Größe", f"{server.url}/notes.txt", "CC0-1.0")


def test_objects_of_s3_are_found_by_pattern(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT": server.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    server.files |= {"/bucket/data/b.txt": b"bee" * 500_000, "/bucket/data/a.txt": b"ay", "/bucket/other.txt": b"x"}
    found = matching("s3://bucket/data/*.txt")
    assert found == ["s3://bucket/data/a.txt", "s3://bucket/data/b.txt"]
    with open_bytes(found[1]) as stream:
        assert stream.read() == b"bee" * 500_000
    server.cuts = [700_000]
    assert fetch("s3://bucket/data/file name.bin", SHA256).read_bytes() == DATA
    with pytest.raises(ValueError, match="no file matches"):
        matching("s3://bucket/data/*.jsonl")


def test_files_of_the_hub_are_found_by_pattern(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", resolve)
    files = {"b.jsonl": DATA, "a.jsonl": b"ay", "README.md": b"x"}
    tree = [{"type": "file", "path": name, "size": len(data), "oid": name} for name, data in files.items()]
    described = {"id": "o/d", "sha": "main", "private": False, "downloads": 0, "likes": 0, "tags": [], "siblings": []}
    server.files |= {f"/datasets/o/d/resolve/main/{name}": data for name, data in files.items()}
    server.files["/api/datasets/o/d"] = json.dumps(described).encode()
    server.files["/api/datasets/o/d/tree/main"] = json.dumps(tree).encode()
    found = matching("hf://datasets/o/d/*.jsonl")
    assert found == ["hf://datasets/o/d/a.jsonl", "hf://datasets/o/d/b.jsonl"]
    assert fetch(found[1]).read_bytes() == DATA
    server.closed = "/resolve/"
    with pytest.raises(ValueError, match=r"a\.jsonl cannot be fetched: 403 .*; accept its terms on its page, then"):
        fetch(found[0])


def test_paths_of_this_machine_are_no_addresses() -> None:
    assert not is_address("C:/data/file.txt")
    assert not is_address("data/http:/x")
    assert is_address("hf://datasets/a/b/c.parquet")
