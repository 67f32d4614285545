"""Filters: rules that drop documents, each with a reason.

A recipe names filters in the order in which they look at a text. To add one, write its file and its entry in FILTERS;
a test compares docs/filters.md with FILTERS.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bluejay.pile.filters import language, length, quality
from bluejay.pile.filters.c4 import c4_rules
from bluejay.pile.filters.code import code_reasons
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
    """What it looks at, in a few words."""


def fixed(rule: Rule) -> Callable[[str, int], Rule]:
    """The parser of a filter without arguments."""
    return lambda name, seed: rule


FILTERS = {
    "length": FilterKind(length.USAGE, length.parse, "length in characters; either number may be missing"),
    "code": FilterKind("code", fixed(dropping(code_reasons)), "Codex's rules for files of code"),
    "language": FilterKind(language.USAGE, language.parse, "languages, and the least score of fastText"),
    "gopher": FilterKind("gopher", fixed(dropping(gopher_reasons)), "Gopher's quality rules"),
    "gopher-repetition": FilterKind(
        "gopher-repetition", fixed(dropping(repetition_reasons)), "Gopher's repetition rules"
    ),
    "c4": FilterKind("c4", fixed(c4_rules), "C4's rules, which also cut lines"),
    "fineweb": FilterKind("fineweb", fixed(dropping(fineweb_reasons)), "FineWeb's rules"),
    "quality": FilterKind(quality.USAGE, quality.parse, "a trained classifier, and alpha of the Pareto rule"),
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
    if known is None:
        near = difflib.get_close_matches(kind.lower(), FILTERS, n=1, cutoff=0.0)
        usages = ", ".join(known.usage for known in FILTERS.values())
        raise ValueError(f"there is no filter {name!r}; did you mean {near[0]}? (there are {usages})")
    if (":" in known.usage) != bool(argument):
        raise ValueError(f"the filter {name!r} was not understood; write {known.usage}")
    return known.parse(name, seed)
