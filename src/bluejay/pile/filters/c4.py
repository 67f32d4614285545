"""C4's rules (Raffel et al. 2020, section 2.2), as FineWeb uses them.

Lines that are not prose are cut out; texts with code, dummy text or too few sentences are dropped. Lines need not end
in punctuation. Sentences are counted by their terminal punctuation, where datatrove takes spaCy's count.
"""

import itertools
import re

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.filters.rule import Reasons, first_reason
from bluejay.pile.text.text_batch import LETTER, SPACE, TERMINAL, Spans, TextBatch, segment_sums, word_hashes

MIN_SENTENCES = 5
MIN_LINE_WORDS = 3
MAX_WORD_CHARACTERS = 1000
"""A line with a longer word is cut out."""
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
ABBREVIATIONS = (
    "adm bros co corp dr e.g gen gov i.e inc jr ltd messrs mr mrs ms prof rep rev sen sr st vs jan feb mar apr jun jul "
    "aug sep sept oct nov dec"
)
"""Words after which a full stop does not end a sentence."""
CLOSING_MARKS = np.array([ord(character) for character in "\"')]}»”’"], np.uint32)


def c4_rules(batch: TextBatch) -> tuple[TextBatch, Reasons]:
    """The texts without the cut lines, and why each text is dropped."""
    lines, each_word = batch.lines, batch.words_of_lines
    kept = np.ones(len(lines.starts), np.bool_)
    kept[lines_with(batch, batch.words.starts[batch.words.lengths > MAX_WORD_CHARACTERS])] = False
    kept &= np.diff(each_word) >= MIN_LINE_WORDS
    lorem, script = (marked(batch, batch.find(phrase)) for phrase in ("lorem ipsum", "javascript"))
    brace = marked(batch, np.flatnonzero(batch.points == ord("{")))
    policy = np.logical_or.reduce([marked(batch, batch.find(phrase)) for phrase in POLICIES])
    dummy, code = kept & lorem, kept & brace & ~lorem & ~script
    shorter = TextBatch(join_lines(batch, np.flatnonzero(kept & ~script & ~policy)))
    return shorter, first_reason(
        ("c4: lorem ipsum", lines.total(dummy) > 0),
        ("c4: curly bracket", lines.total(code) > 0),
        ("c4: fewer than 5 sentences", sentences(shorter) < MIN_SENTENCES),
    )


def lines_with(batch: TextBatch, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of the line of each character position."""
    return np.searchsorted(batch.lines.starts, places, side="right") - 1


def marked(batch: TextBatch, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which lines hold one of the character positions, (lines,)."""
    lines = np.zeros(len(batch.lines.starts), np.bool_)
    lines[lines_with(batch, places)] = True
    return lines


def join_lines(batch: TextBatch, kept: NDArray[np.int64]) -> list[str]:
    """The texts made of some lines alone, stripped of outer white space and of citation marks."""
    starts, ends = batch.words.starts[batch.words_of_lines[kept]], batch.words.ends[batch.words_of_lines[kept + 1] - 1]
    parts = [batch.text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    bounds = np.searchsorted(kept, batch.lines.bounds).tolist()
    texts = ["\n".join(parts[first:last]) for first, last in itertools.pairwise(bounds)]
    return [(CITATION.sub("", text) if "[" in text else text).strip() for text in texts]


def sentences(batch: TextBatch) -> NDArray[np.int64]:
    """The sentences of each text: one per line that is not empty, and one more for every sentence that ends within."""
    lines, each_word = batch.lines, batch.words_of_lines
    points, kinds = np.append(batch.points, [ord("\n")] * 2), np.append(batch.kinds, [SPACE] * 2)
    full = np.flatnonzero(np.diff(each_word))
    ends = np.flatnonzero(batch.kinds & TERMINAL)
    # A closing mark may follow the end of a sentence; of several consecutive ends only the last counts.
    after = ends + 1 + np.isin(points[ends + 1], CLOSING_MARKS)
    ends = ends[kinds[after] == SPACE]
    last_words = np.zeros(len(lines.starts), np.int64)
    last_words[full] = batch.words.starts[each_word[full + 1] - 1]
    ends = ends[ends < last_words[lines_with(batch, ends)]]
    ends = ends[~abbreviated(batch, ends)]
    bounds = np.append(np.searchsorted(ends, batch.starts), len(ends))
    within = segment_sums(np.ones(len(ends), np.int64), bounds)
    return within + segment_sums(np.ones(len(full), np.int64), np.searchsorted(full, lines.bounds))


def abbreviated(batch: TextBatch, ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which possible ends of sentences are the full stop of an initial, an abbreviation or an ellipsis."""
    points = batch.points
    starts = batch.words.starts[np.searchsorted(batch.words.starts, ends, side="right") - 1]
    stems = batch.hashes(Spans(starts, ends, np.array([0, len(ends)])), batch.lower_prefix)
    short = np.isin(stems, word_hashes(tuple(ABBREVIATIONS.split())))
    initial = (ends - starts == 1) & ((batch.kinds[starts] & LETTER) != 0)
    dotted = (points[np.maximum(ends - 1, 0)] == ord(".")) | (points[np.maximum(ends - 2, 0)] == ord("."))
    return (points[ends] == ord(".")) & (short | dotted | initial)
