"""Presentations of PowerPoint (ECMA-376, PresentationML)."""

from typing import Any

from bluejay.pile.sources.formats.office.blocks import Block, Content, heading, in_form, item, paragraph, row
from bluejay.pile.sources.formats.office.omml import office_formula
from bluejay.pile.sources.formats.office.parts import Parts, Relation, as_number, attribute, child, related
from bluejay.pile.sources.formats.office.smart_art import diagram
from bluejay.pile.sources.formats.office.symbols import from_symbol_font
from bluejay.pile.sources.io.elements import local_name

TITLES = {"ctrTitle": 1, "title": 2}
"""The level of the heading that a placeholder's text is."""
REPEATED = {"dt", "ftr", "hdr", "sldNum"}
"""Placeholders of what stands on every slide."""
BULLETS = {"", "obj"}
"""Kinds of placeholders whose paragraphs are items of a list unless they say otherwise."""
FORMS = {"alphaLc": "a", "alphaUc": "A", "romanLc": "i", "romanUc": "I"}
"""How the names of forms of numbers begin; all others are written in digits."""
MAX_DEPTH = 8
"""The deepest level of a list, from 0 on."""


def read_slides(parts: Parts, path: str, root: Any) -> Content:
    """The text of a presentation whose main part is at `path` and has the root `root`: the slides in their order, each
    with its notes. A slide that is broken is a fault."""
    relations = parts.relations(path)
    blocks: list[Block] = []
    faults: list[ValueError] = []
    listed = child(root, "sldIdLst")
    for node in () if listed is None else listed.iterchildren("{*}sldId"):
        names = [value for key, value in node.attrib.items() if key.endswith("relationships}id")]
        relation = relations.get(names[0]) if names else None
        try:
            if relation is None or relation.is_external:
                raise ValueError("a slide is missing")
            slide = parts.xml(relation.target)
            beside = parts.relations(relation.target)
            blocks += Slide(parts, beside, faults).blocks_of(slide)
            if notes := related(beside, "notesSlide"):
                blocks += notes_in(parts, notes, faults)
        except ValueError as error:
            faults.append(error)
    return Content(blocks, faults)


def notes_in(parts: Parts, path: str, faults: list[ValueError]) -> list[Block]:
    """The blocks of a page of notes, without its picture of the slide."""
    return Slide(parts, parts.relations(path), faults, is_notes=True).blocks_of(parts.xml(path))


class Slide:
    """What the text of one slide depends on."""

    def __init__(
        self, parts: Parts, relations: dict[str, Relation], faults: list[ValueError], is_notes: bool = False
    ) -> None:
        self.parts, self.relations, self.faults, self.is_notes = parts, relations, faults, is_notes

    def blocks_of(self, node: Any) -> list[Block]:
        """The blocks of the shapes within an element, in their order."""
        blocks: list[Block] = []
        for part in node:
            name = local_name(part)
            if name == "sp":
                blocks += self.shape(part)
            elif name == "tbl":
                rows = [found for found in part if local_name(found) == "tr"]
                for cells in rows:
                    blocks += row([text_blocks(cell, "cell") for cell in cells if local_name(cell) == "tc"])
            elif name == "relIds":
                blocks += diagram(self.parts, self.relations, attribute(part, "dm"), self.faults)
            elif name == "AlternateContent":
                forms = (form for form in part if local_name(form) in ("Choice", "Fallback"))
                blocks += next(filter(None, map(self.blocks_of, forms)), [])
            elif name:
                blocks += self.blocks_of(part)
        return blocks

    def shape(self, node: Any) -> list[Block]:
        """The blocks of a shape with text."""
        place = child(node, "nvSpPr", "nvPr", "ph")
        kind = "text" if place is None else place.get("type", "")
        if kind in REPEATED or (self.is_notes and kind != "body"):
            return []
        if kind in TITLES:
            return heading(" ".join(map(text_of_paragraph, paragraphs_of(node))), TITLES[kind])
        return text_blocks(node, kind)


def text_blocks(node: Any, kind: str) -> list[Block]:
    """The paragraphs of a shape or of a cell of a table; `kind` is that of its placeholder."""
    blocks: list[Block] = []
    counts: dict[int, int] = {}
    for found in paragraphs_of(node):
        text = text_of_paragraph(found)
        if not text.strip():
            continue
        properties = child(found, "pPr")
        depth = 0 if properties is None else min(as_number(properties.get("lvl", ""), 0), MAX_DEPTH)
        counts = {key: count for key, count in counts.items() if key <= depth}
        number = None if properties is None else child(properties, "buAutoNum")
        has_none = properties is not None and child(properties, "buNone") is not None
        own = properties is not None and any(child(properties, key) is not None for key in ("buChar", "buBlip"))
        if number is not None:
            counts[depth] = counts[depth] + 1 if depth in counts else as_number(number.get("startAt", ""), 1)
            blocks += item(text, numbered(counts[depth], number.get("type", "")), depth)
            continue
        counts.pop(depth, None)
        blocks += item(text, "-", depth) if own or (kind in BULLETS and not has_none) else paragraph(text)
    return blocks


def paragraphs_of(node: Any) -> list[Any]:
    """The paragraphs of a shape or a cell."""
    return [part for body in node if local_name(body) == "txBody" for part in body if local_name(part) == "p"]


def text_of_paragraph(node: Any) -> str:
    """The text of a paragraph, without the number of the slide."""
    texts = []
    for part in node:
        name = local_name(part)
        if name == "br":
            texts.append("\n")
        elif name == "oMath":
            texts.append(office_formula(part))
        elif name == "r":
            text, font = child(part, "t"), child(part, "rPr", "sym")
            font = child(part, "rPr", "latin") if font is None else font
            written = "" if text is None else (text.text or "")
            texts.append(written if font is None else from_symbol_font(font.get("typeface", ""), written))
        elif name == "AlternateContent":
            texts.append(next(filter(None, map(text_of_paragraph, part)), ""))
        elif name == "t":
            texts.append(part.text or "")
        elif name and name not in ("pPr", "endParaRPr") and part.get("type") != "slidenum":
            texts.append(text_of_paragraph(part))
    return "".join(texts).replace("\v", "\n")


def numbered(number: int, kind: str) -> str:
    """The mark of an item that is numbered in a way: alphaLcParenR is a), b), ..."""
    form = next((form for name, form in FORMS.items() if kind.startswith(name)), "1")
    after = ")" if "Paren" in kind else "" if kind.endswith("Plain") else "."
    return f"{'(' if kind.endswith('ParenBoth') else ''}{in_form(number, form)}{after}"
