"""Formulas in MathML, written in a line."""

import re
from typing import Any

from bluejay.pile.sources.io.elements import line_of, local_name

FORMS = {"mfrac": "{0}/{1}", "msup": "{0}^{1}", "msub": "{0}_{1}", "msubsup": "{0}_{1}^{2}", "mroot": "root({1}, {0})"}
FORMS |= {"munder": "{0}_{1}", "mover": "{0}^{1}", "munderover": "{0}_{1}^{2}"}
"""Elements whose parts do not simply stand beside each other -> how they are written."""
BETWEEN = {"mtr": ", ", "mtable": "; ", "mfenced": ", "}
WHOLE = re.compile(r"[−-]?[\w.′∞*]*|\(.*\)|\S")
"""What needs no brackets as a part of a formula."""
INVISIBLE = re.compile("[\u2061-\u2064]")
NOTES = ("", "annotation", "annotation-xml")


def formula(math: Any) -> str:
    """The TeX that a formula states as its source; without one, its symbols in a line."""
    notes = (node for node in math.iter() if local_name(node) == "annotation" and "tex" in node.get("encoding", ""))
    tex = line_of(next(notes, None))
    return f"${tex}$" if tex else INVISIBLE.sub("", in_a_line(math)).strip()


def in_a_line(node: Any) -> str:
    """The symbols of an element and its parts: a^2/(b+1)."""
    name = local_name(node)
    parts = [in_a_line(part) for part in node if local_name(part) not in NOTES]
    if name in FORMS and len(parts) == len(set(re.findall(r"\{\d\}", FORMS[name]))):
        return FORMS[name].format(*(part if WHOLE.fullmatch(part) else f"({part})" for part in parts))
    if name in ("mspace", "mtext"):
        return line_of(node) or " "
    text = BETWEEN.get(name, "").join(parts) if parts else line_of(node)
    return {"msqrt": "√({})", "mfenced": "({})"}.get(name, "{}").format(text)
