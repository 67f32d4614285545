"""Token shards on disk, in the format of Megatron and GPT-NeoX (`megatron/data/indexed_dataset.py`), and their corpus.

PREFIX.bin holds the tokens of all documents end to end, little-endian. PREFIX.idx holds, little-endian and without
padding: the magic `MMIDIDX\\0\\0`, uint64 version 1, uint8 token type, uint64 n entries, uint64 m, int32 size[n] in
tokens, int64 pointer[n] in bytes, int64 document[m]. `TokenWriter` makes every entry one document: document[] is 0..n.

A corpus is a directory that holds its tokenizer, its shards `tokens/{train,valid,test}` and `tokens/documents.parquet`,
the table of the documents in those shards.
"""

import glob
import hashlib
import struct
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bluejay.files import atomic_file, cache_directory, write_text

MAGIC = b"MMIDIDX\x00\x00"
INDEX_HEADER = struct.Struct("<9sQBQQ")
TOKEN_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""numpy's type for each of the format's type codes, without its two floating-point types."""
UINT16_BELOW = 65500
"""Smaller vocabularies are stored in two bytes a token, larger ones in four (Megatron's bound)."""
DOCUMENTS_TABLE = "documents.parquet"
CHECKED_AT_ONCE = 2**16
"""Entries of an index that are checked together."""
REMEMBERED_BYTES = 2**26
"""The check of an index at least this large is not repeated at every start."""
N_PIECES, PIECE_BYTES = 256, 4096
"""Pieces of a large index whose hash shows a change."""


def corpus_of(prefix: str | Path) -> Path:
    """The directory of the corpus that a shard belongs to: DIRECTORY for the shard DIRECTORY/tokens/train."""
    return Path(prefix).parent.parent


def is_corpus(path: Path) -> bool:
    """Whether a path is a corpus: a folder with token shards."""
    return any((path / "tokens").glob("*.idx"))


def shards_named(name: str) -> list[str]:
    """The prefixes of the shards that a name stands for: itself, or those that fit a pattern such as "c/tokens/train-*"
    in its last part, in the order of their names. Raises FileNotFoundError if none fits."""
    if not glob.has_magic(name) or Path(f"{name}.idx").is_file():
        return [name]
    found = sorted(str(path.with_suffix("")) for path in Path(name).parent.glob(f"{Path(name).name}.idx"))
    if not found:
        raise FileNotFoundError(f"no token shard fits the pattern {name}: there is no {Path(name).absolute()}.idx")
    return found


def dtype_for(vocab_size: int) -> str:
    """numpy's name of the type in which the ids of a vocabulary are stored."""
    return TOKEN_TYPES[8 if vocab_size < UINT16_BELOW else 4]


class TokenWriter:
    """Writes one shard: `with TokenWriter(prefix, vocab_size) as shard: shard.add(ids)`.

    After the block the shard is complete, or absent if the block raised. Takes 4 bytes of memory per document.
    """

    def __init__(self, prefix: Path, vocab_size: int) -> None:
        self.prefix, self.vocab_size = prefix, vocab_size
        self.dtype = dtype_for(vocab_size)
        self.sizes = array("i")
        self.length = 0

    def __enter__(self) -> "TokenWriter":
        with ExitStack() as stack:
            # The stack unwinds in reverse: the index, without which there is no shard, is renamed into place last.
            self.index = stack.enter_context(atomic_file(suffixed(self.prefix, ".idx")))
            path = stack.enter_context(atomic_file(suffixed(self.prefix, ".bin")))
            self.bin = stack.enter_context(path.open("wb"))
            stack.push(self.finish)
            self.stack = stack.pop_all()
        return self

    def add(self, ids: Sequence[int] | np.ndarray) -> tuple[int, int]:
        """Append one document, including its <|endoftext|>; returns its offset and length in tokens.

        Raises ValueError: an id is outside the vocabulary.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        offset = self.length
        self.extend(tokens, np.array([tokens.size]))
        return offset, tokens.size

    def extend(self, ids: np.ndarray, sizes: np.ndarray) -> None:
        """Append documents: their ids end to end, and the number of ids of each. Raises ValueError as `add` does."""
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            outside = ids[(ids < 0) | (ids >= self.vocab_size)][0]
            raise ValueError(f"token {outside} is outside the vocabulary of {self.vocab_size} tokens")
        assert sizes.sum() == ids.size
        self.bin.write(ids.astype(self.dtype, copy=False).data)
        self.sizes.extend(sizes.tolist())
        self.length += ids.size

    def finish(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Write the index, unless the block raised."""
        if kind is not None:
            return
        sizes = np.array(self.sizes, dtype="<i4")
        offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        code = next(code for code, dtype in TOKEN_TYPES.items() if dtype == self.dtype)
        with self.index.open("wb") as file:
            file.write(INDEX_HEADER.pack(MAGIC, 1, code, len(sizes), len(sizes) + 1))
            file.write(sizes.tobytes())
            file.write((offsets[:-1] * np.dtype(self.dtype).itemsize).astype("<i8").tobytes())
            file.write(np.arange(len(sizes) + 1, dtype="<i8").tobytes())
        # The index of an earlier shard must not describe the new tokens, not even between the two renames to come.
        suffixed(self.prefix, ".idx").unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.stack.__exit__(kind, error, trace)


class TokenShard:
    """A shard read by memory mapping, whoever wrote it: `shard[i]` holds a document's ids, including <|endoftext|>.

    Raises FileNotFoundError: there is no such shard; ValueError: it is truncated or of another format, or its tokens
    and its index disagree.
    """

    tokens: np.ndarray
    """The ids of all documents end to end, mapped from the file (1-D)."""
    sizes: np.ndarray
    """The length of each document in tokens, mapped from the file where an entry of the index is a document."""

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        index, tokens = suffixed(self.prefix, ".idx"), suffixed(self.prefix, ".bin")
        for path in (index, tokens):
            if not path.is_file():
                raise FileNotFoundError(
                    f"no token shard {prefix}: there is no {path.absolute()}; run bluejay pile build RECIPE to make "
                    "one, or name a shard without its .bin"
                )
        self.index = TokenIndex(index)
        dtype, n_tokens = self.index.dtype, self.index.n_tokens
        self.sizes = self.index.sizes if self.index.one_entry_each else np.diff(self.offsets)
        expected, size = n_tokens * dtype.itemsize, tokens.stat().st_size
        if size != expected:
            raise ValueError(f"{tokens} has {size} bytes where its index says {expected}; it is cut off or not its own")
        # An empty file cannot be mapped.
        self.tokens = np.memmap(tokens, dtype=dtype, mode="r") if size else np.empty(0, dtype)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each document begins in `tokens`, then where the last one ends (int64, one more than documents): 8
        bytes of memory for each, which a caller of `shard[i]` does not need."""
        return self.index.offsets()

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.sizes)

    def __getitem__(self, document: int) -> np.ndarray:
        """The ids of one document."""
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        if not self.index.one_entry_each:
            return self.tokens[self.offsets[document] : self.offsets[document + 1]]
        start = int(self.index.pointers[document]) // self.index.dtype.itemsize
        return self.tokens[start : start + int(self.sizes[document])]

    def components(self) -> tuple[list[str], np.ndarray]:
        """The names of the corpus's components in this shard, and each document's component as an index into them.

        A shard without a table of documents is one component, "all". Raises ValueError: the table is of another build.
        """
        path = self.prefix.parent / DOCUMENTS_TABLE
        if not path.exists():
            return ["all"], np.zeros(len(self), dtype=np.int64)
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        table = pq.read_table(path, columns=["component", "offset"], filters=[("shard", "=", self.prefix.name)])
        table = table.sort_by("offset")
        if not np.array_equal(table["offset"].to_numpy(), self.offsets[:-1]):
            raise ValueError(f"{path} does not list the documents of {self.prefix}; they are of different builds")
        coded: Any = pc.dictionary_encode(table["component"]).combine_chunks()
        return coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)


class TokenIndex:
    """An index, mapped from its file. It is checked when it is opened, a large one only once (`checked_once`).

    Raises ValueError: it is damaged or no such index.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            header = file.read(INDEX_HEADER.size)
        if len(header) < INDEX_HEADER.size or not header.startswith(MAGIC):
            raise ValueError(f"{path} is not the index of a token shard (it does not begin with MMIDIDX)")
        _, version, code, n, m = INDEX_HEADER.unpack(header)
        if version != 1 or code not in TOKEN_TYPES:
            supported = f"version 1, types {list(TOKEN_TYPES)}"
            raise ValueError(f"{path} has version {version}, token type {code}; supported are {supported}")
        needed, size = INDEX_HEADER.size + 12 * n + 8 * m, path.stat().st_size
        if size != needed:
            raise ValueError(f"{path} has {size} bytes where its {n} entries need {needed}")
        self.dtype = np.dtype(TOKEN_TYPES[code])
        data = np.memmap(path, "u1", "r")
        sizes, pointers, documents = np.cumsum([INDEX_HEADER.size, 4 * n, 8 * n])
        self.sizes = data[sizes:pointers].view("<i4")
        """The length of each entry in tokens."""
        self.pointers = data[pointers:documents].view("<i8")
        """Where each entry begins, in bytes."""
        self.documents = data[documents:].view("<i8")
        """The first entry of each document, then the number of entries."""
        self.one_entry_each = checked_once(path, self.check)
        """Whether every document is one entry, as in the shards of `TokenWriter`."""

    @property
    def n_tokens(self) -> int:
        """The number of tokens."""
        return int(self.pointers[-1]) // self.dtype.itemsize + int(self.sizes[-1]) if len(self.sizes) else 0

    def offsets(self) -> np.ndarray:
        """In tokens, where each document begins and where the last one ends (int64)."""
        starts = np.append(self.pointers // self.dtype.itemsize, self.n_tokens)
        return starts if self.one_entry_each else starts[self.documents]

    def check(self) -> bool:
        """Read all of it, a piece at a time; whether every document is one entry. Raises ValueError: sizes, positions
        and documents disagree."""
        n, position = len(self.sizes), 0
        for first in range(0, n, CHECKED_AT_ONCE):
            sizes, pointers = (part[first : first + CHECKED_AT_ONCE] for part in (self.sizes, self.pointers))
            ends = position + np.cumsum(sizes, dtype=np.int64) * self.dtype.itemsize
            if (sizes < 0).any() or pointers[0] != position or not np.array_equal(pointers[1:], ends[:-1]):
                raise ValueError(f"{self.path} is damaged: the sizes and the positions of its entries disagree")
            position = int(ends[-1])
        documents, one_entry_each = self.documents, len(self.documents) == n + 1
        in_order = len(documents) > 0 and documents[0] == 0 and documents[-1] == n
        for first in range(0, len(documents), CHECKED_AT_ONCE):
            piece = documents[first : first + CHECKED_AT_ONCE + 1]
            one_entry_each = one_entry_each and np.array_equal(piece, np.arange(first, first + len(piece)))
            in_order = in_order and (one_entry_each or not (np.diff(piece) < 0).any())
        if not in_order:
            raise ValueError(f"{self.path} is damaged: its documents do not cover its {n} entries in order")
        return one_entry_each


def read_index(path: Path) -> tuple[np.dtype, np.ndarray]:
    """The type of the tokens; then, in tokens, where each document begins and where the last one ends.

    Raises ValueError: it is damaged or no such index.
    """
    index = TokenIndex(path)
    return index.dtype, index.offsets()


def checked_once(path: Path, check: Callable[[], bool]) -> bool:
    """What a check of a file found. For a large file the answer is kept in the cache, and holds as long as the file has
    the same size, time of change, and bytes in pieces spread evenly over it."""
    status = path.stat()
    if status.st_size < REMEMBERED_BYTES:
        return check()
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
    with path.open("rb") as file:
        for start in np.linspace(0, status.st_size - PIECE_BYTES, N_PIECES).astype(int).tolist():
            file.seek(start)
            digest.update(file.read(PIECE_BYTES))
    record = cache_directory() / "checked" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    with suppress(OSError):
        known, _, answer = record.read_text(encoding="utf-8").partition(" ")
        if known == digest.hexdigest():
            return answer == "True"
    found = check()
    with suppress(OSError):  # a cache that cannot be written costs time, and nothing else
        write_text(record, f"{digest.hexdigest()} {found}")
    return found


def suffixed(prefix: Path, suffix: str) -> Path:
    """PREFIX.bin or PREFIX.idx; the prefix itself may contain dots."""
    return prefix.with_name(prefix.name + suffix)
