"""Object storage (S3): files and directories that are copied to it and from it.

A directory is complete there once its marker is, a file that is written last and removed first. The environment sets
endpoint and credentials, as for all clients of S3: AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""

import errno
import re
import uuid
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from bluejay.extras import install
from bluejay.files import TEMPORARY, atomic_directory, sync

SCHEME = "s3://"
PART_BYTES, MOST_PARTS = 16 << 20, 9_000
"""Least size and greatest number of the parts of an upload; S3 allows 10,000."""
QUICK_RETRIES = 2
"""How often the first request of a run is sent again; later ones are for about a minute."""
MIRROR, COPIES = "mirror", "copies"
"""In a directory that mirrors object storage: the file with its address, and the folder of what was copied from it."""


@dataclass(frozen=True)
class Storage:
    """A place in object storage. All methods raise OSError, with one sentence, if it cannot be reached or used."""

    address: str
    """s3://BUCKET/FOLDER. Raises ValueError for anything else, and where no client for S3 is installed."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)*/?", self.address):
            raise ValueError(f"{self.address} is not the address of a bucket; write s3://BUCKET/FOLDER")
        bucket(self.address)

    def at(self, name: str) -> "Storage":
        """The place `name` below this one."""
        return Storage(f"{self.address.rstrip('/')}/{name}")

    def check(self) -> None:
        """Raise OSError, soon, if nothing can be listed or written here."""
        with self.errors("used"):
            store, prefix = bucket(self.address, QUICK_RETRIES)
            client().put(store, f"{prefix}/.writable".strip("/"), b"")
            client().list_with_delimiter(store, prefix or None)
            client().delete(store, f"{prefix}/.writable".strip("/"))

    def files(self, name: str = "") -> dict[str, int]:
        """The files below `name`, relative to it, with their bytes; without the empty objects by which S3's console
        and other programs mark folders."""
        with self.errors("listed", name):
            store, prefix = self.place(name)
            above = f"{prefix}/" if prefix else ""
            pages = client().list(store, above or None)
            entries = {entry["path"]: entry["size"] for page in pages for entry in page}
        folders = {str(folder) for path in entries for folder in PurePosixPath(path).parents} | {prefix}
        return {path.removeprefix(above): size for path, size in entries.items() if size or path not in folders}

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        try:
            with self.errors("found", name):
                client().head(*self.place(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """The bytes of a small file. Raises FileNotFoundError."""
        with self.errors("read", name):
            return bytes(client().get(*self.place(name)).bytes())

    def put(self, file: Path, name: str) -> None:
        """Copy a file to `name`; it is there as a whole, or not at all."""
        with self.errors("written", name):
            store, key = self.place(name)
            client().put(store, key, file, chunk_size=max(PART_BYTES, file.stat().st_size // MOST_PARTS))

    def get(self, name: str, file: Path) -> None:
        """Copy a file from `name`; it is there as a whole, or not at all. Several processes may copy it at once."""
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}{TEMPORARY}")
        try:
            with self.errors("read", name), temporary.open("wb") as stream:
                for data in client().get(*self.place(name)).stream(min_chunk_size=PART_BYTES):
                    stream.write(data)
            sync(temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def put_directory(self, directory: Path, name: str, marker: str) -> None:
        """Copy a directory to `name`, its marker last."""
        self.delete([f"{name}/{marker}"])
        names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
        for file in [*(file for file in names if file != marker), marker]:
            self.put(directory / file, f"{name}/{file}")
        self.delete([f"{name}/{file}" for file in self.files(name).keys() - set(names)])

    def get_directory(self, name: str, directory: Path) -> None:
        """Copy all files below `name` to a directory, which appears as a whole."""
        with atomic_directory(directory) as temporary:
            for file in self.files(name):
                self.get(f"{name}/{file}", temporary / file)

    def delete(self, names: Collection[str]) -> None:
        """Delete files, if they are there."""
        if names:
            with self.errors("deleted"):
                client().delete(self.place()[0], [self.place(name)[1] for name in names])

    def delete_directory(self, name: str, marker: str) -> None:
        """Delete a directory, its marker first."""
        self.delete([f"{name}/{marker}"])
        self.delete([f"{name}/{file}" for file in self.files(name)])

    def place(self, name: str = "") -> tuple[Any, str]:
        """The store of a file or folder, and its key there."""
        store, prefix = bucket(self.address)
        return store, f"{prefix}/{name}".strip("/")

    @contextmanager
    def errors(self, what: str, name: str = "") -> Generator[None]:
        """Raise the errors of the client as OSError."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        where = self.address.rstrip("/") + (f"/{name}" if name else "")
        try:
            yield
        except FileNotFoundError as error:
            if error.errno is not None:  # of this machine
                raise
            raise FileNotFoundError(errno.ENOENT, f"{where} is not there: {reason(error)}") from None
        except BaseError as error:
            # What a further attempt does not mend has a number, by which a build knows it.
            if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
                raise PermissionError(errno.EACCES, f"{where} cannot be {what}: {reason(error)}") from None
            raise OSError(f"{where} cannot be {what}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What was wrong, in a few words: the server's answer, or that there was none."""
    text = str(error)
    status, code = re.search(r"status code: (\d+[\w ]*)", text), re.search(r"<Code>(\w+)</Code>", text)
    if status:
        return f"the server answers {status[1]}" + (f", {code[1]}" if code else "")
    server = re.search(r"https?://[^/\s]+", text)
    if server and "error sending request" in text:
        return f"{server[0]} does not answer"
    return (text.splitlines() or [type(error).__name__])[0][:200]


def client() -> Any:
    """The client of S3. Raises ValueError: it is not installed."""
    try:
        import obstore
    except ImportError:
        raise ValueError(f"reading s3:// needs obstore: {install('corpus')}") from None
    return obstore


@cache
def bucket(address: str, retries: int | None = None) -> tuple[Any, str]:
    """The store of an address's bucket, and the key in it. Raises ValueError: no client is installed."""
    client()
    from obstore.store import S3Store

    name, _, key = address.removeprefix(SCHEME).partition("/")
    return S3Store(name, **({} if retries is None else {"retry_config": {"max_retries": retries}})), key.strip("/")


def mirror(directory: Path, storage: Storage) -> None:
    """Let a directory mirror object storage: `ensure_local` copies what it lacks."""
    directory.mkdir(parents=True, exist_ok=True)
    if mirrored(directory) != storage:
        temporary = directory / f"{MIRROR}.{uuid.uuid4().hex}{TEMPORARY}"
        temporary.write_text(storage.address, encoding="utf-8")
        temporary.replace(directory / MIRROR)


def mirrored(directory: Path) -> Storage | None:
    """What a directory mirrors; None if nothing."""
    try:
        return Storage((directory / MIRROR).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def ensure_local(path: Path) -> Path:
    """The file or directory itself; or its copy, if it is not there and a directory above it mirrors object storage.

    Copies are made once and kept apart, in ROOT/copies, because a directory there may lack files that nobody asked for.
    """
    if path.exists() and COPIES not in path.parts:
        return path
    root = next((root for root in path.parents if (root / MIRROR).is_file()), None)
    storage = mirrored(root) if root else None
    if root is None or storage is None:
        return path
    name = path.relative_to(root).as_posix().removeprefix(f"{COPIES}/")
    if (root / name).exists():
        return root / name
    copy = root / COPIES / name
    if path.suffix:
        if not copy.exists():
            storage.get(name, copy)
        return copy
    for file in storage.files(name):
        if not (copy / file).exists():
            storage.get(f"{name}/{file}", copy / file)
    return copy
