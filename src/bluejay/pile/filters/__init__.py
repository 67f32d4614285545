"""Filters: rules that drop documents, each with a reason.

A recipe names filters in the order in which they look at a text. To add one, write its file and its entry in FILTERS;
docs/filters.md repeats the entries, and a test compares both.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bluejay.pile.filters import language, length, quality
from bluejay.pile.filters.c4 import c4_rules
from bluejay.pile.filters.fineweb import fineweb_reasons
from bluejay.pile.filters.gopher import gopher_reasons
from bluejay.pile.filters.repetition import repetition_reasons
from bluejay.pile.filters.rule import Reasons, Rule, dropping
from bluejay.pile.text.text_batch import TextBatch, Texts, split_texts

Filter = Callable[[Texts], tuple[Texts, pa.StringArray]]
"""Texts to texts, which a rule may have shortened, and the reason why each text is dropped, null where it is kept."""
MIN_SHARE_LEFT = 0.75
"""When less than this share of a batch is left, the next rules look at those texts alone."""


class FilterKind(NamedTuple):
    """One kind of filter."""

    usage: str
    """How a recipe names it."""
    parse: Callable[[str, int], Rule]
    """From the name in the recipe and the seed to the rule. Raises ValueError: the name is malformed."""
    help: str
    """Which texts it drops, as docs/filters.md says."""


def fixed(rule: Rule) -> Callable[[str, int], Rule]:
    """The parser of a filter without arguments."""
    return lambda name, seed: rule


FILTERS = {
    "length": FilterKind(
        length.USAGE, length.parse, "The text has fewer or more characters than this; either number may be missing."
    ),
    "language": FilterKind(
        language.USAGE,
        language.parse,
        "The text is in none of these languages, or fastText's score is below the number (0.65 where none is given). "
        "fastText reads 300 characters from the middle of the text, and 5,000 where those leave a doubt.",
    ),
    "gopher": FilterKind(
        "gopher",
        fixed(dropping(gopher_reasons)),
        "The text has fewer than 50 or more than 100,000 words; their mean length is not 3 to 10 characters; there are "
        "more than 0.1 `#` or ellipses per word; over 90 % of the lines begin with a bullet, or over 30 % end in an "
        "ellipsis; under 80 % of the words contain a letter; or fewer than 2 of *the, be, to, of, and, that, have, "
        "with* occur.",
    ),
    "gopher-repetition": FilterKind(
        "gopher-repetition",
        fixed(dropping(repetition_reasons)),
        "Over 30 % of the lines or paragraphs, or 20 % of the characters in them, repeat earlier ones; the most "
        "frequent 2-, 3- or 4-gram covers over 20, 18 or 16 % of the characters; or repeated 5- to 10-grams cover over "
        "15, 14, 13, 12, 11 or 10 %.",
    ),
    "c4": FilterKind(
        "c4",
        fixed(c4_rules),
        "The text contains lorem ipsum, a `{`, or fewer than 5 sentences. From the texts that stay, the filter cuts "
        "lines of fewer than 3 words, with a word of over 1,000 characters, with JavaScript, or with cookie and policy "
        "notices; and marks such as `[12]` and `[edit]`.",
    ),
    "fineweb": FilterKind(
        "fineweb",
        fixed(dropping(fineweb_reasons)),
        "Under 12 % of the lines end a sentence; over 67 % have at most 30 characters; over 1 % of the characters are "
        "in repeated lines; or there are more than 0.3 line ends per word.",
    ),
    "quality": FilterKind(
        quality.USAGE,
        quality.parse,
        "The classifier in FILE gives the text a low score: a text of score s stays when a number drawn from a Pareto "
        "distribution with this alpha (9 where none is given) exceeds 1 - s. GPT-3 used 9; The Pile used 3, which "
        "keeps more. The number drawn follows from the seed and the text.",
    ),
}


def chain(names: Sequence[str], seed: int) -> Filter:
    """Apply filters one after another; a dropped text is given back as the filter that dropped it received it.

    Raises ValueError: a filter is unknown, or its model is missing.
    """
    rules = [parse(name, seed) for name in names]

    def apply(texts: Texts) -> tuple[Texts, pa.StringArray]:
        groups = [apply_rules(rules, TextBatch(group)) for group in split_texts(texts)]
        found = [text for group, _ in groups for text in group]
        reasons = [reason for _, group in groups for reason in group]
        return pa.array(found, texts.type), pa.array(reasons, pa.string())

    return apply


def apply_rules(rules: Sequence[Rule], batch: TextBatch) -> tuple[list[str], Reasons]:
    """The texts after all rules, and the reason why each is dropped."""
    texts, reasons, rows = list(batch.texts), np.full(len(batch), None, np.object_), np.arange(len(batch))
    for rule in rules:
        changed, found = rule(batch)
        new = found.astype(bool) & ~reasons[rows].astype(bool)
        reasons[rows[new]] = found[new]
        left = np.flatnonzero(~reasons[rows].astype(bool))
        if changed is not batch:
            for row in left.tolist():
                texts[rows[row]] = changed.texts[row]
        if len(left) < MIN_SHARE_LEFT * len(rows):
            rows, changed = rows[left], TextBatch([changed.texts[row] for row in left.tolist()])
        batch = changed
    return texts, reasons


def parse(name: str, seed: int) -> Rule:
    """The rule that a recipe names. Raises ValueError: the filter is unknown, or its model is missing."""
    kind, _, argument = name.partition(":")
    known = FILTERS.get(kind)
    if known is None or (":" in known.usage) != bool(argument):
        usages = ", ".join(kind.usage for kind in FILTERS.values())
        raise ValueError(f"there is no filter {name!r}; there are {usages}")
    return known.parse(name, seed)
