"""Find and cut passages that occurred before, in any document (exact substrings; Lee et al. 2022).

A passage begins and ends with a word and has a minimum length. The first of equal passages, in the order of the
documents, stays. No suffix array is needed: passages are compared by a hash, a table of counts excludes those that
occur once, and only the others are stored and sorted. To bound memory, a range of hashes is taken at a time.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bluejay.pile.text.text_batch import Spans, TextBatch, Texts, split_texts

CHARACTERS_AT_ONCE = 800_000_000
"""Characters per range of hashes: about 130 million passages, of which the repeated ones take 16 bytes each."""
SLOTS_PER_CHARACTER = 0.6
"""Bytes of the table of counts per character."""


def repeats(read: Callable[[], Iterable[Texts]], length: int, characters: int) -> NDArray[np.int64]:
    """The passages to cut, (m, 3): document number, first character and end of each, in order.

    `read` yields all documents, about `characters` in all, in the same order every time; it is called twice for each
    CHARACTERS_AT_ONCE.
    """
    ranges = max(1, math.ceil(characters / CHARACTERS_AT_ONCE))
    slots = max(16, math.ceil(math.log2(SLOTS_PER_CHARACTER * max(1, characters) / ranges)))
    found = [repeats_in_range(read, length, number, ranges, slots) for number in range(ranges)]
    return merge_overlaps(np.concatenate(found))


def repeats_in_range(
    read: Callable[[], Iterable[Texts]], length: int, number: int, ranges: int, slots: int
) -> NDArray[np.int64]:
    """The repeated passages whose hashes fall into range `number` of several: (m, 3)."""
    counts = np.zeros(1 << slots, np.uint8)
    shift = np.uint64(64 - slots)
    for hashes, _ in passages(read(), length, number, ranges):
        places = np.sort(hashes << np.uint64(8) >> shift)
        again = places[1:] == places[:-1]
        counts[places] = np.minimum(counts[places] + 1, 2)
        counts[places[1:][again]] = 2
    repeated = [(np.zeros(0, np.uint64), np.zeros((0, 3), np.int64))]
    for hashes, spans in passages(read(), length, number, ranges):
        twice = counts[hashes << np.uint64(8) >> shift] > 1
        repeated.append((hashes[twice], spans[twice]))
    hashes = np.concatenate([some for some, _ in repeated])
    order = np.argsort(hashes, kind="stable")
    again = np.append(False, np.diff(hashes[order]) == 0)[: len(order)]
    return np.concatenate([spans for _, spans in repeated])[order[again]]


def passages(
    documents: Iterable[Texts], length: int, number: int, ranges: int
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Yield hashes (n,) and (document, start, end) (n, 3) of the passages whose hashes fall into the range."""
    first = 0
    for group in (group for texts in documents for group in split_texts(texts)):
        batch = TextBatch(group)
        spans, document = passages_of(batch, length)
        hashes = batch.hashes(spans)
        chosen = hashes % np.uint64(ranges) == number if ranges > 1 else slice(None)
        places = np.stack([spans.starts, spans.ends]) - batch.starts[document]
        yield hashes[chosen], np.stack([document + first, *places], axis=1)[chosen]
        first += len(batch)


def passages_of(batch: TextBatch, length: int) -> tuple[Spans, NDArray[np.int64]]:
    """The shortest passage of at least `length` characters from each word on, and the text of each."""
    words = batch.words
    last = np.searchsorted(words.ends, words.starts + length)
    whole = np.flatnonzero(last < words.bounds[1:][words.document])
    spans = Spans(words.starts[whole], words.ends[last[whole]], np.searchsorted(whole, words.bounds))
    return spans, words.document[whole]


def merge_overlaps(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge spans of the same document that overlap or touch."""
    spans = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    if not len(spans):
        return spans
    # Positions are offset by document, so that the running maximum of ends does not reach the next document.
    room = spans[:, 2].max() + 1
    starts, ends = (spans[:, 0] * room + spans[:, column] for column in (1, 2))
    begins = np.append(True, starts[1:] > np.maximum.accumulate(ends)[:-1])
    first = np.flatnonzero(begins)
    return np.stack([spans[first, 0], spans[first, 1], np.maximum.reduceat(spans[:, 2], first)], axis=1)


def without(texts: Texts, spans: NDArray[np.int64]) -> Texts:
    """Cut spans (text number, first character, end), which ascend, out of the texts."""
    changed = texts.to_pylist()
    # From the last to the first, so that earlier positions stay valid.
    for row, start, end in spans[::-1].tolist():
        changed[row] = changed[row][:start] + changed[row][end:]
    return pa.array(changed, texts.type)
