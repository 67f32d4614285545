"""What is at an address, brought into the cache once: http(s) through requests, S3 through obstore, hf through its hub.

CACHE/files/KEY/NAME    KEY is the file's sha256 where the recipe gives it, else that of its address
"""

import fnmatch
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from bluejay.files import cache_directory, sha256_of, sync, write_text
from bluejay.progress import progress

SCHEMES = ("http", "https", "s3", "hf")
CHUNK = 1 << 16
PARTIAL, VERSION, LOCK = ".partial", ".version", ".lock"
"""Ends of names of what stands beside a file while it is fetched: its part, its version, who fetches it."""
TRIES = 3
"""Connections made for one file before it counts as out of reach; each goes on where the last one broke off."""
SECONDS_OF_SILENCE = 60.0


def is_address(path: str) -> bool:
    """Whether a path is an address rather than a file of this machine."""
    return urlsplit(path).scheme in SCHEMES and "://" in path


def find(address: str) -> list[str]:
    """The addresses that fit a pattern, in order; http has no lists, so there it is the address itself.

    On S3, `*` stands for any characters, `/` too; on hf, patterns are those of the shell.
    Raises ValueError: there is none, or the store cannot be reached.
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
    except failures(scheme) as error:
        raise ValueError(f"{address} cannot be listed: {first_line(error)}") from None
    if not found:
        raise ValueError(f"no file matches {address}")
    return found


def objects(address: str) -> list[str]:
    """The objects of S3 that fit a pattern, in order."""
    import obstore

    store, pattern = bucket(address)
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    if fixed == pattern:
        return [address]
    root = address.removesuffix(pattern)
    listed = (entry["path"] for page in obstore.list(store, fixed.rpartition("/")[0] or None) for entry in page)
    return sorted(root + key for key in listed if fnmatch.fnmatchcase(key, pattern))


def fetch(address: str, sha256: str | None = None) -> Path:
    """The file at an address, from the cache or brought into it; what an earlier try left is gone on with.

    Raises ValueError: it cannot be reached, or is not the file with that sha256.
    """
    name = unquote(urlsplit(address).path.rpartition("/")[2])
    file = cached(sha256 or hashlib.sha256(address.encode()).hexdigest(), name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f"{file.name}{LOCK}")):
        if not file.exists() or (sha256 is not None and sha256_of(file) != sha256):
            file.unlink(missing_ok=True)
            bring(address, file, sha256)
    return file


def bring(address: str, file: Path, sha256: str | None) -> None:
    """Fetch what the cache lacks, in a few tries. Raises ValueError as `fetch` does."""
    partial = file.with_name(f"{file.name}{PARTIAL}")
    for left in reversed(range(TRIES)):
        try:
            download(address, partial)
            break
        except failures(urlsplit(address).scheme) as error:
            if not left:
                raise ValueError(f"{without_password(address)} cannot be fetched: {first_line(error)}") from None
    adopt(partial, file, sha256)


def cached(key: str, name: str) -> Path:
    """The place of a file in the cache."""
    return cache_directory() / "files" / key / (name.replace("/", "_").lstrip(".") or "index")


def kept(sha256: str) -> Path | None:
    """The file of the cache with this sha256, whatever its name; None where there is none."""
    files = sorted(cached(sha256, "x").parent.glob("*"))
    whole = [file for file in files if not file.name.endswith((PARTIAL, VERSION, LOCK))]
    return next((file for file in whole if sha256_of(file) == sha256), None)


def adopt(fetched: Path, file: Path, sha256: str | None) -> None:
    """Make what was fetched the cache's file. Raises ValueError, and removes it: it is another file."""
    got = sha256_of(fetched)
    if sha256 is not None and got != sha256:
        fetched.unlink()
        raise ValueError(f"{file.name} has the sha256 {got}, not {sha256}")
    sync(fetched)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(fetched, file)
    tag(fetched).unlink(missing_ok=True)


def download(address: str, partial: Path) -> None:
    """Bring a file's bytes to `partial`, after those that are there and of the same version."""
    scheme = urlsplit(address).scheme
    with partial.open("ab") as file:
        chunks, start, total = http(address, partial) if scheme in ("http", "https") else stored(address, partial)
        file.truncate(start)
        file.seek(start)
        with progress(f"fetch {partial.stem}", total, "B", start) as bar:
            for chunk in chunks:
                file.write(chunk)
                bar.advance(len(chunk))
        if file.tell() < total:
            raise ValueError(f"it ended after {file.tell():,} of {total:,} bytes")


