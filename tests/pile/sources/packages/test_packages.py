"""Packages through their registries' own clients, from registries on this machine, and from files."""

import base64
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats.html import Html
from bluejay.pile.sources.formats.tables import JSONLines
from bluejay.pile.sources.packages.deb import Deb, licences_in
from bluejay.pile.sources.packages.npm import NPM, licence_in
from bluejay.pile.sources.packages.package import Package
from bluejay.pile.sources.packages.pypi import PyPI

SETUP = b"import pathlib, sys\npathlib.Path('BUILT').touch()\nsys.exit('the sources were built')\n"
METADATA = "Metadata-Version: 2.1\nName: Quiet_Words\nVersion: {version}\nLicense-Expression: {licence}\n\nText.\n"


def tar(files: dict[str, bytes]) -> bytes:
    """A .tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def sdist(version: str = "1.0", licence: str = "MIT") -> bytes:
    """A source distribution whose build would be noticed."""
    files = {
        "setup.py": SETUP,
        "PKG-INFO": METADATA.format(version=version, licence=licence).encode(),
        "words/a.py": f"# version {version}\n".encode(),
        "docs/page.html": b"<html><body><p>A page about the quiet words of the package.</p></body></html>",
        "data/b.jsonl": b'{"text": "one"}\nbroken\n{"text": "two", "license": "CC0-1.0"}\n',
        "words/icon.py": b"\x00\x01",
        "words/latin.py": b"# \x01\x02\x03\n",
        "docs/big.txt": b"x" * 5000,
    }
    return tar({f"quiet_words-{version}/{name}": data for name, data in files.items()})


def wheel(version: str = "1.0") -> bytes:
    """A wheel."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("words/_vendor/other-9.dist-info/METADATA", "Name: other\nVersion: 9\n")
        archive.writestr("words/a.py", f"# version {version}, installed\n")
        archive.writestr(f"quiet_words-{version}.dist-info/METADATA", METADATA.format(version=version, licence="MIT"))
    return packed.getvalue()


class Registry(http.server.ThreadingHTTPServer):
    """A server of files by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        data = self.server.files.get(self.path)
        self.send_response(404 if data is None else 200)
        kind = "text/html" if self.path.startswith("/simple") else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def index(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A Python package index (PEP 503) with two versions, one of them also as a wheel."""
    files = {
        "quiet_words-1.0.tar.gz": sdist(),
        "quiet_words-1.0-py3-none-any.whl": wheel(),
        "quiet_words-2.0.tar.gz": sdist("2.0"),
        "quiet_words-3.0rc1.tar.gz": sdist("3.0rc1"),
    }
    links = "".join(f'<a href="/f/{name}#sha256={sha256(data)}">{name}</a>' for name, data in files.items())
    registry.files["/simple/quiet-words/"] = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
    registry.files |= {f"/f/{name}": data for name, data in files.items()}
    monkeypatch.setenv("PIP_INDEX_URL", f"{registry.url}/simple/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///nowhere")
    return registry


