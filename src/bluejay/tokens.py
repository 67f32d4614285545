"""Token shards on disk, in the format of Megatron and GPT-NeoX (`megatron/data/indexed_dataset.py`), and their corpus.

PREFIX.bin holds the tokens of all documents end to end, little-endian. PREFIX.idx holds, little-endian and without
padding: the magic `MMIDIDX\\0\\0`, uint64 version 1, uint8 token type, uint64 n entries, uint64 m, int32 size[n] in
tokens, int64 pointer[n] in bytes, int64 document[m]. `TokenWriter` makes every entry one document: document[] is 0..n.

A corpus is a directory that holds its tokenizer, its shards `tokens/{train,valid,test}` and `tokens/documents.parquet`,
the table of the documents in those shards.
"""

import struct
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bluejay.files import atomic_file

MAGIC = b"MMIDIDX\x00\x00"
INDEX_HEADER = struct.Struct("<9sQBQQ")
TOKEN_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""numpy's type for each of the format's type codes, without its two floating-point types."""
UINT16_BELOW = 65500
"""Smaller vocabularies are stored in two bytes a token, larger ones in four (Megatron's bound)."""
DOCUMENTS_TABLE = "documents.parquet"


def corpus_of(prefix: str | Path) -> Path:
    """The directory of the corpus that a shard belongs to: DIRECTORY for the shard DIRECTORY/tokens/train."""
    return Path(prefix).parent.parent


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
    """The length of each document in tokens (int64)."""
    offsets: np.ndarray
    """Where each document begins in `tokens`, then where the last one ends (int64, one more than documents)."""

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        index, tokens = suffixed(self.prefix, ".idx"), suffixed(self.prefix, ".bin")
        for path in (index, tokens):
            if not path.is_file():
                raise FileNotFoundError(
                    f"no token shard {prefix}: there is no {path}; run bluejay pile build RECIPE to make one, "
                    "or name a shard without its .bin"
                )
        dtype, self.offsets = read_index(index)
        self.sizes = np.diff(self.offsets)
        expected, size = int(self.offsets[-1]) * dtype.itemsize, tokens.stat().st_size
        if size != expected:
            raise ValueError(f"{tokens} has {size} bytes where its index says {expected}; it is cut off or not its own")
        # An empty file cannot be mapped.
        self.tokens = np.memmap(tokens, dtype=dtype, mode="r") if size else np.empty(0, dtype)

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.sizes)

    def __getitem__(self, document: int) -> np.ndarray:
        """The ids of one document."""
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        return self.tokens[self.offsets[document] : self.offsets[document + 1]]

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


def read_index(path: Path) -> tuple[np.dtype, np.ndarray]:
    """The type of the tokens; then, in tokens, where each document begins and where the last one ends.

    Raises ValueError: it is damaged or no such index.
    """
    data = path.read_bytes()
    if len(data) < INDEX_HEADER.size or not data.startswith(MAGIC):
        raise ValueError(f"{path} is not the index of a token shard (it does not begin with MMIDIDX)")
    _, version, code, n, m = INDEX_HEADER.unpack_from(data)
    if version != 1 or code not in TOKEN_TYPES:
        supported = f"version 1, types {list(TOKEN_TYPES)}"
        raise ValueError(f"{path} has version {version}, token type {code}; supported are {supported}")
    needed = INDEX_HEADER.size + 12 * n + 8 * m
    if len(data) != needed:
        raise ValueError(f"{path} has {len(data)} bytes where its {n} entries need {needed}")
    dtype = np.dtype(TOKEN_TYPES[code])
    sizes = np.frombuffer(data, "<i4", n, INDEX_HEADER.size)
    pointers = np.frombuffer(data, "<i8", n, INDEX_HEADER.size + 4 * n)
    documents = np.frombuffer(data, "<i8", m, INDEX_HEADER.size + 12 * n)
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if (sizes < 0).any() or not np.array_equal(pointers, starts[:-1] * dtype.itemsize):
        raise ValueError(f"{path} is damaged: the sizes and the positions of its entries disagree")
    if m == 0 or documents[0] != 0 or documents[-1] != n or (np.diff(documents) < 0).any():
        raise ValueError(f"{path} is damaged: its documents do not cover its {n} entries in order")
    return dtype, starts[documents]


def suffixed(prefix: Path, suffix: str) -> Path:
    """PREFIX.bin or PREFIX.idx; the prefix itself may contain dots."""
    return prefix.with_name(prefix.name + suffix)
