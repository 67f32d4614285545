"""`bluejay index`: the index of a corpus, in its folder `index`.

index/SHARD-NNNNN.suffixes     the suffix array of a range of the documents of a token shard (`bluejay.trace.sections`)
index/documents.rows           what is known of each document (`bluejay.trace.document_rows`)

A file is there whole or not at all. The same command continues after an interruption, and after the corpus has grown it
keeps the files whose documents are the same.
"""

import contextlib
import glob
import hashlib
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from bluejay.files import TEMPORARY, cache_directory, write_text
from bluejay.machine import free_memory, n_processors
from bluejay.progress import format_bytes, progress, say
from bluejay.tokens import DOCUMENTS_TABLE, read_index, suffixed
from bluejay.trace.document_rows import ROWS, write_rows
from bluejay.trace.sections import Sections, to_index, write_sections
from bluejay.trace.suffix_arrays import (
    CHUNK_TOKENS,
    FOLDER,
    KIND,
    SUFFIXES,
    IndexShard,
    Range,
    blocks,
    file_name,
    memory_bytes,
    no_corpus,
    require_native,
    suffix_array,
)
from bluejay.train.checkpoint.owner import LOCK, remove_empty
from bluejay.train.data.content import hash_of_shard

SHARD_TOKENS = 2**28
"""The most tokens of an index shard, of which each entry takes 28 bits."""
CORPORA = "corpora"
"""The folder of the cache that notes where corpora are."""
NANOSECONDS = 300
"""Time to sort and write one token on one core, for the estimate that is printed."""


@dataclass(frozen=True)
class TokenFile:
    """A token shard, without its tokens in memory."""

    name: str
    path: Path
    dtype: np.dtype
    offsets: np.ndarray
    """Where each document begins, in tokens, and where the last one ends."""

    @classmethod
    def open(cls, prefix: Path) -> "TokenFile":
        """Raises ValueError or FileNotFoundError: it is damaged, not there, or of a type that cannot be indexed."""
        path = suffixed(prefix, ".bin")
        dtype, offsets = read_index(suffixed(prefix, ".idx"))
        size = path.stat().st_size
        if size != offsets[-1] * dtype.itemsize:
            raise ValueError(f"{path} has {size:,} bytes, and its index says {offsets[-1] * dtype.itemsize:,}")
        if dtype.str not in ("<u2", "<i4"):
            raise ValueError(f"{path} holds numbers of type {dtype}; an index needs uint16 or int32")
        return cls(prefix.name, path, dtype, offsets)


@dataclass(frozen=True)
class Part:
    """Documents of a token shard that one index shard holds."""

    tokens: TokenFile
    first: int
    """Number of its first document."""
    last: int
    """Number of the document after its last one."""

    @property
    def range(self) -> Range:
        """Its tokens."""
        offsets = self.tokens.offsets[self.first : self.last + 1]
        return Range(int(offsets[0]), (offsets - offsets[0]).astype(np.int64))

    @property
    def memory(self) -> int:
        """The most memory that building its index shard takes, in bytes."""
        return memory_bytes(self.range.n_tokens, self.last - self.first, self.tokens.dtype.itemsize == 2)


@dataclass(frozen=True)
class Indexed:
    """The result of `index`."""

    directory: Path
    tokens: int
    documents: int
    shards: int
    """Index shards, of which `built` were made by this call."""
    built: int
    bytes: int
    """Bytes of the index beside the token shards."""

    def summary(self) -> str:
        """The result in one line."""
        each = self.bytes / max(1, self.tokens)
        made = "is up to date" if not self.built else f"has {self.shards} index shards, {self.built} of them new"
        return f"{self.directory}: {self.tokens:,} tokens; {made}; {self.bytes:,} bytes, {each:.2f} a token"


@dataclass(frozen=True)
class Needs:
    """What making an index takes."""

    tokens: int
    shards: int
    """Index shards to be made."""
    bytes: int
    """On the disk."""
    memory: int
    """In bytes, at most."""
    seconds: float


