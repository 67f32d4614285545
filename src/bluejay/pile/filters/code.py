"""Rules of Codex (Chen et al. 2021, section 3.1) against files of code that nobody wrote: minified and generated ones,
and data. The least share of letters and digits is that of SantaCoder (Ben Allal et al. 2023)."""

import re

import numpy as np

from bluejay.pile.filters.rule import Reasons, first_reason, share
from bluejay.pile.text.text_batch import TERM, TextBatch, segment_sums

MAX_MEAN_LINE = 100
MAX_LINE = 1000
MIN_WORD_CHARACTERS = 0.25
BEGINNING = 1000
"""Characters in which a file says that it is generated."""
GENERATED = re.compile(r"\bauto-?(?:matically )?generated\b|@generated\b|\bdo not edit\b", re.IGNORECASE)


def code_reasons(batch: TextBatch) -> Reasons:
    """Why each text is dropped."""
    lines = batch.lines
    in_words = segment_sums((batch.kinds & TERM) != 0, np.append(batch.starts, len(batch.points)))
    generated = [GENERATED.search(text, 0, BEGINNING) is not None for text in batch.texts]
    return first_reason(
        ("code: long lines", share(batch.lengths, lines.counts) > MAX_MEAN_LINE),
        ("code: a very long line", np.maximum.reduceat(lines.lengths, lines.bounds[:-1]) > MAX_LINE),
        ("code: too few letters and digits", share(in_words, batch.lengths) < MIN_WORD_CHARACTERS),
        ("code: generated", np.array(generated)),
    )
