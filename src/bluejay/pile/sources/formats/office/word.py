"""Documents of Word (ECMA-376, WordprocessingML)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from email import policy
from email.parser import BytesParser
from typing import Any

from bluejay.pile.sources.formats.html import all_text, page_text
from bluejay.pile.sources.formats.mail import body
from bluejay.pile.sources.formats.office.blocks import Block, Content, heading, item, line_of_code, note, paragraph, row
from bluejay.pile.sources.formats.office.omml import office_formula
from bluejay.pile.sources.formats.office.parts import Parts, attribute, child, related
from bluejay.pile.sources.formats.office.smart_art import diagram
from bluejay.pile.sources.formats.office.symbols import SYMBOL_CODES, from_symbol_font
from bluejay.pile.sources.formats.office.word_styles import OFF, Numbering, Styles, is_generated
from bluejay.pile.sources.io.elements import local_name

HIDDEN = {"del", "moveFrom", "delText", "instrText", "delInstrText", "pPr", "tblPr", "trPr", "tcPr", "sectPr", "sdtPr"}
"""Elements whose text is deleted, or not part of the document."""
CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
PROMPT = "placeholder text"
"""The name of the style of what a form says to write in it."""
DELETED_MARKS = ("del", "moveFrom")


@dataclass
class Field:
    """A field that has begun: its code is hidden, and its result may be a table of contents."""

    code: str = ""
    has_result: bool = False


@dataclass
class Line:
    """A paragraph as it is read."""

    text: list[str] = field(default_factory=list)
    boxes: list[Block] = field(default_factory=list)
    """The blocks of the text boxes that are anchored in it."""
    is_shown: bool = True
    """Whether the style of the paragraph shows its text."""


def read_word(parts: Parts, path: str, root: Any) -> Content:
    """The text of a document whose main part is at `path` and has the root `root`."""
    return Word(parts, path, root).read(root)


class Word:
    """What the text of a document depends on: styles, lists, notes, and which fields are open."""

    def __init__(self, parts: Parts, path: str, root: Any) -> None:
        self.parts = parts
        self.faults: list[ValueError] = []
        self.relations = parts.relations(path)
        self.styles = Styles(self.part("styles"))
        self.numbering = Numbering(self.part("numbering"), self.styles)
        self.notes = {kind: self.notes_of(kind) for kind in ("footnote", "endnote")}
        self.noted: list[tuple[str, str]] = []
        """The notes, by kind and name, to which the text refers."""
        self.fields: list[Field] = []
        self.joining = ""
        """The text of a paragraph with which the next one goes on."""
        ends = [attribute(node, "fldCharType") for node in root.iter("{*}fldChar")]
        self.hides_generated = ends.count("begin") == ends.count("end")  # otherwise the rest might be hidden with it

    def part(self, kind: str) -> Any:
        """The root of another part; None where there is none, or it is broken, which is a fault."""
        path = related(self.relations, kind)
        try:
            return self.parts.xml(path) if path else None
        except ValueError as error:
            self.faults.append(error)
            return None

    def notes_of(self, kind: str) -> dict[str, Any]:
        """The footnotes or endnotes, by their names."""
        root = self.part(f"{kind}s")
        return {attribute(node, "id"): node for node in (() if root is None else root) if local_name(node) == kind}

    def read(self, root: Any) -> Content:
        """The blocks of the document, with those of its notes at the end."""
        blocks = [*self.blocks_of(root), *self.last_paragraph()]
        number = 0
        while number < len(self.noted):  # notes may have notes
            kind, name = self.noted[number]
            number += 1
            blocks += note(number, self.aside(self.notes[kind][name]))
        return Content(blocks, self.faults)

    def aside(self, node: Any) -> list[Block]:
        """The blocks of an element that stands apart from the running text."""
        fields, joining = self.fields, self.joining
        self.fields, self.joining = [], ""
        blocks = [*self.blocks_of(node), *self.last_paragraph()]
        self.fields, self.joining = fields, joining
        return blocks

    def last_paragraph(self) -> list[Block]:
        """A paragraph that would go on in the next, where there is none."""
        text, self.joining = self.joining, ""
        return paragraph(text)

    def blocks_of(self, node: Any) -> list[Block]:
        """The blocks within an element."""
        blocks: list[Block] = []
        for part in node:
            name = local_name(part)
            if name == "p":
                blocks += self.paragraph(part)
            elif name == "tbl":
                for cells in self.rows_of(part):
                    blocks += row([self.blocks_of(cell) for cell in cells])
            elif name == "AlternateContent":
                blocks += next(filter(None, map(self.blocks_of, alternatives(part))), [])
            elif name == "altChunk":
                blocks += self.file_within(attribute(part, "id"))
            elif name and name not in HIDDEN and not (name == "sdt" and is_contents(part)):
                blocks += self.blocks_of(part)
        return blocks

    def file_within(self, name: str) -> list[Block]:
        """The text of a page, or of a page as a message, that is a part of the document; of other files, a fault."""
        relation = self.relations.get(name)
        path = "" if relation is None or relation.is_external else relation.target
        try:
            if path.lower().endswith((".html", ".htm", ".xhtml")):
                return paragraph(all_text(page_text(self.parts.content(path), None)))
            if path.lower().endswith((".mht", ".mhtml")):
                return paragraph(body(BytesParser(policy=policy.compat32).parsebytes(self.parts.content(path))))
            raise ValueError(f"a file within is left out: {path or name}")
        except ValueError as error:
            self.faults.append(error)
            return []

    def rows_of(self, node: Any) -> Iterator[list[Any]]:
        """The cells of each row of a table."""
        for part in node:
            name = local_name(part)
            if name == "tr":
                if not any(child(part, "trPr", mark) is not None for mark in DELETED_MARKS):
                    yield list(cells_of(part))
            elif name and name not in HIDDEN and name != "tblGrid":
                yield from self.rows_of(part)

    def paragraph(self, node: Any) -> list[Block]:
        """The blocks of a paragraph: itself, and the text boxes that are anchored in it."""
        properties = child(node, "pPr")
        named = None if properties is None else child(properties, "pStyle")
        style = "" if named is None else attribute(named, "val")
        line = Line(is_shown=not self.styles.is_hidden(style))
        self.walk(node, line)
        self.fields = [opened for opened in self.fields if opened.has_result]  # a code that never ends is damage
        text = self.joining + "".join(line.text)
        self.joining = ""
        if properties is not None and goes_on(properties):
            self.joining = text
            return line.boxes
        return [*self.block(text, style, properties), *line.boxes]

    def block(self, text: str, style: str, properties: Any) -> list[Block]:
        """A paragraph's text in a style, with its own properties, as a block."""
        level = self.styles.heading_level(style, properties)
        listed, depth = self.numbering.place(style, properties)
        mark = self.numbering.mark(listed, depth) if listed and text.strip() else ""
        if level:
            return heading(text if mark in ("", "-") else f"{mark} {text}", level) if text.strip() else []
        if mark:
            return item(text, mark, depth)
        return line_of_code(text) if self.styles.is_code(style) else paragraph(text)

    def walk(self, node: Any, line: Line) -> None:
        """Add the text within an element to a line."""
        for part in node:
            name = local_name(part)
            if name == "r":
                self.run(part, line)
            elif name == "t":
                self.write(part.text or "", line)
            elif name in CHARACTERS:
                self.write(CHARACTERS[name], line)
            elif name == "sym":
                self.write(symbol_of(attribute(part, "font"), attribute(part, "char")), line)
            elif name in ("fldChar", "instrText", "fldSimple"):
                self.field(name, part, line)
            elif name in ("footnoteReference", "endnoteReference"):
                self.refer(name.removesuffix("Reference"), attribute(part, "id"), line)
            elif name == "oMath":
                self.write(office_formula(part), line)
            elif name == "rt":
                self.write("(", line)
                self.walk(part, line)
                self.write(")", line)
            elif name == "ruby":
                for key in ("rubyBase", "rt"):
                    self.walk([found] if (found := child(part, key)) is not None else [], line)
            elif name == "txbxContent":
                line.boxes += self.aside(part) if self.is_shown(line) else []
            elif name == "relIds" and self.is_shown(line):
                line.boxes += diagram(self.parts, self.relations, attribute(part, "dm"), self.faults)
            elif name == "AlternateContent":
                self.walk_first(part, line)
            elif name and name not in HIDDEN and not (name == "sdt" and is_contents(part)):
                self.walk(part, line)

    def walk_first(self, node: Any, line: Line) -> None:
        """Add the text of the first of several forms of one content that has any."""
        before = len(line.text), len(line.boxes)
        for form in alternatives(node):
            self.walk(form, line)
            if before != (len(line.text), len(line.boxes)):
                return

    def run(self, node: Any, line: Line) -> None:
        """Add the text of a run, unless it is hidden."""
        properties = child(node, "rPr")
        begin = len(line.text)
        before, line.is_shown = line.is_shown, self.shows(properties, line.is_shown)
        self.walk(node, line)  # what is hidden, too: fields begin and end there
        line.is_shown = before
        fonts = None if properties is None else child(properties, "rFonts")
        if fonts is not None and (font := attribute(fonts, "ascii")):
            line.text[begin:] = [from_symbol_font(font, text) for text in line.text[begin:]]

    def shows(self, properties: Any, usual: bool) -> bool:
        """Whether the text of a run with these properties is shown, and no prompt, in a paragraph that usually is."""
        if properties is None:
            return usual
        hidden, style = child(properties, "vanish"), child(properties, "rStyle")
        name = "" if style is None else attribute(style, "val")
        if name and PROMPT in self.styles.names(name):
            return False
        if hidden is not None:
            return attribute(hidden, "val") in OFF
        return usual if (is_hidden := self.styles.is_hidden(name)) is None else not is_hidden

    def write(self, text: str, line: Line) -> None:
        """Add text to a line, if it is shown."""
        if text and self.is_shown(line):
            line.text.append(text)

    def is_shown(self, line: Line) -> bool:
        """Whether what stands here is neither hidden nor part of a field's code or of a table of contents."""
        return line.is_shown and all(
            opened.has_result and not (self.hides_generated and is_generated(opened.code)) for opened in self.fields
        )

    def field(self, name: str, node: Any, line: Line) -> None:
        """Take note of where a field, its code or its result begins."""
        kind = attribute(node, "fldCharType")
        if name == "fldSimple":
            if not is_generated(attribute(node, "instr")):
                self.walk(node, line)
        elif name == "instrText":
            if self.fields:
                self.fields[-1].code += node.text or ""
        elif kind == "begin":
            self.fields.append(Field())
        elif kind == "separate" and self.fields:
            self.fields[-1].has_result = True
        elif kind == "end" and self.fields:
            self.fields.pop()

    def refer(self, kind: str, name: str, line: Line) -> None:
        """Add the number of a note to a line, and the note to those that stand at the end."""
        if name in self.notes[kind] and self.is_shown(line):
            self.noted.append((kind, name))
            line.text.append(f"[{len(self.noted)}]")