def sha256(data: bytes) -> str:
    """The sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def read(source: Package) -> tuple[list[Document], dict[str, str]]:
    """Documents, and why other members are none."""
    found = [found for unit in source.units() for found in source.read(unit)]
    return [f for f in found if isinstance(f, Document)], {f.name: f.reason for f in found if isinstance(f, Skipped)}


def test_a_source_distribution_is_read_and_not_built(index: Registry, tmp_path: Path) -> None:
    source = PyPI(
        kind="pypi",
        name="Quiet.Words",
        version="1.0",
        sha256=sha256(index.files["/f/quiet_words-1.0.tar.gz"]),
        include=("*.py", "docs/*.txt"),
        exclude=("setup.py",),
        formats=(JSONLines(kind="jsonl", path="data/*.jsonl"), Html(path="docs/*.html")),
        max_bytes=1000,
    )
    documents, aside = read(source)
    assert [(d.url, d.licence, d.source) for d in documents] == [
        ("pkg:pypi/quiet-words@1.0#words/a.py", "MIT", "quiet-words-1.0"),
        ("pkg:pypi/quiet-words@1.0#docs/page.html", "MIT", "quiet-words-1.0"),
        ("pkg:pypi/quiet-words@1.0#data/b.jsonl#1", "MIT", "quiet-words-1.0"),
        ("pkg:pypi/quiet-words@1.0#data/b.jsonl#3", "CC0-1.0", "quiet-words-1.0"),
    ]
    assert aside == {
        "quiet-words-1.0/data/b.jsonl#2": "not JSON: Expecting value: line 1 column 1 (char 0)",
        "quiet-words-1.0/words/icon.py": "binary",
        "quiet-words-1.0/words/latin.py": "not text: it has too many control characters",
        "quiet-words-1.0/docs/big.txt": "larger than 1,000 bytes",
    }
    assert not list(tmp_path.rglob("BUILT"))
    asked = len(index.asked)
    assert read(source)[0] == documents
    assert len(index.asked) == asked, "what is pinned and in the cache needs no registry"


def test_which_file_of_a_release(index: Registry) -> None:
    newest = PyPI(kind="pypi", name="quiet-words", include=("words/a.py",))
    assert [d.text for d in read(newest)[0]] == ["# version 2.0\n"]
    first = PyPI(kind="pypi", name="quiet-words", version="1.0", include=("words/a.py",), licence="CC0-1.0")
    (document,) = read(first)[0]
    assert (document.text, document.licence) == ("# version 1.0, installed\n", "CC0-1.0")
    assert document.source == "quiet-words-1.0"
    other = PyPI(kind="pypi", name="quiet-words", version="1.0", sha256="0" * 64, include=("*",))
    with pytest.raises(ValueError, match=r"quiet-words 1\.0: the index has .*whl \(sha256 .*not what is asked for"):
        other.units()
    with pytest.raises(ValueError, match=r"no sources of quiet-words 9\.0; the newest version is 2\.0$"):
        PyPI(kind="pypi", name="quiet-words", version="9.0", include=("*",)).units()


def test_a_misspelt_package_is_in_no_index_and_the_passwords_of_those_stay_hidden(
    index: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url.replace('//', '//me:secret@')}/simple/")
    with pytest.raises(ValueError, match=rf"^unheard-of is in none of the package indexes: {index.url}/simple/$"):
        PyPI(kind="pypi", name="unheard-of", include=("*",)).units()


def test_an_index_out_of_reach(index: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    index.files["/simple/quiet-words/"] = b'<html><body>Please <a href="/login">log in</a></body></html>'
    with pytest.raises(ValueError, match=r"index cannot be read: .* lists no package, as a network does that asks for"):
        PyPI(kind="pypi", name="quiet-words", include=("*",)).units()
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(ValueError, match="the Python package index cannot be read"):
        PyPI(kind="pypi", name="quiet-words", include=("*",)).units()


def test_a_package_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "quiet_words-1.0.tar.gz"
    file.write_bytes(data := sdist())  # which holds the time
    source = PyPI(kind="pypi", path=str(file), include=("words/a.py",))
    assert source.units() == [f"{sha256(data)}/{file.name}"]
    assert [d.url for d in read(source)[0]] == ["pkg:pypi/quiet-words@1.0#words/a.py"]
    with pytest.raises(ValueError, match="has the sha256"):
        PyPI(kind="pypi", path=str(file), sha256="0" * 64, include=("*",)).units()
    file.write_bytes(tar({"x/y": b""}))
    with pytest.raises(ValueError, match="is no Python package: it has no metadata"):
        list(PyPI(kind="pypi", path=str(file), include=("*",)).read(f"0/{file.name}"))


def test_what_a_recipe_must_say() -> None:
    with pytest.raises(ValueError, match="needs include"):
        PyPI(kind="pypi", name="a")
    with pytest.raises(ValueError, match="needs one of name"):
        NPM(kind="npm", include=("*",))


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_packs_without_running_anything(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {"name": "@scope/words", "version": "1.2.0", "license": "ISC", "scripts": {"prepack": "touch BUILT"}}
    packed = tar({"package/package.json": json.dumps(described).encode(), "package/src/a.js": b"let a\n"})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
    release = {**described, "dist": {"tarball": f"{registry.url}/f/words-1.2.0.tgz", "integrity": integrity}}
    listing = {"name": "@scope/words", "dist-tags": {"latest": "1.2.0"}, "versions": {"1.2.0": release}}
    registry.files |= {"/@scope%2fwords": json.dumps(listing).encode(), "/f/words-1.2.0.tgz": packed}
    for name, value in {"registry": registry.url, "cache": str(tmp_path / "npm"), "update_notifier": "false"}.items():
        monkeypatch.setenv(f"npm_config_{name}", value)
    source = NPM(kind="npm", name="@scope/words", version="1.2.0", sha256=sha256(packed), include=("src/*.js",))
    documents, aside = read(source)
    assert [(d.text, d.url, d.licence) for d in documents] == [
        ("let a\n", "pkg:npm/%40scope/words@1.2.0#src/a.js", "ISC")
    ]
    assert not aside
    assert not list(tmp_path.rglob("BUILT"))
    with pytest.raises(ValueError, match=r"npm cannot get @scope/words 9\.9\.9: "):
        NPM(kind="npm", name="@scope/words", version="9.9.9", include=("*",)).units()


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not installed")
def test_apt_downloads_and_installs_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, archive = tmp_path / "tree", tmp_path / "archive"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: quiet-doc\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: M <m@m>\nDescription: d\n"
    (tree / "DEBIAN/control").write_text(control)
    files = {
        "quiet/manual.txt": "A manual.",
        "quiet-doc/copyright": "Format: x\n\nFiles: debian/*\nLicense: GPL-2+\n\nFiles: *\nLicense: MIT\n text\n",
    }
    for name, text in files.items():
        (tree / "usr/share/doc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / "usr/share/doc" / name).write_text(text)
    archive.mkdir()
    file = archive / "quiet-doc_2.0-1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(file)], check=True, capture_output=True)
    data = file.read_bytes()
    entry = f"{control}Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {sha256(data)}\n"
    (archive / "Packages").write_text(entry)
    (tmp_path / "apt/lists/partial").mkdir(parents=True)
    (tmp_path / "apt/sources.list").write_text(f"deb [trusted=yes] file:{archive} ./\n")
    settings = {
        "Dir::Etc::sourcelist": tmp_path / "apt/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": tmp_path / "apt/lists",
        "Dir::Cache": tmp_path / "apt",
        "APT::Sandbox::User": "",
    }
    (tmp_path / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    subprocess.run(["apt-get", "-qq", "update"], check=True, capture_output=True)
    source = Deb(kind="deb", name="quiet-doc", version="1:2.0-1", sha256=sha256(data), include=("*.txt",))
    (document,) = read(source)[0]
    assert (document.text, document.licence) == ("A manual.", "MIT")
    assert document.url == "pkg:deb/debian/quiet-doc@1:2.0-1#usr/share/doc/quiet/manual.txt"
    with pytest.raises(ValueError, match=r"apt-get cannot get louder-doc.*`apt-get update`"):
        Deb(kind="deb", name="louder-doc", include=("*",)).units()


def test_without_a_client_the_package_is_named(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"perl-doc 5\.36 needs apt-get, which is not on this machine"):
        Deb(kind="deb", name="perl-doc", version="5.36", include=("*",)).units()


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ("\ufeffLicense: Licence publiée".encode(), "Licence publiée"),
        ("License: Licence publiée".encode("latin-1"), "Licence publiée"),
        (b"License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        (b"License: UNKNOWN", "unknown"),
    ],
)
def test_licences_in_the_metadata_of_real_releases(fields: bytes, licence: str, tmp_path: Path) -> None:
    file = tmp_path / "a-1.tar.gz"
    file.write_bytes(tar({"a-1/PKG-INFO": fields + b"\nName: a\nVersion: 1\n\n", "a-1/a.py": b"a = 1\n"}))
    assert [document.licence for document in read(PyPI(kind="pypi", path=str(file), include=("*.py",)))[0]] == [licence]


@pytest.mark.parametrize(
    ("given", "licence"),
    [
        ({"license": "ISC"}, "ISC"),
        ({"licenses": [{"type": "MIT", "url": "x"}, {"type": "GPL-2.0"}]}, "MIT OR GPL-2.0"),
        ({"license": {"type": None, "url": "x"}}, "unknown"),
        ({"license": [None]}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_licences_in_a_package_json(given: dict[str, object], licence: str) -> None:
    assert licence_in(given) == licence


def test_copyright_files() -> None:
    assert licences_in("This is free software.") == "unknown"
    assert licences_in("Format: x\n\nFiles: a\nLicense: MIT\n\nFiles: b\nLicense: GPL-2+\n") == "MIT AND GPL-2+"
