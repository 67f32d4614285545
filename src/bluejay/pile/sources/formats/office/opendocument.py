"""Texts and presentations in OpenDocument (ISO/IEC 26300), as LibreOffice writes them."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bluejay.pile.sources.formats.mathml import formula
from bluejay.pile.sources.formats.office.blocks import (
    Block,
    Content,
    heading,
    in_form,
    item,
    line_of_code,
    note,
    paragraph,
    row,
)
from bluejay.pile.sources.formats.office.parts import Parts, as_number, attribute, child, statements
from bluejay.pile.sources.io.elements import local_name

CONTENT, STYLES, META, MANIFEST = "content.xml", "styles.xml", "meta.xml", "META-INF/manifest.xml"
KINDS = ("text", "presentation", "drawing")
"""The elements of a body that are read."""
HIDDEN = {"tracked-changes", "annotation", "script", "forms", "number", "page-number", "placeholder"}
HIDDEN |= {"table-of-content", "illustration-index", "table-index", "object-index", "user-index", "alphabetical-index"}
"""Elements whose text is deleted, not part of the document, or made of its headings and entries."""
CODE = re.compile(r"preformatted|source[_ ]code|code\b", re.IGNORECASE)
"""The names of styles whose paragraphs are lines of code."""
REPEATED = {"page-number", "date-time", "footer", "header", "page", "handout"}
"""Classes of shapes on slides and pages of notes that stand on all of them, or show the slide."""
DRAWING = ("{urn:oasis:names:tc:opendocument:xmlns:svg", "{http://www.w3.org/2000/svg")
"""How the names of titles and descriptions of pictures begin."""
SPACE = re.compile(r"[ \t\r\n]+")
OUTLINE = "the outline"
"""The name here of how headings are numbered; a style cannot have it."""
MAX_REPEATED = 1000
"""Spaces that stand for one; more are damage."""
LEVELS = 10


@dataclass
class Level:
    """How the items of one level of a list are marked."""

    form: str
    """As `in_form` has it; empty where items have no number, and "-" for a bullet."""
    prefix: str = ""
    suffix: str = ""
    shown: int = 1
    """How many levels a number shows."""
    start: int = 1


def read_flat(root: Any) -> Content:
    """The text of a document that is one XML file. Raises ValueError: it is of another kind."""
    content = OpenDocument(root, None, None, []).read()
    about = child(root, "meta")
    content.meta, content.rights = ({}, "") if about is None else statements(about)
    return content


def read_opendocument(parts: Parts) -> Content:
    """The text of a document in a zip archive. Raises ValueError: it is encrypted, or of another kind."""
    if MANIFEST in parts and any(local_name(node) == "encryption-data" for node in parts.xml(MANIFEST).iter()):
        raise ValueError("encrypted: it needs a password")
    root = parts.xml(CONTENT)
    faults: list[ValueError] = []
    styles = None
    try:
        styles = parts.xml(STYLES) if STYLES in parts else None
    except ValueError as error:
        faults.append(error)
    content = OpenDocument(root, styles, parts, faults).read()
    try:
        content.meta, content.rights = statements(parts.xml(META)) if META in parts else ({}, "")
    except ValueError as error:
        faults.append(error)
    return content


class OpenDocument:
    """What the text of a document depends on: its styles, lists and notes."""

    def __init__(self, root: Any, styles: Any, parts: Parts | None, faults: list[ValueError]) -> None:
        self.root, self.parts, self.faults = root, parts, faults
        self.levels: dict[str, dict[int, Level]] = {}
        """How lists and headings are marked, by the name of their style and the level."""
        self.parents: dict[str, str] = {}
        self.hidden: set[str] = set()
        for node in (node for tree in (styles, root) if tree is not None for node in tree.iter()):
            self.learn(node)
        self.counts: dict[str, list[int | None]] = {}
        """The numbers of lists, by the name of their style and by their own."""
        self.outline: list[int | None] = [None] * LEVELS
        self.noted: list[Any] = []

    def learn(self, node: Any) -> None:
        """Take note of a style."""
        name = local_name(node)
        if name == "style":
            self.parents[attribute(node, "name")] = attribute(node, "parent-style-name")
            text = child(node, "text-properties")
            if text is not None and attribute(text, "display") == "none":
                self.hidden.add(attribute(node, "name"))
        elif name in ("list-style", "outline-style"):
            levels = self.levels.setdefault(attribute(node, "name") if name == "list-style" else OUTLINE, {})
            for part in node:
                kind = local_name(part)
                if kind.startswith(("list-level-style", "outline-level-style")):
                    levels[whole(part, "level", 1)] = Level(
                        attribute(part, "num-format") if kind.endswith(("-style", "-number")) else "-",
                        attribute(part, "num-prefix"),
                        attribute(part, "num-suffix"),
                        whole(part, "display-levels", 1),
                        whole(part, "start-value", 1),
                    )

    def read(self) -> Content:
        """The blocks of the document, with those of its notes at the end. Raises ValueError: it is of another kind."""
        body = child(self.root, "body")
        found = [] if body is None else [node for node in body if local_name(node) in KINDS]
        if not found:
            is_table = body is not None and child(body, "spreadsheet") is not None
            raise ValueError("a spreadsheet; save it as CSV" if is_table else "it holds neither text nor slides")
        blocks = self.blocks_of(found[0])
        number = 0
        while number < len(self.noted):  # notes may have notes
            number += 1
            blocks += note(number, self.blocks_of(self.noted[number - 1]))
        return Content(blocks, self.faults)

    def blocks_of(self, node: Any) -> list[Block]:
        """The blocks within an element."""
        blocks: list[Block] = []
        for part in node:
            name = local_name(part)
            if name in ("p", "h"):
                blocks += self.paragraph(part)
            elif name == "list":
                blocks += self.list_of(part, "", [], 1)
            elif name == "table":
                for cells in rows_of(part):
                    blocks += row([self.blocks_of(cell) for cell in cells])
            elif name == "object":
                blocks += paragraph(self.formula_in(part))
            elif name and not self.is_hidden(part):
                blocks += self.shape(part) if attribute(part, "class") else self.blocks_of(part)
        return blocks

    def shape(self, node: Any) -> list[Block]:
        """The blocks of a shape that a slide's layout has a place for."""
        kind = attribute(node, "class")
        if kind in REPEATED or attribute(node, "placeholder") == "true":
            return []
        blocks = self.blocks_of(node)
        return heading(" ".join(block.text for block in blocks), 2) if kind == "title" else blocks

    def is_hidden(self, node: Any) -> bool:
        """Whether the text of an element is none of the document, or hidden."""
        if local_name(node) in HIDDEN or node.tag.startswith(DRAWING):
            return True
        shown = attribute(node, "display") != "none" and attribute(node, "is-hidden") != "true"
        return not shown or attribute(node, "style-name") in self.hidden

    def list_of(self, node: Any, style: str, counts: list[int | None], level: int) -> list[Block]:
        """The blocks of a list at a level from 1 on, which is within one of this style and these numbers, if any."""
        style = attribute(node, "style-name") or style
        if level == 1:
            before = attribute(node, "continue-list")
            if not before and attribute(node, "continue-numbering") == "true":
                before = style
            none: list[int | None] = [None] * LEVELS
            counts = self.counts.get(before, none)
            self.counts |= {name: counts for name in (style, attribute(node, "id")) if name}
        blocks: list[Block] = []
        for part in node:
            if local_name(part) not in ("list-item", "list-header"):
                continue
            if start := whole(part, "start-value", 0):
                counts[level - 1] = start - 1
            is_marked = local_name(part) == "list-header"
            for inner in part:
                name = local_name(inner)
                if name == "list":
                    blocks += self.list_of(inner, style, counts, min(level + 1, LEVELS))
                elif name in ("p", "h") and not is_marked:
                    is_marked = True
                    has_text = "".join(inner.itertext()).strip()
                    blocks += self.paragraph(inner, self.number(style, counts, level) if has_text else "", level - 1)
                else:
                    blocks += self.blocks_of([inner])
        return blocks

    def number(self, style: str, counts: list[int | None], level: int) -> str:
        """The mark of the next item of a list at a level from 1 on; empty where items have none."""
        levels = self.levels.get(style, {})
        how = levels.get(level, Level("" if style == OUTLINE else "-"))
        if how.form in ("", "-"):
            return how.form
        for above in range(level - 1):  # an item that was left out counts
            counts[above] = levels.get(above + 1, how).start if counts[above] is None else counts[above]
        count = counts[level - 1]
        counts[level - 1] = how.start if count is None else count + 1
        counts[level:] = [None] * (LEVELS - level)
        shown = []
        for at in range(max(1, level - how.shown + 1), level + 1):
            of = levels.get(at, how)
            count = counts[at - 1]
            if of.form not in ("", "-"):
                shown.append(in_form(of.start if count is None else count, of.form))
        return f"{how.prefix}{'.'.join(shown)}{how.suffix}".strip()

    def style_names(self, node: Any) -> Iterator[str]:
        """The names of a paragraph's style and of those that it is based on."""
        name = attribute(node, "style-name")
        for _ in range(LEVELS):
            if not name:
                return
            yield name
            name = self.parents.get(name, "")

    def paragraph(self, node: Any, mark: str = "", depth: int = 0) -> list[Block]:
        """The blocks of a paragraph or heading behind the mark of a list: itself, and the text boxes anchored in it."""
        if self.is_hidden(node):
            return []
        texts: list[str] = []
        boxes: list[Block] = []
        self.walk(node, texts, boxes)
        text = "".join(texts)
        names = list(self.style_names(node))
        if local_name(node) == "h" and text.strip():
            level = min(max(whole(node, "outline-level", 1), 1), LEVELS)
            if not mark and attribute(node, "is-list-header") != "true":
                mark = self.number(OUTLINE, self.outline, level)
            return [*heading(text if mark in ("", "-") else f"{mark} {text}", level), *boxes]
        if "Title" in names:
            return [*heading(text, 1), *boxes]
        if mark:
            return [*item(text, mark, depth), *boxes]
        if any(map(CODE.search, names)):
            return [*line_of_code(text), *boxes]
        return [*paragraph(text), *boxes]

    def walk(self, node: Any, texts: list[str], boxes: list[Block]) -> None:
        """Add the text within an element to `texts`, in which white space is as it is shown."""
        self.write(node.text, texts)
        for part in node:
            name = local_name(part)
            if name == "s":
                texts.append(" " * min(whole(part, "c", 1), MAX_REPEATED))
            elif name in ("tab", "line-break"):
                texts.append("\t" if name == "tab" else "\n")
            elif name == "note":
                body = child(part, "note-body")
                if body is not None:
                    self.noted.append(body)
                    texts.append(f"[{len(self.noted)}]")
            elif name == "ruby":
                for key, form in (("ruby-base", "{}"), ("ruby-text", "({})")):
                    inner: list[str] = []
                    if (found := child(part, key)) is not None:
                        self.walk(found, inner, boxes)
                    texts.append(form.format("".join(inner)) if "".join(inner).strip() else "")
            elif name == "object":
                texts.append(self.formula_in(part))
            elif name in ("p", "h", "list", "table"):
                boxes += self.blocks_of([part])
            elif name and not self.is_hidden(part):
                self.walk(part, texts, boxes)
            self.write(part.tail, texts)

    def formula_in(self, node: Any) -> str:
        """The formula that an embedded object is, in a line; empty for other objects."""
        path = posixpath.normpath(posixpath.join(attribute(node, "href"), CONTENT))
        found = next((part for part in node if local_name(part) == "math"), None)
        if found is None and self.parts is not None and path in self.parts:
            try:
                found = self.parts.xml(path)
            except ValueError as error:
                self.faults.append(error)
        return "" if found is None or local_name(found) != "math" else formula(found)

    def write(self, text: str | None, texts: list[str]) -> None:
        """Add a text, in which white space of any length is one space, and none at the start of a line."""
        text = SPACE.sub(" ", text or "")
        last = next((part for part in reversed(texts) if part), "\n")
        text = text.removeprefix(" ") if last.endswith((" ", "\n")) else text
        if text:
            texts.append(text)


def rows_of(node: Any) -> Iterator[list[Any]]:
    """The cells of each row of a table, without those that a wider or higher one covers."""
    for part in node:
        name = local_name(part)
        if name == "table-row":
            yield [cell for cell in part if local_name(cell) == "table-cell"]
        elif name.startswith("table-"):
            yield from rows_of(part)


def whole(node: Any, name: str, usual: int) -> int:
    """The number that an attribute of an element states; the usual one where it states none."""
    return as_number(attribute(node, name), usual)
