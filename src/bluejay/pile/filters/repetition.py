"""Gopher's repetition rules (Rae et al. 2021, table A1): how much of a text says again what it said before.

Characters are counted as in FineWeb's filter: an n-gram that begins inside a repeated one is neither a repeat nor a
first occurrence.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.filters.rule import Reasons, first_reason, share
from bluejay.pile.text.text_batch import BASE, Spans, TextBatch, segment_sums

PARAGRAPHS, PARAGRAPH_CHARACTERS = 0.3, 0.2
LINES, LINE_CHARACTERS = 0.3, 0.2
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
"""Most characters of all occurrences of the most frequent n-gram, of all characters."""
AGAIN = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Most characters in n-grams that occurred before."""


def repetition_reasons(batch: TextBatch) -> Reasons:
    """Why each text is dropped."""
    paragraphs, paragraph_repeats, paragraph_characters = paragraph_counts(batch)
    lines, line_repeats, line_characters = line_counts(batch)
    checks = [
        ("gopher: empty", batch.lengths == 0),
        ("gopher: repeated paragraphs", share(paragraph_repeats, paragraphs) > PARAGRAPHS),
        ("gopher: long repeated paragraphs", share(paragraph_characters, batch.lengths) > PARAGRAPH_CHARACTERS),
        ("gopher: repeated lines", share(line_repeats, lines) > LINES),
        ("gopher: long repeated lines", share(line_characters, batch.lengths) > LINE_CHARACTERS),
    ]
    failed = np.logical_or.reduce([holds for _, holds in checks])
    return first_reason(*checks, *ngram_checks(batch, failed))


def paragraph_counts(batch: TextBatch) -> NDArray[np.int64]:
    """For each text its paragraphs, how many of them stood before, and the characters of those: (3, n)."""
    counts = np.zeros((3, len(batch)), np.int64)
    for row, text in enumerate(batch.texts):
        paragraphs = [part.lstrip("\n") for part in text.strip().split("\n\n")]
        paragraphs = [part for part in paragraphs if part] or [""]
        different = set(paragraphs)
        again = sum(map(len, paragraphs)) - sum(map(len, different))
        counts[:, row] = len(paragraphs), len(paragraphs) - len(different), again
    return counts


