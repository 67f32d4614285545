"""Find and cut passages that occurred before, in any document (exact substrings; Lee et al. 2022).

A passage begins and ends with a word and has a minimum length. The first of equal passages, in the order of the
documents, stays. No suffix array is needed: the hashes of all passages are sorted, and all but the first of equal ones
are cut. A passage is named by its number: passages are counted through all documents, in order.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bluejay.pile.text.text_batch import Spans, TextBatch, Texts, split_texts


def passage_hashes(texts: Texts, length: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Yield, a few texts at a time, the hash of each passage and the number of passages of each text."""
    for group in split_texts(texts):
        batch = TextBatch(group)
        spans, _ = passages_of(batch, length)
        yield batch.hashes(spans), spans.counts


def repeats(records: NDArray[Any]) -> NDArray[np.int64]:
    """Of `sorted_records` of passages, the rows whose passage an earlier row has, ascending."""
    again = np.append(False, np.diff(records["key"]) == 0)[: len(records)]
    return np.sort(records["row"][again].astype(np.int64))


def locate(texts: Texts, length: int, numbers: NDArray[np.int64], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where passages stand, (m, 3): the number of the text, the first character and the end of each.

    `numbers` are those of the passages, ascending; text i has the passages bounds[i] to bounds[i + 1]. Only texts that
    have one of them are read.
    """
    text = np.searchsorted(bounds, numbers, side="right") - 1
    wanted, place = np.unique(text, return_inverse=True)
    found, first = [np.empty((0, 3), np.int64)], 0
    for group in split_texts(texts.take(pa.array(wanted))):
        batch = TextBatch(group)
        spans, _ = passages_of(batch, length)
        a, b = np.searchsorted(place, [first, first + len(batch)])
        local = place[a:b] - first
        at = spans.bounds[local] + numbers[a:b] - bounds[text[a:b]]
        found.append(np.stack([text[a:b], *(ends[at] - batch.starts[local] for ends in (spans.starts, spans.ends))], 1))
        first += len(batch)
    return np.concatenate(found)


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
