"""The suffix array of a range of tokens, built in memory and packed: what one index shard holds.

Documents are sorted with an end behind each, which is smaller than any token, so that no suffix goes on into the next
document. The ends are then left out again. Memory: two bytes for each token of two bytes, four for its entry.
"""

import shlex
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bluejay.extras import compile_again
from bluejay.native import absent, native
from bluejay.trace.sections import in_pages, with_sums

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


def to_index(corpus: Path) -> str:
    """The advice to index a corpus, with the command as a shell takes it."""
    return f"run bluejay index {shlex.quote(str(corpus))}"


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
