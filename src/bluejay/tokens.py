"""Token shards on disk, in the format of Megatron and GPT-NeoX: PREFIX.bin and PREFIX.idx.

PREFIX.bin holds the tokens of all documents end to end, little-endian. PREFIX.idx holds, little-endian and without
padding: the magic `MMIDIDX\\0\\0`, uint64 version 1, uint8 type of the tokens, uint64 n documents, uint64 m,
int32 size[n] in tokens, int64 pointer[n] in bytes, int64 document[m]; the last is 0..n when each entry is one document,
as it is in what we write (GPT-NeoX, `megatron/data/indexed_dataset.py`).
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
HEADER = struct.Struct("<9sQBQQ")
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""The codes of the token types that the format knows, without its two floats."""
UINT16_BELOW = 65500
"""Vocabularies below this size are stored in two bytes (Megatron's bound)."""


def dtype_for(vocab_size: int) -> str:
    """How the ids of a vocabulary are stored: numpy's name of the type."""
    return TYPES[8 if vocab_size < UINT16_BELOW else 4]


class TokenWriter:
    """Writes one shard: `with TokenWriter(prefix, vocab_size) as shard: shard.add(ids)`.

    The shard is whole at the end of the block, or absent if the block raised. Memory: 4 bytes per document.
    """

    def __init__(self, prefix: Path, vocab_size: int) -> None:
        self.prefix, self.vocab_size = prefix, vocab_size
        self.code = 8 if vocab_size < UINT16_BELOW else 4
        self.sizes = array("i")
        self.length = 0

    def __enter__(self) -> "TokenWriter":
        with ExitStack() as stack:
            # Left in the opposite order: the index, without which there is no shard, takes its place last.
            self.index = stack.enter_context(atomic_file(suffixed(self.prefix, ".idx")))
            path = stack.enter_context(atomic_file(suffixed(self.prefix, ".bin")))
            self.bin = stack.enter_context(path.open("wb"))
            stack.push(self.finish)
            self.stack = stack.pop_all()
        return self

    def add(self, ids: Sequence[int] | np.ndarray) -> tuple[int, int]:
        """Append one document, its <|endoftext|> included; gives its offset and its length, in tokens.

        Raises ValueError: an id outside the vocabulary.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        offset = self.length
        self.extend(tokens, np.array([tokens.size]))
        return offset, tokens.size

    def extend(self, ids: np.ndarray, sizes: np.ndarray) -> None:
        """Append many documents at once: their ids end to end, and how many each has. Raises ValueError as `add`."""
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            outside = ids[(ids < 0) | (ids >= self.vocab_size)][0]
            raise ValueError(f"token {outside} is outside the vocabulary of {self.vocab_size} tokens")
        assert sizes.sum() == ids.size
        self.bin.write(ids.astype(TYPES[self.code], copy=False).data)
        self.sizes.extend(sizes.tolist())
        self.length += ids.size

    def finish(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Write the index, unless the block raised."""
        if kind is not None:
            return
        sizes = np.array(self.sizes, dtype="<i4")
        offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        with self.index.open("wb") as file:
            file.write(HEADER.pack(MAGIC, 1, self.code, len(sizes), len(sizes) + 1))
            file.write(sizes.tobytes())
            file.write((offsets[:-1] * np.dtype(TYPES[self.code]).itemsize).astype("<i8").tobytes())
            file.write(np.arange(len(sizes) + 1, dtype="<i8").tobytes())
        # An old index must not describe the new tokens, not even between the two renames that follow.
        suffixed(self.prefix, ".idx").unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.stack.__exit__(kind, error, trace)


class TokenShard:
    """Reads one shard by memory mapping, whoever wrote it: `shard[i]` is a document's ids, <|endoftext|> included.

    Raises FileNotFoundError: no such shard; ValueError: not this format, cut off, or tokens and index that disagree.
    """

    tokens: np.ndarray
    """All documents end to end, mapped from the file (1-D)."""
    sizes: np.ndarray
    """The length of each document, in tokens (int64)."""
    offsets: np.ndarray
    """Where each document begins in `tokens`, and after the last one where it ends (int64, one more than documents)."""

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
        """Documents in the shard."""
        return len(self.sizes)

    def __getitem__(self, document: int) -> np.ndarray:
        """The ids of one document."""
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        return self.tokens[self.offsets[document] : self.offsets[document + 1]]


def read_index(path: Path) -> tuple[np.dtype, np.ndarray]:
    """The type of the tokens, and where each document begins and the last one ends, in tokens."""
    data = path.read_bytes()
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise ValueError(f"{path} is not the index of a token shard (it does not begin with MMIDIDX)")
    _, version, code, n, m = HEADER.unpack_from(data)
    if version != 1 or code not in TYPES:
        raise ValueError(f"{path} has version {version}, token type {code}; known are version 1, types {list(TYPES)}")
    if len(data) != HEADER.size + 12 * n + 8 * m:
        raise ValueError(f"{path} has {len(data)} bytes where its {n} entries need {HEADER.size + 12 * n + 8 * m}")
    dtype = np.dtype(TYPES[code])
    sizes = np.frombuffer(data, "<i4", n, HEADER.size)
    pointers = np.frombuffer(data, "<i8", n, HEADER.size + 4 * n)
    documents = np.frombuffer(data, "<i8", m, HEADER.size + 12 * n)
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if (sizes < 0).any() or not np.array_equal(pointers, starts[:-1] * dtype.itemsize):
        raise ValueError(f"{path} is damaged: the sizes and the positions of its entries disagree")
    if m == 0 or documents[0] != 0 or documents[-1] != n or (np.diff(documents) < 0).any():
        raise ValueError(f"{path} is damaged: its documents do not cover its {n} entries in order")
    return dtype, starts[documents]


def suffixed(prefix: Path, suffix: str) -> Path:
    """PREFIX.bin or PREFIX.idx; a prefix may hold dots of its own."""
    return prefix.with_name(prefix.name + suffix)
