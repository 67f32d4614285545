"""Files at addresses, downloaded into the cache once: http(s) through httpx2, S3 through obstore, hf through its hub.

CACHE/files/KEY/NAME    KEY is the file's sha256 where the recipe gives it, otherwise that of its address
"""

import fnmatch
import functools
import hashlib
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from netrc import NetrcParseError
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from bluejay.download import Answer, download, http
from bluejay.files import TEMPORARY, cache_directory, partial_of, sha256_of, sync
from bluejay.progress import progress
from bluejay.storage import bucket

SCHEMES = ("http", "https", "s3", "hf")
"""What addresses begin with."""
READ_BYTES = 1 << 16
"""Bytes that are passed on at once."""
REFUSED = {
    "http": ((401,), "write user and password into the recipe, where a saved one has none, or ~/.netrc"),
    "hf": ((401, 403), "accept its terms on its page, then `hf auth login` or set HF_TOKEN"),
}
"""Scheme -> the statuses by which a server refuses access, and what gives it."""
VERSION, LOCK = ".version", ".lock"
"""Suffixes of the files beside a file while it is downloaded: the version of its partial file, and the lock."""
NO_PAGE = re.compile(
    r".+\.(jsonl|ndjson|json|csv|tsv|txt|parquet|arrow|pdf|epub|docx|odt|warc|mbox|zip|tar|tgz|gz|bz2|xz|zst)",
    re.IGNORECASE,
)
"""Names of files that are no web pages."""
PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
"""How a web page begins."""
SECONDS_OF_SILENCE = 60.0
"""How long a server may send nothing before a request fails."""


def is_address(path: str) -> bool:
    """Whether a path is an address rather than a file of this machine."""
    return urlsplit(path).scheme in SCHEMES and "://" in path


def find(address: str) -> list[str]:
    """The addresses that match a pattern, in order; HTTP has no listings, so an http address stands for itself alone.

    On S3, `*` matches any characters including `/`; on hf, patterns are those of the shell.
    Raises ValueError: nothing matches, or the store cannot be reached.
    """
    scheme = urlsplit(address).scheme
    try:
        match scheme:
            case "s3":
                found = objects(address)
            case "hf":
                found = sorted(f"hf://{path}" for path in hub().glob(address))
            case _:
                return [address]
    except errors_of(scheme) as error:
        raise ValueError(f"{address} cannot be listed: {first_line(error)}{advice(scheme, error)}") from None
    if not found:
        raise ValueError(f"no file matches {address}")
    return found


def objects(address: str) -> list[str]:
    """The S3 objects that match a pattern, in order."""
    import obstore

    store, pattern = bucket(address)
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    if fixed == pattern:
        return [address]
    root = address.removesuffix(pattern)
    listed = (entry["path"] for page in obstore.list(store, fixed.rpartition("/")[0] or None) for entry in page)
    return sorted(root + key for key in listed if fnmatch.fnmatchcase(key, pattern))


def fetch(address: str, sha256: str | None = None) -> Path:
    """The file at an address, from the cache or downloaded into it; an interrupted download is resumed.

    Raises ValueError: it cannot be downloaded, or its sha256 is not the given one.
    """
    name = unquote(urlsplit(address).path.rpartition("/")[2])
    file = cached(sha256 or hashlib.sha256(address.encode()).hexdigest(), name)

    def is_there() -> bool:
        return file.exists() and sha256 in (None, sha256_of(file))

    if is_there():  # also in a cache that another user has filled
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f"{file.name}{LOCK}"), mode=0o664):
        if not is_there():
            file.unlink(missing_ok=True)
            download_to(file, address, sha256)
    return file


def download_to(file: Path, address: str, sha256: str | None) -> None:
    """Download a file that the cache lacks. Raises ValueError as `fetch` does."""
    partial, version = partial_of(file), file.with_name(f"{file.name}{VERSION}")
    scheme = urlsplit(address).scheme
    request = functools.partial({"s3": s3, "hf": hf}.get(scheme, web), address)
    done = partial.stat().st_size if partial.exists() else 0
    try:
        with progress(f"fetch {file.name}", 0, "B", done) as bar:
            download(request, partial, bar, file.name, noted=version)
    except errors_of(scheme) as error:
        why = f"{first_line(error)}{advice(scheme, error)}"
        raise ValueError(f"{without_password(address)} cannot be fetched: {why}") from None
    adopt(partial, file, sha256)
    version.unlink(missing_ok=True)


def cached(key: str, name: str) -> Path:
    """The place of a file in the cache."""
    return cache_directory() / "files" / key / (name.replace("/", "_").lstrip(".") or "index")


def cached_by_hash(sha256: str) -> Path | None:
    """The complete file in the cache that has this sha256, whatever its name; None if there is none."""
    files = sorted(cached(sha256, "x").parent.glob("*"))
    complete = [file for file in files if not file.name.endswith((TEMPORARY, VERSION, LOCK))]
    return next((file for file in complete if sha256_of(file) == sha256), None)


