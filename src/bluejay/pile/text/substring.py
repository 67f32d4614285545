"""Passages that stood before, in another document or the same one, cut out (Lee et al. 2022, exact substrings).

A passage begins and ends with a word and has at least so many characters. The first of equal passages, in the order of
the documents, stays. No suffix array is needed: passages are known by a hash, those that occur once are screened off by
a table of counts, and only the others are held and sorted. Memory is bounded by taking a range of hashes at a time.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bluejay.pile.text.text_batch import Spans, TextBatch, Texts, split_texts

CHARACTERS_AT_ONCE = 800_000_000
"""Of a range of hashes: some 130 million passages, of which those that repeat take 16 bytes each."""
SLOTS_PER_CHARACTER = 0.6
"""Bytes of the table of counts."""


def repeats(read: Callable[[], Iterable[Texts]], length: int, characters: int) -> NDArray[np.int64]:
    """What to cut: (m, 3), the document's number, the first character and the end of each stretch, in order.

    `read` gives all documents, some `characters` in all, in the same order each time; it is called twice for every
    800 million of them.
    """
    ranges = max(1, math.ceil(characters / CHARACTERS_AT_ONCE))
    slots = max(16, math.ceil(math.log2(SLOTS_PER_CHARACTER * max(1, characters) / ranges)))
    found = [repeats_in_range(read, length, number, ranges, slots) for number in range(ranges)]
    return joined(np.concatenate(found))


def repeats_in_range(
    read: Callable[[], Iterable[Texts]], length: int, number: int, ranges: int, slots: int
) -> NDArray[np.int64]:
    """The passages that stood before, of those with a hash in one of several ranges: (m, 3)."""
    counts = np.zeros(1 << slots, np.uint8)
    shift = np.uint64(64 - slots)
    for hashes, _ in passages(read(), length, number, ranges):
        places = np.sort(hashes << np.uint64(8) >> shift)
        again = places[1:] == places[:-1]
        counts[places] = np.minimum(counts[places] + 1, 2)
        counts[places[1:][again]] = 2
    held = [(np.zeros(0, np.uint64), np.zeros((0, 3), np.int64))]
    for hashes, spans in passages(read(), length, number, ranges):
        twice = counts[hashes << np.uint64(8) >> shift] > 1
        held.append((hashes[twice], spans[twice]))
    hashes = np.concatenate([some for some, _ in held])
    order = np.argsort(hashes, kind="stable")
    again = np.append(False, np.diff(hashes[order]) == 0)[: len(order)]
    return np.concatenate([spans for _, spans in held])[order[again]]


def passages(
    documents: Iterable[Texts], length: int, number: int, ranges: int
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """The hash and (document, start, end) of every passage from each word on with a hash in the range."""
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
    """From each word to the first end of a word that is `length` characters on, and the text of each."""
    words = batch.words
    last = np.searchsorted(words.ends, words.starts + length)
    whole = np.flatnonzero(last < words.bounds[1:][words.document])
    spans = Spans(words.starts[whole], words.ends[last[whole]], np.searchsorted(whole, words.bounds))
    return spans, words.document[whole]


def joined(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Stretches of the same document that overlap or meet become one."""
    spans = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    if not len(spans):
        return spans
    # One number line for all documents, so that a running maximum of ends does not cross from one to the next.
    room = spans[:, 2].max() + 1
    starts, ends = (spans[:, 0] * room + spans[:, column] for column in (1, 2))
    begins = np.append(True, starts[1:] > np.maximum.accumulate(ends)[:-1])
    first = np.flatnonzero(begins)
    return np.stack([spans[first, 0], spans[first, 1], np.maximum.reduceat(spans[:, 2], first)], axis=1)


def without(texts: Texts, spans: NDArray[np.int64]) -> Texts:
    """The texts with stretches cut out, of which the document numbers count from the first of these texts."""
    changed = texts.to_pylist()
    # From the last to the first, so that places stay what they are.
    for row, start, end in spans[::-1].tolist():
        changed[row] = changed[row][:start] + changed[row][end:]
    return pa.array(changed, texts.type)