def alternatives(node: Any) -> list[Any]:
    """The forms of one content (`mc:AlternateContent`), the newest first."""
    return [part for part in node if local_name(part) in ("Choice", "Fallback")]


def cells_of(node: Any) -> Iterator[Any]:
    """The cells of a row."""
    for part in node:
        if local_name(part) == "tc":
            if child(part, "tcPr", "cellDel") is None:
                yield part
        elif local_name(part) and local_name(part) not in HIDDEN:
            yield from cells_of(part)


def goes_on(properties: Any) -> bool:
    """Whether a paragraph with these properties goes on in the next: its end is deleted, or it is a large initial."""
    frame = child(properties, "framePr")
    is_initial = frame is not None and attribute(frame, "dropCap") in ("drop", "margin")
    return is_initial or any(child(properties, "rPr", mark) is not None for mark in DELETED_MARKS)


def is_contents(control: Any) -> bool:
    """Whether a content control (`sdt`) holds a table of contents."""
    gallery = child(control, "sdtPr", "docPartObj", "docPartGallery")
    return gallery is not None and attribute(gallery, "val") == "Table of Contents"


def symbol_of(font: str, code: str) -> str:
    """What a font draws for a code in hexadecimal digits; nothing where it is none."""
    try:
        number = int(code, 16)
        return from_symbol_font(font, chr(number if number >= SYMBOL_CODES else number + SYMBOL_CODES))
    except (ValueError, OverflowError):
        return ""
