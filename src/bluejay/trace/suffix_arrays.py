"""The suffix array of a range of tokens: built in memory, packed, and opened again from the file of an index shard.

Documents are sorted with an end behind each, which is smaller than any token, so that no suffix goes on into the next
document. The ends are then left out again. Memory: two bytes for each token of two bytes, four for its entry.
"""

import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bluejay.extras import compile_again
from bluejay.native import absent, native
from bluejay.tokens import suffixed
from bluejay.trace.sections import (
    Damaged,
    Sections,
    as_written,
    in_pages,
    read_at_random,
    require_numbers,
    to_index,
    with_sums,
)

FOLDER = "index"
"""The folder of a corpus that holds its index."""
SUFFIXES = ".suffixes"
KIND = "suffix array"
BLOCKS, BLOCK_BYTES = 8, 4096
"""Places of a token shard that are compared each time an index is opened."""
EVERY = 256
"""Suffixes from one sample to the next: a sample is the beginning of a suffix, and all samples are held in memory."""
KEY_BITS = 64
CHUNK_TOKENS = 1 << 22
SMALL_SYMBOLS = 1 << 16
PACKED = ("bits", "every", "key_tokens", "key_bits")
"""Numbers in the header of an index shard that say how its entries and samples are packed."""
MOST_COUNTED = 1 << 22
"""Symbols that are counted in an array; of more, which no vocabulary has, those in the text are sorted."""


@dataclass(frozen=True)
class Range:
    """A range of the tokens of a token shard: whole documents."""

    first_token: int
    starts: np.ndarray
    """Where each document begins, counted from the first token of the range, and where the last one ends."""

    @property
    def n_tokens(self) -> int:
        """The tokens of the range."""
        return int(self.starts[-1])

    @property
    def ends(self) -> np.ndarray:
        """The places of the ends of the documents, in the text that is sorted."""
        filled = self.starts[1:][np.diff(self.starts) > 0]
        return filled + np.arange(len(filled))


def no_corpus(path: Path) -> str:
    """The message about a path that is not a corpus."""
    return f"{path} is not a corpus: there are no token shards in {path / 'tokens'}"


def file_name(shard: str, first_document: int) -> str:
    """The name of the file of an index shard, which holds its first document, so that parts of a corpus that has grown
    are behind the ones before."""
    return f"{shard}-{first_document:010}{SUFFIXES}"


def require_native() -> None:
    """Raise ValueError if the compiled part of the package is missing."""
    if not hasattr(native, "first_rows"):
        raise ValueError(f"an index needs the compiled part of bluejay, which {absent}; {compile_again()} compiles it")


