"""Formulas in OMML, the markup of Microsoft Office, written in a line as those in MathML are."""

from typing import Any

from bluejay.pile.sources.formats.mathml import formula
from bluejay.pile.sources.formats.office.parts import attribute, child
from bluejay.pile.sources.io.elements import local_name

FORMS = {
    "f": ("mfrac", "num", "den"),
    "sSup": ("msup", "e", "sup"),
    "sSub": ("msub", "e", "sub"),
    "sSubSup": ("msubsup", "e", "sub", "sup"),
    "sPre": ("msubsup", "e", "sub", "sup"),
    "limLow": ("munder", "e", "lim"),
    "limUpp": ("mover", "e", "lim"),
    "rad": ("mroot", "e", "deg"),
    "func": ("mrow", "fName", "e"),
}
"""Elements -> those of MathML and the children that are their parts, in its order."""
ROWS = {"m": "mtable", "eqArr": "mtable", "mr": "mtr"}
PROPERTIES = ("Pr", "PrChange")
"""How the names of elements that only describe others end."""


def office_formula(node: Any) -> str:
    """The symbols of a formula (`oMath`) in a line: x^2=(a+b)/c."""
    return formula(in_mathml(node))


def in_mathml(node: Any) -> Any:
    """A formula, or a part of one, as an element of MathML."""
    from lxml import etree

    name = local_name(node)
    parts = [part for part in node if local_name(part) and not local_name(part).endswith(PROPERTIES)]
    if name == "r":
        made = etree.Element("mi")
        made.text = "".join(part.text or "" for part in parts if local_name(part) == "t")
        return made
    if name in FORMS:
        kind, *wanted = FORMS[name]
        found = [in_mathml(part) for want in wanted if (part := child(node, want)) is not None]
        if name == "rad" and len(found) == 2 and not "".join(found[1].itertext()).strip():
            kind, found = "msqrt", found[:1]
        return element_of(kind, found)
    if name == "d":
        opens, closes, between = (described(node, key, usual) for key, usual in DELIMITERS.items())
        found = [symbol(opens)]
        for number, part in enumerate(parts):
            found += [*([symbol(between)] if number else []), in_mathml(part)]
        return element_of("mrow", [*found, symbol(closes)])
    if name == "nary":
        limits = [in_mathml(part) for key in ("sub", "sup") if (part := child(node, key)) is not None]
        empty = [not "".join(limit.itertext()) for limit in limits]
        sign = symbol(described(node, "chr", "∫"))
        if len(limits) == 2 and not all(empty):
            kind = {(True, False): "mover", (False, True): "munder"}.get((empty[0], empty[1]), "munderover")
            sign = element_of(kind, [sign, *(limit for limit, none in zip(limits, empty, strict=True) if not none)])
        body = child(node, "e")
        return element_of("mrow", [sign, symbol(" "), *([] if body is None else [in_mathml(body)])])
    if name in ("del", "moveFrom"):
        return element_of("mrow", [])
    return element_of(ROWS.get(name, "mrow"), [in_mathml(part) for part in parts])


DELIMITERS = {"begChr": "(", "endChr": ")", "sepChr": "|"}
"""The brackets of an element `d` and what stands between its parts -> what they are unless it says so."""


def described(node: Any, key: str, usual: str) -> str:
    """A character that an element says it is drawn with."""
    found = child(node, f"{local_name(node)}Pr", key)
    return usual if found is None else attribute(found, "val")


def symbol(character: str) -> Any:
    """An element that holds a character; a space is one that is drawn."""
    from lxml import etree

    made = etree.Element("mspace" if character == " " else "mo")
    made.text = character
    return made


def element_of(kind: str, parts: list[Any]) -> Any:
    """An element of MathML with these parts."""
    from lxml import etree

    made = etree.Element(kind)
    made.extend(parts)
    return made