def http(address: str, partial: Path) -> tuple[Iterator[bytes], int, int]:
    """The bytes of a resource, from the byte they start at, and its size (0 where the server does not say)."""
    import requests

    have = partial.stat().st_size
    version = tag(partial).read_text() if have and tag(partial).exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    answer = requests.get(address, headers=headers, stream=True, timeout=SECONDS_OF_SILENCE)
    if not answer.ok:
        answer.close()
        if not version or answer.status_code != requests.codes.requested_range_not_satisfiable:
            answer.raise_for_status()
        tag(partial).unlink()  # all of it is there already, or it has shrunk
        return http(address, partial)
    start = have if answer.status_code == requests.codes.partial_content else 0
    strong = answer.headers.get("ETag", "")
    write_text(tag(partial), "" if strong.startswith("W/") else strong)

    def chunks() -> Iterator[bytes]:
        with answer:
            yield from answer.iter_content(CHUNK)

    return chunks(), start, start + int(answer.headers.get("Content-Length", -start))


def stored(address: str, partial: Path) -> tuple[Iterator[bytes], int, int]:
    """The bytes of an object of S3 or of a file of the hub, from the byte they start at, and its size."""
    if urlsplit(address).scheme == "s3":
        import obstore

        store, key = bucket(address)
        described = obstore.head(store, key)
        start = resumed(partial, described["e_tag"] or "") % max(described["size"], 1)  # whole already: once more
        answer = obstore.get(store, key, options={"range": {"offset": start}}) if start else obstore.get(store, key)
        return map(bytes, answer.stream(min_chunk_size=CHUNK)), start, described["size"]
    described = hub().info(address)
    start = resumed(partial, str(described.get("blob_id", "")))

    def chunks() -> Iterator[bytes]:
        with hub().open(address, "rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK):
                yield chunk

    return chunks(), start, described["size"]


def resumed(partial: Path, version: str) -> int:
    """The byte to go on from: what is there counts if it is of the same version, which is noted."""
    same = bool(version) and tag(partial).exists() and tag(partial).read_text() == version
    write_text(tag(partial), version)
    return partial.stat().st_size if same else 0


def bucket(address: str) -> tuple[Any, str]:
    """A bucket of S3 and the key in it; where S3 is and its keys come from the environment, as AWS_ENDPOINT does."""
    try:
        from obstore.store import S3Store
    except ImportError:
        raise ValueError("reading s3:// needs obstore: pip install 'bluejay[corpus]'") from None
    name, _, key = address.removeprefix("s3://").partition("/")
    return S3Store(name), key


def hub() -> Any:
    """The client of hf://, which speaks fsspec."""
    try:
        from huggingface_hub import HfFileSystem
    except ImportError:
        raise ValueError("reading hf:// needs huggingface_hub: pip install 'bluejay[corpus]'") from None
    return HfFileSystem()


def failures(scheme: str) -> tuple[type[Exception], ...]:
    """What is raised where an address cannot be reached; the clients of S3 and of the hub have classes of their own."""
    found: list[type[Exception]] = [OSError, ValueError]
    with suppress(ImportError):  # a client that is not there has raised none
        if scheme == "s3":
            from obstore.exceptions import BaseError

            found.append(BaseError)
        elif scheme == "hf":
            from httpx2 import HTTPError
            from huggingface_hub.errors import EntryNotFoundError

            found += [HTTPError, EntryNotFoundError]
    return tuple(found)


def tag(partial: Path) -> Path:
    """Where the version of a file that is being fetched is noted."""
    return partial.with_name(f"{partial.name}{VERSION}")


def first_line(error: Exception) -> str:
    """What an error says, short and without the passwords that addresses may hold."""
    return without_password((str(error).splitlines() or [type(error).__name__])[0])


def without_password(text: str) -> str:
    """Addresses in a text without their user and password.

    >>> without_password("https://me:secret@example.org/simple")
    'https://example.org/simple'
    """
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
