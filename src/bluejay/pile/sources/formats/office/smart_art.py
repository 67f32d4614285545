"""The text of SmartArt: diagrams whose texts are in a part of their own."""

from typing import Any

from bluejay.pile.sources.formats.office.blocks import Block, item
from bluejay.pile.sources.formats.office.parts import Parts, Relation
from bluejay.pile.sources.io.elements import local_name


def diagram(parts: Parts, relations: dict[str, Relation], name: str, faults: list[ValueError]) -> list[Block]:
    """The texts of a diagram, as items of a list, whose part another relates to by a name; a broken one is a fault."""
    relation = relations.get(name)
    if relation is None or relation.is_external:
        return []
    try:
        root = parts.xml(relation.target)
    except ValueError as error:
        faults.append(error)
        return []
    blocks: list[Block] = []
    for node in root.iter("{*}pt"):
        blocks += item(drawn_text(node).replace("\n", " "), "-", 0)
    return blocks


def drawn_text(node: Any) -> str:
    """The text of the paragraphs in a drawing, a line for each."""
    lines = []
    for found in node.iter("{*}p"):
        parts = found.iter("{*}t", "{*}br")
        lines.append("".join("\n" if local_name(part) == "br" else part.text or "" for part in parts))
    return "\n".join(lines)
