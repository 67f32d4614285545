"""Drop texts by their length in characters."""

import math
from functools import partial

from bluejay.pile.filters.rule import Reasons, Rule, dropping, first_reason
from bluejay.pile.text.text_batch import TextBatch

USAGE = "length:100-100000"


def parse(name: str, seed: int) -> Rule:
    """The rule that a recipe names "length:LEAST-MOST"; either number may be missing. Raises ValueError: malformed."""
    least, dash, most = name.partition(":")[2].partition("-")
    if not dash or not (least or most) or not all(part.isdecimal() for part in (least, most) if part):
        raise ValueError(f"the filter {name!r} was not understood; write {USAGE}, length:100- or length:-100000")
    if least and most and int(least) > int(most):
        raise ValueError(f"the filter {name!r} drops every text; write length:{most}-{least}")
    return dropping(partial(length_reasons, least=int(least or 0), most=float(most) if most else math.inf))


def length_reasons(batch: TextBatch, least: int, most: float) -> Reasons:
    """Why each text is dropped."""
    return first_reason(("length: too short", batch.lengths < least), ("length: too long", batch.lengths > most))