def line_counts(batch: TextBatch) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The same of lines, runs of line ends being one; line ends at both ends of a text leave an empty line there."""
    every = batch.lines
    full = np.flatnonzero(every.lengths)
    lines = Spans(every.starts[full], every.ends[full], np.searchsorted(full, every.bounds))
    again = repeated(batch.hashes(lines), lines)
    first, last = every.lengths[every.bounds[:-1]] == 0, every.lengths[every.bounds[1:] - 1] == 0
    empty = np.add(first, last, dtype=np.int64)
    return lines.counts + empty, lines.total(again) + (first & last), lines.total(lines.lengths * again)


def repeated(hashes: NDArray[np.uint64], spans: Spans) -> NDArray[np.bool_]:
    """For each span whether one before it in the same text has the same hash."""
    keys = hashes + spans.document.astype(np.uint64) * np.uint64(BASE)
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), np.bool_)
    again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return again


@dataclass(frozen=True)
class Grams:
    """Those n-grams of words that occur more than once in their text."""

    at: NDArray[np.int64]
    """The first word of each, ascending."""
    group: NDArray[np.int64]
    """The same number for equal n-grams of one text."""

    @classmethod
    def of(cls, keys: NDArray[np.uint64], at: NDArray[np.int64]) -> "Grams":
        """Those whose key occurs more than once."""
        order = np.argsort(keys)
        same = np.diff(keys[order]) == 0
        group, again = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
        group[order[1:]] = np.cumsum(~same)
        again[order[1:]] |= same
        again[order[:-1]] |= same
        return cls(at[again], group[again])

    def longer(self, n: int, ends: NDArray[np.int64]) -> "Grams":
        """From those of n - 1 words those of n: an n-gram is known by the two (n - 1)-grams in it."""
        whole = np.flatnonzero((np.diff(self.at) == 1) & (self.at[:-1] + n <= ends[self.at[:-1]]))
        keys = self.group.astype(np.uint64)
        return Grams.of((keys[whole] << np.uint64(32)) | keys[whole + 1], self.at[whole])

    @property
    def first(self) -> NDArray[np.bool_]:
        """Whether each is the first of its group."""
        rows = np.arange(len(self.at))
        firsts = np.zeros(self.group.max(initial=-1) + 1, np.int64)
        firsts[self.group[::-1]] = rows[::-1]  # of several, the one that is written last stays
        return firsts[self.group] == rows


def ngram_checks(batch: TextBatch, failed: NDArray[np.bool_]) -> list[tuple[str, NDArray[np.bool_]]]:
    """The checks on n-grams, for texts that have not failed before."""
    words = batch.words
    ends, characters = words.bounds[1:][words.document], np.append(0, np.cumsum(words.lengths))
    checks, grams = [], pairs_of(batch)
    for n in range(2, max(AGAIN) + 1):
        grams = grams.longer(n, ends) if n > 2 else grams
        if n in TOP:
            most = top_characters(grams, n, words, characters)
            checks.append((f"gopher: one {n}-gram too often", share(most, batch.lengths) > TOP[n]))
        else:
            most = repeated_characters(grams, n, words, characters, failed, AGAIN[n] * batch.lengths)
            checks.append((f"gopher: repeated {n}-grams", share(most, batch.lengths) > AGAIN[n]))
        failed = failed | checks[-1][1]
    return checks


def pairs_of(batch: TextBatch) -> Grams:
    """The pairs of words that occur more than once in their text."""
    hashes, document = batch.hashes(batch.words), batch.words.document
    at = np.flatnonzero(np.diff(document) == 0)
    # Odd factors keep the order of the words, and keep the texts apart.
    return Grams.of(hashes[at] * np.uint64(3) + hashes[at + 1] + document[at].astype(np.uint64) * np.uint64(BASE), at)


def top_characters(grams: Grams, n: int, words: Spans, characters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Occurrences times length, spaces included, of the most frequent n-gram of each text, the earliest of several."""
    count, at = np.ones(len(words.counts), np.int64), words.bounds[:-1].copy()
    firsts = np.flatnonzero(grams.first)
    place, times = grams.at[firsts], np.bincount(grams.group)[grams.group[firsts]]
    # Sorted so that of each text the last has the most occurrences, and of those stands first.
    order = np.lexsort((-place, times, words.document[place]))
    last = order[np.append(np.diff(words.document[place[order]]) > 0, True)] if len(order) else order
    at[words.document[place[last]]], count[words.document[place[last]]] = place[last], times[last]
    length = characters[np.minimum(at + n, len(characters) - 1)] - characters[at] + n - 1
    return np.where(words.counts >= n, count * length, 0)


def repeated_characters(
    grams: Grams,
    n: int,
    words: Spans,
    characters: NDArray[np.int64],
    failed: NDArray[np.bool_],
    limits: NDArray[np.floating],
) -> NDArray[np.int64]:
    """Characters of each text in n-grams that occurred before, or any number below the limit where it is below."""
    repeats = grams.at[~grams.first]
    until = np.minimum(repeats + n, np.append(repeats[1:], len(characters) - 1))
    most = segment_sums(characters[until] - characters[repeats], np.searchsorted(repeats, words.bounds))
    bounds = np.searchsorted(grams.at, words.bounds)
    for text in np.flatnonzero((most > limits) & ~failed):
        rows = slice(bounds[text], bounds[text + 1])
        most[text] = walk(grams.at[rows].tolist(), grams.group[rows].tolist(), n, characters)
    return most


def walk(at: list[int], groups: list[int], n: int, characters: NDArray[np.int64]) -> int:
    """Characters in repeats when a text is read once from its start, and a repeat is passed over whole."""
    seen: set[int] = set()
    total = free = 0
    for place, group in zip(at, groups, strict=True):
        if place < free:
            continue
        if group in seen:
            free = place + n
            total += int(characters[free] - characters[place])
        seen.add(group)
    return total