def needs(parts: Sequence[Part], workers: int) -> Needs:
    """What making the index shards of some parts takes, `workers` at once."""
    tokens = sum(part.range.n_tokens for part in parts)
    size = sum(part.range.n_tokens * max(1, part.range.n_tokens.bit_length()) // 8 for part in parts) + tokens // 24
    memory = sum(sorted(part.memory for part in parts)[-workers:])
    return Needs(tokens, len(parts), size, memory, tokens * NANOSECONDS / 1e9 / workers)


def needs_of(corpus: Path) -> Needs:
    """What `index` takes for a corpus that has none. Raises FileNotFoundError or ValueError as it does."""
    parts = [part for shard in token_files(corpus) for part in parts_of(shard, (), SHARD_TOKENS)]
    return needs(parts, workers_for(parts, None))


def index(
    corpus: Path,
    shard_tokens: int = SHARD_TOKENS,
    workers: int | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Indexed:
    """Index the token shards of a corpus, or what of them has no index yet; `advance` is called with the tokens of each
    index shard that is done.

    Raises FileNotFoundError or ValueError: there are no token shards or they cannot be indexed, another call is at work
    on them, or too little memory or room on the disk; OSError: the disk cannot be written.
    """
    require_native()
    directory, shards = corpus / FOLDER, token_files(corpus)
    with locked(directory, f"{corpus} is being indexed"):
        kept = {path: part for shard in shards for path, part in usable(directory, shard)}
        missing = [part for shard in shards for part in parts_of(shard, kept.values(), shard_tokens)]
        all_parts = [*kept.values(), *missing]
        tokens = sum(part.range.n_tokens for part in all_parts)
        for path in directory.glob("*"):  # of a corpus that was built anew since, or cut off by a crash
            if path not in kept and (path.suffix in (SUFFIXES, TEMPORARY)):
                path.unlink()
        if missing:
            announce(directory, missing, workers := workers_for(missing, workers))
            (directory / ROWS).unlink(missing_ok=True)  # without it the index counts as half built
            build(directory, missing, workers, advance)
        if len(list(directory.glob(f"*{SUFFIXES}"))) != len(all_parts):  # on a disk without locks
            raise ValueError(f"another process changed {directory} meanwhile; {to_index(corpus)} again")
        content = {shard.name: hash_of_shard(shard.path.with_suffix("")) for shard in shards}
        write_rows(directory / ROWS, shards, corpus / "tokens" / DOCUMENTS_TABLE, content)
        remember(corpus, content)
        size = sum(path.stat().st_size for path in directory.glob("*"))
        documents = sum(part.last - part.first for part in all_parts)
        return Indexed(directory, tokens, documents, len(all_parts), len(missing), size)


@contextlib.contextmanager
def locked(directory: Path, what: str) -> Generator[None]:
    """Hold the lock of a folder, which is made, and removed if nothing is left in it. Raises ValueError: another
    process holds it; `what` begins the message and says what that process does."""
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(directory / LOCK, timeout=0))
        except Timeout:
            raise ValueError(f"{what} already; wait until that has ended") from None
        except NotImplementedError:  # a disk without locks
            pass
        stack.callback(remove_empty, [directory])
        yield


def token_files(corpus: Path) -> list[TokenFile]:
    """The token shards of a corpus, by name. Raises FileNotFoundError if there are none, ValueError if
    they hold no documents."""
    prefixes = sorted(path.with_suffix("") for path in (corpus / "tokens").glob("*.idx"))
    if not prefixes:
        raise FileNotFoundError(no_corpus(corpus))
    for path in sorted((corpus / "tokens").glob("*.bin")):
        if path.with_suffix("") not in prefixes:
            raise FileNotFoundError(f"{path} has no {path.stem}.idx beside it, which says where its documents begin")
    files = [TokenFile.open(prefix) for prefix in prefixes]
    if all(len(file.offsets) == 1 for file in files):
        raise ValueError(f"{corpus} has no documents, so there is nothing to index")
    return files


def parts_of(shard: TokenFile, kept: Iterable[Part], most: int) -> list[Part]:
    """The documents of a token shard that no index shard holds yet, in parts of about equal size, of at most `most`
    tokens unless a single document has more. Raises ValueError: a document is too long for any index."""
    offsets = shard.offsets
    first = max((part.last for part in kept if part.tokens is shard), default=0)
    begin, total = int(offsets[first]), int(offsets[-1] - offsets[first])
    share, parts = total / max(1, -(-total // most)), []
    while first < len(offsets) - 1:
        until = min(offsets[first] + most, begin + round(share * (len(parts) + 1)))
        last = max(first + 1, int(np.searchsorted(offsets, until, "right")) - 1)
        if offsets[last] - offsets[first] >= 2**30:
            raise ValueError(f"document {first} of {shard.path} has 2^30 tokens or more, too many for an index")
        parts.append(Part(shard, first, last))
        first = last
    return parts


def usable(directory: Path, shard: TokenFile) -> Iterator[tuple[Path, Part]]:
    """The index shards of the first documents of a token shard that can be kept, in order: those that can be opened,
    are whole, and are of its tokens."""
    first = 0
    for path in sorted(directory.glob(f"{glob.escape(shard.name)}-{'[0-9]' * 10}{SUFFIXES}")):
        try:
            opened = IndexShard.open(path, directory.parent)
            part = Part(shard, first, first + len(opened.starts) - 1)
            if (opened.shard, opened.first_document) != (shard.name, first) or part.last >= len(shard.offsets):
                return
            if not np.array_equal(opened.starts, part.range.starts):
                return
            header = Sections(path, KIND)
            header.check()
            if header.values.get("sha256") != survey(part)[0]:
                return
        except ValueError:
            return
        yield path, part
        first = part.last


def survey(part: Part) -> tuple[str, int]:
    """The SHA-256 of the tokens of a part, and the largest of them."""
    digest, largest, left = hashlib.sha256(), 0, part.range.n_tokens
    with part.tokens.path.open("rb") as file:
        file.seek(part.range.first_token * part.tokens.dtype.itemsize)
        while left > 0:
            ids = np.fromfile(file, part.tokens.dtype, min(left, CHUNK_TOKENS))
            if not ids.size:
                raise ValueError(f"{part.tokens.path} was cut off while it was read")
            digest.update(ids.data)
            largest, left = max(largest, int(ids.max())), left - ids.size
    return digest.hexdigest(), largest


def workers_for(parts: list[Part], wanted: int | None) -> int:
    """How many index shards are built at once: as many as there are cores, and fit into memory.

    Raises ValueError if not even one fits.
    """
    most, memory = max(part.memory for part in parts), free_memory()
    if most > memory:
        raise ValueError(
            f"an index shard of {max(part.range.n_tokens for part in parts):,} tokens needs {format_bytes(most)} of "
            f"memory, and {format_bytes(memory)} are free; --shard-tokens makes smaller ones"
        )
    return max(1, min(wanted or n_processors(), len(parts), memory // most))


def announce(directory: Path, parts: list[Part], workers: int) -> None:
    """Say what will be made. Raises ValueError if the disk has no room for it."""
    of = needs(parts, workers)
    there = directory if directory.exists() else directory.parent
    if (room := shutil.disk_usage(there).free) < of.bytes:
        raise ValueError(f"the index needs {format_bytes(of.bytes)} on the disk, and {format_bytes(room)} are free")
    say(
        f"indexing {of.tokens:,} tokens in {of.shards} index shards: {format_bytes(of.bytes)} on the disk, at most "
        f"{format_bytes(of.memory)} of memory, about {of.seconds:,.0f} s"
    )


def build(directory: Path, parts: list[Part], workers: int, advance: Callable[[int], object]) -> None:
    """Build index shards, `workers` at once."""
    with (
        progress("index", sum(part.range.n_tokens for part in parts), "tokens") as bar,
        ThreadPoolExecutor(workers) as pool,  # sorting holds no lock of Python's
    ):
        largest_first = sorted(parts, key=lambda part: -part.range.n_tokens)
        waiting = {pool.submit(build_part, directory, part): part for part in largest_first}
        try:
            for done in as_completed(waiting):
                done.result()
                bar.advance(waiting[done].range.n_tokens)
                advance(waiting[done].range.n_tokens)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def build_part(directory: Path, part: Part) -> None:
    """Build one index shard."""
    digest, largest = survey(part)
    of = part.range
    with part.tokens.path.open("rb") as file:
        values, arrays = suffix_array(file, part.tokens.dtype, of, largest)
        places = blocks(file, of, part.tokens.dtype.itemsize)
    arrays["starts"] = of.starts.astype(np.uint32)
    identity = {"shard": part.tokens.name, "first_document": part.first, "first_token": of.first_token}
    identity |= {"tokens": of.n_tokens, "dtype": part.tokens.dtype.str, "sha256": digest, "blocks": places}
    write_sections(directory / file_name(part.tokens.name, part.first), KIND, values | identity, arrays)


def remember(corpus: Path, content: dict[str, str]) -> None:
    """Note in the cache where token shards of this content are, for models that were trained on them."""
    for digest in content.values():
        with contextlib.suppress(OSError):  # a cache that cannot be written only makes --corpus necessary
            write_text(cache_directory() / CORPORA / hashlib.sha256(digest.encode()).hexdigest(), str(corpus.resolve()))


def remembered(digest: str) -> Path | None:
    """Where a corpus was when a token shard of this content was indexed; None if that is not known."""
    note = cache_directory() / CORPORA / hashlib.sha256(digest.encode()).hexdigest()
    try:
        return Path(note.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
