"""Gopher's quality rules (Rae et al. 2021, table A1), which keep prose of a sensible length.

Words are separated by white space, as in Dolma and RedPajama; the constants are those of FineWeb's filter.
"""

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.filters.rule import Reasons, first_reason, share
from bluejay.pile.text.text_batch import CONTENT, LETTER, TextBatch, word_hashes

WORDS = (50, 100_000)
MEAN_WORD_CHARACTERS = (3, 10)
MAX_SYMBOLS_PER_WORD = 0.1
MAX_BULLET_LINES = 0.9
MAX_ELLIPSIS_LINES = 0.3
MIN_WORDS_WITH_LETTER = 0.8
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
MIN_STOP_WORDS = 2


def gopher_reasons(batch: TextBatch) -> Reasons:
    """Why each text is dropped."""
    words = batch.words
    kinds = kinds_of_words(batch)
    with_content, with_letter = (kinds & CONTENT) != 0, (kinds & LETTER) != 0
    count = words.total(with_content)
    length = share(words.total(words.lengths * with_content), count)
    hashes = share(batch.count("#"), words.counts)
    ellipses = share(batch.count("...") + batch.count("…"), words.counts)
    bullets, unfinished = lines_with_marks(batch)
    return first_reason(
        ("gopher: fewer than 50 words", count < WORDS[0]),
        ("gopher: more than 100,000 words", count > WORDS[1]),
        ("gopher: words shorter than 3 characters", length < MEAN_WORD_CHARACTERS[0]),
        ("gopher: words longer than 10 characters", length > MEAN_WORD_CHARACTERS[1]),
        ("gopher: too many hashes", hashes > MAX_SYMBOLS_PER_WORD),
        ("gopher: too many ellipses", ellipses > MAX_SYMBOLS_PER_WORD),
        ("gopher: too many bullets", bullets > MAX_BULLET_LINES),
        ("gopher: too many unfinished lines", unfinished > MAX_ELLIPSIS_LINES),
        ("gopher: too few words with letters", share(words.total(with_letter), words.counts) < MIN_WORDS_WITH_LETTER),
        ("gopher: too few stop words", stop_words(batch) < MIN_STOP_WORDS),
    )


def kinds_of_words(batch: TextBatch) -> NDArray[np.uint8]:
    """The bitwise OR of the kinds of the characters of each word."""
    starts = batch.words.starts
    return np.bitwise_or.reduceat(batch.kinds, starts) if len(starts) else np.zeros(0, np.uint8)


def lines_with_marks(batch: TextBatch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The shares of each text's lines that begin with a bullet and that end in an ellipsis, ignoring white space."""
    points, words, lines = batch.points, batch.words, batch.lines
    full = np.flatnonzero(np.diff(batch.words_of_lines))
    firsts = points[words.starts[batch.words_of_lines[full]]]
    ends = words.ends[batch.words_of_lines[full + 1] - 1]
    dots = ends - lines.starts[full] >= 3
    for back in (1, 2, 3):
        dots &= points[np.maximum(ends - back, 0)] == ord(".")
    bullets, unfinished = np.zeros((2, len(lines.starts)), np.bool_)
    bullets[full] = (firsts == ord("•")) | (firsts == ord("-"))
    unfinished[full] = dots | (points[ends - 1] == ord("…"))
    # A line end at the end of a text does not begin another line.
    count = lines.counts - (lines.lengths[lines.bounds[1:] - 1] == 0)
    return share(lines.total(bullets), count), share(lines.total(unfinished), count)


def stop_words(batch: TextBatch) -> NDArray[np.int64]:
    """How many of the stop words occur in each text."""
    words, hashes = batch.words, batch.hashes(batch.words)
    found = np.zeros(len(batch), np.int64)
    for wanted in word_hashes(STOP_WORDS):
        found += np.bincount(words.document[hashes == wanted], minlength=len(batch)) > 0
    return found