def blocks(tokens: BinaryIO, of: Range, itemsize: int) -> list[int]:
    """Checksums of a few places of the tokens of a range, by which other tokens are noticed at once."""
    size, first, found = of.n_tokens * itemsize, of.first_token * itemsize, []
    for number in range(BLOCKS):
        tokens.seek(first + number * max(0, size - BLOCK_BYTES) // (BLOCKS - 1))
        found.append(zlib.crc32(tokens.read(min(size, BLOCK_BYTES))))
    return found


def memory_bytes(n_tokens: int, n_documents: int, small: bool) -> int:
    """The most memory that building takes for so many tokens, of two bytes if they are `small`, else of four."""
    return (6 if small else 8) * (n_tokens + n_documents) + n_tokens // 4 + (64 << 20)


def suffix_array(tokens: BinaryIO, dtype: np.dtype, of: Range, largest: int) -> tuple[dict[str, int], dict]:
    """Build the packed suffix array of a range; `tokens` is the open file and `largest` no less than any of its ids.

    Returns the values and the arrays of an index shard: packed, packed_sums, samples, and how often (`counts`) each
    token (`known`) occurs.
    """
    ends, symbols = of.ends, largest + 2
    text = symbols_of(tokens, dtype, of, largest)
    # Behind the entries there is room for what fills the last page.
    order = np.zeros(len(text) + in_pages(8) // 2, np.int32)
    sort = native.sort_suffixes_16 if text.dtype == np.uint16 else native.sort_suffixes_32
    sort(text, order[: len(text)], symbols)
    bits, key_bits = max(1, of.n_tokens.bit_length()), (symbols - 1).bit_length()
    values = {"bits": bits, "every": EVERY, "key_bits": key_bits, "key_tokens": KEY_BITS // key_bits}
    samples = keys(text, order[len(ends) : len(text) : EVERY], values["key_tokens"], key_bits)
    known, counts = np.unique(text, return_counts=True) if symbols > MOST_COUNTED else counted(text, symbols)
    of_tokens = {"known": known[known > 0].astype(np.uint32) - 1, "counts": counts[known > 0].astype(np.uint32)}
    n_text = len(text)
    del text
    size = native.pack_suffixes(order[:n_text], ends, bits)
    packed = order.view(np.uint8)[: in_pages(size + 8)]
    packed[size:] = 0
    return values, {**with_sums({"packed": packed}), "samples": samples, **of_tokens}


def symbols_of(tokens: BinaryIO, dtype: np.dtype, of: Range, largest: int) -> np.ndarray:
    """The symbols whose suffixes are sorted: each token as its id and one, and 0 for the end behind each document; in
    two bytes each where that is enough. Raises ValueError for an id above `largest`, and a file that was cut off."""
    ends = of.ends
    text = np.zeros(of.n_tokens + len(ends), np.uint16 if largest + 2 <= SMALL_SYMBOLS else np.int32)
    tokens.seek(of.first_token * dtype.itemsize)
    is_token = np.ones(min(CHUNK_TOKENS, len(text)), bool)
    for begin in range(0, len(text), CHUNK_TOKENS):
        part = text[begin : begin + CHUNK_TOKENS]
        here = ends[slice(*np.searchsorted(ends, [begin, begin + len(part)]))] - begin
        mask = is_token[: len(part)]
        mask[here] = False
        ids = np.fromfile(tokens, dtype, len(part) - len(here))
        if ids.size != len(part) - len(here):
            raise ValueError(f"{tokens.name} was cut off while it was read")
        if ids.size and not 0 <= ids.min() <= ids.max() <= largest:
            raise ValueError(f"{tokens.name} holds an id that is not from 0 to {largest}")
        part[mask] = ids.astype(text.dtype) + 1
        mask[here] = True
    return text


def counted(text: np.ndarray, symbols: int) -> tuple[np.ndarray, np.ndarray]:
    """The symbols that stand in a text, and how often; a part at a time, because numpy makes eight bytes of each."""
    counts = np.zeros(symbols, np.int64)
    for begin in range(0, len(text), CHUNK_TOKENS):
        counts += np.bincount(text[begin : begin + CHUNK_TOKENS], minlength=symbols)
    return np.flatnonzero(counts), counts[counts > 0]


def keys(text: np.ndarray, places: np.ndarray, n_tokens: int, bits: int) -> np.ndarray:
    """The first `n_tokens` symbols of the suffixes at `places`, `bits` each, as numbers; 0 from the first end on."""
    found = np.zeros(len(places), np.uint64)
    going = np.ones(len(places), bool)
    for ahead in range(n_tokens):
        symbols = text[np.minimum(places + ahead, len(text) - 1)].astype(np.uint64)
        going &= symbols > 0
        found = found << np.uint64(bits) | np.where(going, symbols, np.uint64(0))
    return found


class IndexShard:
    """The suffix array of a range of a token shard's documents, to search in."""

    def __init__(self, name: str, tokens: np.ndarray, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """`name` is for messages, `values` and `arrays` are what `suffix_array` returns. Raises Damaged."""
        self.name, self.tokens, self.starts = name, tokens, arrays["starts"]
        self.known, self.counts = arrays["known"].astype(np.int32), arrays["counts"]
        self.shard, self.first_document = values["shard"], values["first_document"]
        self.first_token = values["first_token"]
        self.last_token = self.first_token + len(tokens)
        kind = native.SuffixIndex16 if tokens.itemsize == 2 else native.SuffixIndex32
        settings = {key: values[key] for key in PACKED}
        given = {"packed": arrays["packed"], "samples": arrays["samples"], "sums": arrays["packed_sums"]}
        try:
            self.native = kind(tokens=tokens, starts=self.starts, **given, **settings)
        except ValueError as error:
            raise Damaged(f"{name}: {error}") from None

    @classmethod
    def open(cls, path: Path, corpus: Path) -> "IndexShard":
        """Open the file of an index. Raises Damaged; ValueError: it is of other tokens."""
        sections = Sections(path, KIND)
        with as_written(path):
            values, dtype = sections.values, np.dtype(sections.values["dtype"])
            require_numbers(values, path, "first_document", "first_token", "tokens", *PACKED)
            if path.name != file_name(values["shard"], values["first_document"]):
                raise Damaged(f"{path} is damaged: its header is that of another file")
            file, starts = suffixed(corpus / "tokens" / values["shard"], ".bin"), sections["starts"]
            first, n = values["first_token"], values["tokens"]
            others = not file.exists() or file.stat().st_size < (first + n) * dtype.itemsize
            if not others:
                with file.open("rb") as opened:
                    others = blocks(opened, Range(first, starts), dtype.itemsize) != values["blocks"]
        if others:
            raise ValueError(f"{path} is the index of other tokens than {file}; {to_index(corpus)}")
        with as_written(path):
            mapped = np.memmap(file, dtype, "r", first * dtype.itemsize, (n,)) if n else np.zeros(0, dtype)
            arrays = {name: sections[name] for name in ("starts", "samples", "packed_sums", "known", "counts")}
            arrays["packed"] = sections.mapped("packed")
            return cls(str(path), np.asarray(read_at_random(mapped)), values, arrays)

    @classmethod
    def in_memory(cls, name: str, shard: str, tokens: np.ndarray, starts: NDArray[np.int64]) -> "IndexShard":
        """Index documents that are in no corpus: their tokens, end to end, and where each begins and the last one ends.
        Raises OSError: the folder of temporary files has no room for the tokens."""
        with tempfile.TemporaryFile() as file:
            file.write(np.ascontiguousarray(tokens).data)
            file.flush()
            values, arrays = suffix_array(file, tokens.dtype, Range(0, starts), int(tokens.max()))
        values |= {"shard": shard, "first_document": 0, "first_token": 0}
        return cls(name, tokens, values, {**arrays, "starts": starts.astype(np.uint32)})

    def occurrences(self, ids: NDArray[np.int32]) -> NDArray[np.int64]:
        """How often each token occurs, (T,)."""
        if not len(self.known):
            return np.zeros(len(ids), np.int64)
        places = np.minimum(np.searchsorted(self.known, ids), len(self.known) - 1)
        return np.where(self.known[places] == ids, self.counts[places], 0).astype(np.int64)

    def call(self, name: str, *arguments: Any) -> Any:
        """A search, whose errors name the file."""
        try:
            return getattr(self.native, name)(*arguments)
        except ValueError as error:
            raise Damaged(f"{self.name}: {error}; {to_index(Path(self.name).parents[1])}") from None
