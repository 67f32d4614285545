"""FineWeb's own rules (Penedo et al. 2024, section 3.6), against lists, menus and tables that other rules keep."""

import numpy as np

from bluejay.pile.filters.repetition import repeated
from bluejay.pile.filters.rule import Reasons, first_reason, share
from bluejay.pile.text.text_batch import TERMINAL, Spans, TextBatch

MIN_LINES_WITH_END = 0.12
SHORT_LINE_CHARACTERS = 30
MAX_SHORT_LINES = 0.67
MAX_REPEATED_CHARACTERS = 0.01
MAX_LINES_PER_WORD = 0.3


def fineweb_reasons(batch: TextBatch) -> Reasons:
    """Why each text is dropped."""
    every = batch.lines
    full = np.flatnonzero(np.diff(batch.words_of_lines))
    lines = Spans(every.starts[full], every.ends[full], np.searchsorted(full, every.bounds))
    finished = (batch.kinds[lines.ends - 1] & TERMINAL) != 0
    again = repeated(batch.hashes(lines), lines)
    line_ends = every.counts - 1
    return first_reason(
        ("fineweb: empty", lines.counts == 0),
        ("fineweb: too few lines end a sentence", share(lines.total(finished), lines.counts) < MIN_LINES_WITH_END),
        (
            "fineweb: too many short lines",
            share(lines.total(lines.lengths <= SHORT_LINE_CHARACTERS), lines.counts) > MAX_SHORT_LINES,
        ),
        (
            "fineweb: repeated lines",
            share(lines.total(lines.lengths * again), batch.lengths - line_ends) > MAX_REPEATED_CHARACTERS,
        ),
        ("fineweb: too few words per line", share(line_ends, batch.words.counts) > MAX_LINES_PER_WORD),
    )