def adopt(fetched: Path, file: Path, sha256: str | None) -> None:
    """Move a complete download to its place in the cache. Raises ValueError, and removes it, if its sha256 differs, or
    if it is a web page under the name of something else."""
    got = sha256_of(fetched)
    if got != sha256 and NO_PAGE.fullmatch(file.name) and is_page(fetched):
        fetched.unlink()
        raise ValueError(
            f"a web page came in place of {file.name}: log in where the network or the site asks for it, or name the "
            "address of the file itself (on GitHub that of the button Raw)"
        )
    if sha256 is not None and got != sha256:
        fetched.unlink()
        raise ValueError(f"{file.name} has the sha256 {got}, not {sha256}")
    sync(fetched)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(fetched, file)


def is_page(file: Path) -> bool:
    """Whether a file begins as a web page does."""
    with file.open("rb") as opened:
        return PAGE.match(opened.read(1024)) is not None


@contextmanager
def web(address: str, start: int, version: str | None) -> Generator[Answer]:
    """Request a file over HTTP from byte `start` on, if it still has that version.

    Proxies are those of the environment, and passwords those of the address or of ~/.netrc.
    """
    import httpx2

    def check(response: httpx2.Response) -> None:
        if not response.is_success:
            message = f"{response.status_code} {response.reason_phrase}"
            raise httpx2.HTTPStatusError(message, request=response.request, response=response)

    auth = None
    with suppress(OSError, NetrcParseError):
        auth = None if urlsplit(address).username else httpx2.NetRCAuth()
    with (
        httpx2.Client(follow_redirects=True, auth=auth, timeout=SECONDS_OF_SILENCE) as client,
        http(lambda headers: client.stream("GET", address, headers=headers), check, start, version) as answer,
    ):
        yield answer


@contextmanager
def s3(address: str, start: int, version: str | None) -> Generator[Answer]:
    """Request an object of S3 from byte `start` on, if it still has that version."""
    import httpx2
    import obstore
    from obstore.exceptions import GenericError

    store, key = bucket(address)
    described = obstore.head(store, key)
    size, current = described["size"], described["e_tag"] or ""
    start = start if version == current and start < size else 0
    answer = obstore.get(store, key, options={"range": {"offset": start}}) if start else obstore.get(store, key)
    try:
        yield Answer(start, size, map(bytes, answer.stream(min_chunk_size=READ_BYTES)), current)
    except GenericError as error:  # the connection broke
        raise httpx2.TransportError(str(error)) from error


@contextmanager
def hf(address: str, start: int, version: str | None) -> Generator[Answer]:
    """Request a file of the hub from byte `start` on, if it still has that version."""
    described = hub().info(address)
    current = str(described.get("blob_id", ""))
    start = start if version == current else 0
    with hub().open(address, "rb") as file:
        file.seek(start)
        yield Answer(start, described["size"], iter(lambda: file.read(READ_BYTES), b""), current)


def hub() -> Any:
    """The file system of hf:// addresses, with fsspec's interface."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem()


def errors_of(scheme: str) -> tuple[type[Exception], ...]:
    """What is raised when an address of a scheme cannot be reached; each client has classes of its own."""
    from httpx2 import HTTPError, InvalidURL

    found: list[type[Exception]] = [OSError, ValueError, HTTPError, InvalidURL]
    with suppress(ImportError):  # a client that is not installed has raised nothing
        if scheme == "s3":
            from obstore.exceptions import BaseError

            found.append(BaseError)
        elif scheme == "hf":
            from huggingface_hub.errors import EntryNotFoundError

            found.append(EntryNotFoundError)
    return tuple(found)


def advice(scheme: str, error: Exception) -> str:
    """What to do where the error is a server's refusal, as the end of a sentence; empty for other errors."""
    statuses, remedy = REFUSED.get(scheme.removesuffix("s"), ((), ""))
    return f"; {remedy}" if getattr(getattr(error, "response", None), "status_code", None) in statuses else ""


def first_line(error: Exception) -> str:
    """The first line of an error's message, without the passwords that addresses in it may hold."""
    return without_password((str(error).splitlines() or [type(error).__name__])[0])


def without_password(text: str) -> str:
    """A text with user and password removed from all addresses in it.

    >>> without_password("https://me:secret@example.org/simple")
    'https://example.org/simple'
    """
    return re.sub(r"(?<=://)[^/?#\s]+@", "", text)


def without_credentials(value: Any) -> Any:
    """A value as a corpus may state it: without user and password where it, or a text in its dictionaries and lists,
    begins with an address that has them. The user of an ssh address is no secret, and an address further on in a text,
    as in a query, stays as it is.

    >>> without_credentials("https://me:secret@example.org/?of=https://you@example.com")
    'https://example.org/?of=https://you@example.com'
    """
    if isinstance(value, dict):
        return {key: without_credentials(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_credentials(item) for item in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\A((?!ssh:)[a-z][a-z0-9+.-]*://)[^/?#\s]+@", r"\1", value, flags=re.IGNORECASE)
