"""Rules that drop documents, each with a reason.

A recipe names them in the order in which they look at a text:

length:100-100000       characters; either number may be missing
language:en,de>0.65     one of these languages, with at least this score (0.65 where none is given)
gopher                  Gopher's quality rules
gopher-repetition       Gopher's repetition rules
c4                      C4's rules, which also cut lines out
fineweb                 FineWeb's rules
quality:FILE>9          the classifier in FILE, with the Pareto rule at this alpha (9 where none is given)
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from bluejay.pile.filters.c4 import c4_rules
from bluejay.pile.filters.fineweb import fineweb_rules
from bluejay.pile.filters.gopher import gopher_rules
from bluejay.pile.filters.language import LEAST_SCORE, in_language, model
from bluejay.pile.filters.quality import ALPHA, Classifier, below
from bluejay.pile.filters.repetition import repetition_rules
from bluejay.pile.filters.verdict import Reasons, first_reason
from bluejay.pile.text.text_batch import TextBatch, Texts, split_texts

Filter = Callable[[Texts], tuple[Texts, pa.StringArray]]
"""Texts to texts, which a rule may have shortened, and the reason for each that is dropped, null where it is kept."""
Rule = Callable[[TextBatch], tuple[TextBatch, Reasons]]
NAMES = "length:100-100000, language:en>0.65, gopher, gopher-repetition, c4, fineweb, quality:FILE>9"
FEW = 0.75
"""Share of texts left from which it pays to look at those alone."""


def chain(names: Sequence[str], seed: int) -> Filter:
    """All rules, one after another; a dropped text comes back as the rule that dropped it found it.

    Raises ValueError: a name that is none, a model that is missing.
    """
    rules = [parse(name, seed) for name in names]

    def kept(texts: Texts) -> tuple[Texts, pa.StringArray]:
        groups = [through(rules, TextBatch(group)) for group in split_texts(texts)]
        found = [text for group, _ in groups for text in group]
        reasons = [reason for _, group in groups for reason in group]
        return pa.array(found, texts.type), pa.array(reasons, pa.string())

    return kept


def through(rules: Sequence[Rule], batch: TextBatch) -> tuple[list[str], Reasons]:
    """The texts after all rules, and why each is dropped."""
    texts, reasons, rows = list(batch.texts), np.full(len(batch), None, np.object_), np.arange(len(batch))
    for rule in rules:
        changed, found = rule(batch)
        new = found.astype(bool) & ~reasons[rows].astype(bool)
        reasons[rows[new]] = found[new]
        left = np.flatnonzero(~reasons[rows].astype(bool))
        if changed is not batch:
            for row in left.tolist():
                texts[rows[row]] = changed.texts[row]
        if len(left) < FEW * len(rows):
            rows, changed = rows[left], TextBatch([changed.texts[row] for row in left.tolist()])
        batch = changed
    return texts, reasons


def parse(name: str, seed: int) -> Rule:
    """The rule that a recipe names. Raises ValueError: there is none of this name, or its model is missing."""
    kind, _, argument = name.partition(":")
    match kind, bool(argument):
        case "gopher", False:
            return dropping(gopher_rules)
        case "gopher-repetition", False:
            return dropping(repetition_rules)
        case "c4", False:
            return c4_rules
        case "fineweb", False:
            return dropping(fineweb_rules)
        case "length", True:
            return dropping(partial(outside, *numbers(name, argument)))
        case "language", True:
            names, least = limit(name, argument, LEAST_SCORE)
            model()
            return dropping(partial(in_language, wanted=frozenset(names.split(",")), least=least))
        case "quality", True:
            path, alpha = limit(name, argument, ALPHA)
            classifier = Classifier.load(Path(path).expanduser())
            return dropping(partial(below, classifier=classifier, alpha=alpha, seed=seed))
        case _:
            raise ValueError(f"there is no filter {name!r}; there are {NAMES}")


def dropping(rule: Callable[[TextBatch], Reasons]) -> Rule:
    """A rule that leaves texts as they are."""
    return lambda batch: (batch, rule(batch))


def limit(name: str, argument: str, default: float) -> tuple[str, float]:
    """An argument and the number after its ">"."""
    rest, found, number = argument.partition(">")
    try:
        value = float(number) if found else default
    except ValueError:
        value = -1.0
    if not rest or not value > 0:
        raise ValueError(f"the filter {name!r} was not understood; there are {NAMES}")
    return rest, value


def numbers(name: str, argument: str) -> tuple[int, float]:
    """The least and the most of "100-100000"; either may be missing."""
    least, dash, most = argument.partition("-")
    if not dash or not (least or most) or not all(part.isdecimal() for part in (least, most) if part):
        raise ValueError(
            f"the filter {name!r} was not understood; write length:100-100000, length:100- or length:-100000"
        )
    return int(least or 0), float(most) if most else math.inf


def outside(least: int, most: float, batch: TextBatch) -> Reasons:
    """Why each text is dropped by its length."""
    return first_reason(("length: too short", batch.lengths < least), ("length: too long", batch.lengths > most))
