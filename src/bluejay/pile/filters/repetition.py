"""Gopher's repetition rules (Rae et al. 2021, table A1): how much of a text repeats earlier parts of it.

Characters are counted as in FineWeb's filter: an n-gram that begins inside a repeated one is neither a repeat nor a
first occurrence.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.filters.rule import Reasons, first_reason, share
from bluejay.pile.text.text_batch import BASE, Spans, TextBatch, segment_sums

MAX_PARAGRAPHS, MAX_PARAGRAPH_CHARACTERS = 0.3, 0.2
MAX_LINES, MAX_LINE_CHARACTERS = 0.3, 0.2
MAX_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
"""n -> the largest share of the characters that the most frequent n-gram may cover."""
MAX_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""n -> the largest share of the characters that repeated n-grams may cover."""


def repetition_reasons(batch: TextBatch) -> Reasons:
    """Why each text is dropped."""
    paragraphs, paragraph_repeats, paragraph_characters = paragraph_counts(batch)
    lines, line_repeats, line_characters = line_counts(batch)
    checks = [
        ("gopher: empty", batch.lengths == 0),
        ("gopher: repeated paragraphs", share(paragraph_repeats, paragraphs) > MAX_PARAGRAPHS),
        ("gopher: long repeated paragraphs", share(paragraph_characters, batch.lengths) > MAX_PARAGRAPH_CHARACTERS),
        ("gopher: repeated lines", share(line_repeats, lines) > MAX_LINES),
        ("gopher: long repeated lines", share(line_characters, batch.lengths) > MAX_LINE_CHARACTERS),
    ]
    failed = np.logical_or.reduce([holds for _, holds in checks])
    return first_reason(*checks, *ngram_checks(batch, failed))


def paragraph_counts(batch: TextBatch) -> NDArray[np.int64]:
    """For each text its paragraphs, the repeated ones, and the characters of those: (3, texts)."""
    counts = np.zeros((3, len(batch)), np.int64)
    for row, text in enumerate(batch.texts):
        paragraphs = [part.lstrip("\n") for part in text.strip().split("\n\n")]
        paragraphs = [part for part in paragraphs if part] or [""]
        different = set(paragraphs)
        again = sum(map(len, paragraphs)) - sum(map(len, different))
        counts[:, row] = len(paragraphs), len(paragraphs) - len(different), again
    return counts


def line_counts(batch: TextBatch) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each text its lines, the repeated ones, and the characters of those, (texts,) each.

    Consecutive line ends count as one; a line end at the beginning or the end of a text leaves an empty line there.
    """
    every = batch.lines
    full = np.flatnonzero(every.lengths)
    lines = Spans(every.starts[full], every.ends[full], np.searchsorted(full, every.bounds))
    again = repeated(batch.hashes(lines), lines)
    first, last = every.lengths[every.bounds[:-1]] == 0, every.lengths[every.bounds[1:] - 1] == 0
    empty = np.add(first, last, dtype=np.int64)
    return lines.counts + empty, lines.total(again) + (first & last), lines.total(lines.lengths * again)


def repeated(hashes: NDArray[np.uint64], spans: Spans) -> NDArray[np.bool_]:
    """For each span whether an earlier span of the same text has the same hash."""
    keys = hashes + spans.document.astype(np.uint64) * np.uint64(BASE)
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), np.bool_)
    again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return again


@dataclass(frozen=True)
class Grams:
    """The n-grams of words that occur more than once in their text."""

    at: NDArray[np.int64]
    """The first word of each n-gram, ascending, (n,)."""
    group: NDArray[np.int64]
    """A number that equal n-grams of one text share, (n,)."""

    @classmethod
    def of(cls, keys: NDArray[np.uint64], at: NDArray[np.int64]) -> "Grams":
        """Keep the n-grams whose key occurs more than once."""
        order = np.argsort(keys)
        same = np.diff(keys[order]) == 0
        group, again = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
        group[order[1:]] = np.cumsum(~same)
        again[order[1:]] |= same
        again[order[:-1]] |= same
        return cls(at[again], group[again])

    def longer(self, n: int, ends: NDArray[np.int64]) -> "Grams":
        """The repeated n-grams, from the repeated (n - 1)-grams: the two in an n-gram identify it."""
        whole = np.flatnonzero((np.diff(self.at) == 1) & (self.at[:-1] + n <= ends[self.at[:-1]]))
        keys = self.group.astype(np.uint64)
        return Grams.of((keys[whole] << np.uint64(32)) | keys[whole + 1], self.at[whole])

    @property
    def first(self) -> NDArray[np.bool_]:
        """Whether each n-gram is the first of its group."""
        rows = np.arange(len(self.at))
        firsts = np.zeros(self.group.max(initial=-1) + 1, np.int64)
        firsts[self.group[::-1]] = rows[::-1]  # the last assignment wins
        return firsts[self.group] == rows


def ngram_checks(batch: TextBatch, failed: NDArray[np.bool_]) -> list[tuple[str, NDArray[np.bool_]]]:
    """The checks on n-grams; texts that `failed` earlier checks may get any result."""
    words = batch.words
    ends, characters = words.bounds[1:][words.document], np.append(0, np.cumsum(words.lengths))
    checks, grams = [], pairs_of(batch)
    for n in range(2, max(MAX_REPEATED) + 1):
        grams = grams.longer(n, ends) if n > 2 else grams
        if n in MAX_TOP:
            most = top_characters(grams, n, words, characters)
            checks.append((f"gopher: one {n}-gram too often", share(most, batch.lengths) > MAX_TOP[n]))
        else:
            most = repeated_characters(grams, n, words, characters, failed, MAX_REPEATED[n] * batch.lengths)
            checks.append((f"gopher: repeated {n}-grams", share(most, batch.lengths) > MAX_REPEATED[n]))
        failed = failed | checks[-1][1]
    return checks


def pairs_of(batch: TextBatch) -> Grams:
    """The pairs of words that occur more than once in their text."""
    hashes, document = batch.hashes(batch.words), batch.words.document
    at = np.flatnonzero(np.diff(document) == 0)
    # Odd factors make the key depend on the order of the words and on the text.
    return Grams.of(hashes[at] * np.uint64(3) + hashes[at + 1] + document[at].astype(np.uint64) * np.uint64(BASE), at)


def top_characters(grams: Grams, n: int, words: Spans, characters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Occurrences times length, with spaces, of the most frequent n-gram of each text; of several, of the earliest."""
    count, at = np.ones(len(words.counts), np.int64), words.bounds[:-1].copy()
    firsts = np.flatnonzero(grams.first)
    place, times = grams.at[firsts], np.bincount(grams.group)[grams.group[firsts]]
    # In this order, the last n-gram of each text has the most occurrences, and is the earliest of those.
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
    """Characters of each text in repeated n-grams; where those do not exceed the limit, any number below it."""
    repeats = grams.at[~grams.first]
    until = np.minimum(repeats + n, np.append(repeats[1:], len(characters) - 1))
    most = segment_sums(characters[until] - characters[repeats], np.searchsorted(repeats, words.bounds))
    bounds = np.searchsorted(grams.at, words.bounds)
    for text in np.flatnonzero((most > limits) & ~failed):
        rows = slice(bounds[text], bounds[text + 1])
        most[text] = count_once(grams.at[rows].tolist(), grams.group[rows].tolist(), n, characters)
    return most


def count_once(at: list[int], groups: list[int], n: int, characters: NDArray[np.int64]) -> int:
    """Characters in the repeated n-grams of a text that is read from its start, skipping over each repeat."""
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
