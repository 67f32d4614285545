"""Writing files and directories that are either complete or absent, and hashing them.

Everything is written to a hidden temporary path beside the final one and renamed at the end. When writing fails, for
lack of disk space or by an interrupt, the temporary is removed and the previous version remains.
"""

import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".partial"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors that a disk is full, a quota is used up, a file may not be as large."""


def partial_of(path: Path) -> Path:
    """The path beside `path` that a file has while it is downloaded; it is kept, so that a later download resumes."""
    return path.with_name(f"{path.name}{TEMPORARY}")


def unfinished_of(path: Path) -> Path:
    """Where a new file or directory is until it is complete: a hidden name that nobody chooses."""
    return path.with_name(f".{path.name}.new{TEMPORARY}")


@contextmanager
def only_writer(temporary: Path, path: Path) -> Generator[None]:
    """Hold the lock of the temporary file or directory that becomes `path`; it ends with the process. A disk without
    locks is taken as it is. Raises BlockingIOError: another process writes `path`, or has just written it."""
    with ExitStack() as opened:
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
            opened.callback(os.close, descriptor)
            lock(descriptor)
            locked = os.path.samestat(os.fstat(descriptor), temporary.stat())  # else renamed before it was locked
        except (BlockingIOError, FileNotFoundError):
            locked = False
        if not locked:
            raise BlockingIOError(f"another process is writing {path}; wait until that has ended")
        yield


def lock(descriptor: int) -> None:
    """Lock an open file or directory, where its disk has locks. Raises BlockingIOError: another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Have the error of a full disk in the block name what was to be written, where it names nothing."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """Yield a temporary path to write to; it is renamed to `path` on success, and removed on any exception. Where
    `path` is a link, what it leads to is replaced. Of several at once, the last one to end stays."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished_of(path)
    temporary.touch()
    with ExitStack() as held, naming(path):
        try:
            held.enter_context(only_writer(temporary, path))
        except BlockingIOError:  # several processes may write the same file, such as a note in a cache
            temporary = unfinished_of(path.with_name(f"{path.name}.{uuid.uuid4().hex}"))
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def replaced_of(path: Path) -> Path:
    """Where the previous version of a directory is while a new one takes its place: a name that nobody chooses."""
    return path.with_name(f"{path.name}.replaced{TEMPORARY}")


@contextmanager
def atomic_directory(path: Path) -> Generator[Path]:
    """Yield an empty temporary directory to fill; it replaces `path` on success, and is removed on any exception.

    Replacing a directory takes two renames. A crash between them leaves the old one as `replaced_of` names it, which
    the next call restores, so that one complete version always exists. Where `path` is a link, what it leads to is
    replaced, on that disk.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = unfinished_of(path), replaced_of(path)
    if temporary.exists():  # left by a crash
        with only_writer(temporary, path):
            shutil.rmtree(temporary)
    temporary.mkdir()
    with only_writer(temporary, path), naming(path):
        try:
            recover_directory(path)
            yield temporary
            for file in temporary.rglob("*"):
                sync(file)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)  # left by a crash just before the removal below
                path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            recover_directory(path)
            shutil.rmtree(temporary, ignore_errors=True)


def recover_directory(path: Path) -> None:
    """Undo a replacement of `path` that a crash interrupted between its two renames."""
    path = path.resolve()
    old = replaced_of(path)
    if old.exists() and not path.exists():
        old.rename(path)


def set_aside(path: Path, word: str) -> Path:
    """Rename a file or directory to NAME.WORD, or NAME.WORD-2 and so on where that is taken; returns the new path."""
    names = (f"{path.name}.{word}" + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
    free = next(other for name in names if not os.path.lexists(other := path.with_name(name)))
    return path.rename(free)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write small text files; where one cannot be written, none is changed."""
    with ExitStack() as files:  # all of them are written before one is replaced
        for path, text in texts.items():
            files.enter_context(atomic_file(path)).write_text(text, encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError where it is none, or is nested more deeply than can be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_of(values: Any, **options: Any) -> str:
    """Values as JSON, with null for each number that is not finite, which JSON cannot represent."""
    return json.dumps(finite(values), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """Replace numbers that are not finite, also within dictionaries and lists, by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unnested(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A record in which the objects that hold fields of names such as data.text are replaced by their entries, under
    such names."""
    found = dict(record)
    for name in names:
        while name not in found:
            outer = next((key for key in found if name.startswith(f"{key}.") and isinstance(found[key], dict)), None)
            if outer is None:
                break
            found = {f"{outer}.{key}": value for key, value in found.pop(outer).items()} | found
    return found


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whose bytes are in memory atomically, with the permissions that new files have."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def require_writable(path: Path, is_folder: bool = False) -> None:
    """Raise ValueError if a file, or files in a folder, could not be written: before the work whose result they would
    hold."""
    if path.exists() and path.is_dir() != is_folder:
        raise ValueError(f"{path} is a {'file; name a folder' if is_folder else 'folder; name a file'}")
    places = [path.absolute(), *path.absolute().parents][not is_folder :]
    above = next(folder for folder in places if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(f"{path} cannot be written; {above} is {'not a folder' if above.is_file() else 'read-only'}")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a small JSON file, into a directory that is itself written atomically."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Ask the operating system to flush a file to disk, so that a later rename never names an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_directory() -> Path:
    """The directory of downloads: `$BLUEJAY_CACHE`, else `bluejay` in `$XDG_CACHE_HOME` or in `~/.cache`; of a user
    without a home, or with one that cannot hold it, one in the folder of temporary files."""
    if own := os.environ.get("BLUEJAY_CACHE"):
        return Path(own).expanduser()
    return users_directory("XDG_CACHE_HOME", "~/.cache") or Path(tempfile.gettempdir()) / f"bluejay-{os.getuid()}"


def users_directory(variable: str, default: str) -> Path | None:
    """`bluejay` in the directory that an environment variable names, or in one of the home; None for a user without a
    home, or with one that cannot hold it."""
    general = os.environ.get(variable)
    try:
        folder = Path(general or default).expanduser() / "bluejay"
        if not general and not folder.exists():
            require_writable(folder, is_folder=True)
        return folder
    except (RuntimeError, ValueError, OSError):
        return None
