"""Rich Text Format 1.9.1, as WordPad and TextEdit write it."""

import codecs
import dataclasses
import re
from dataclasses import dataclass, field

from bluejay.pile.sources.formats.office.blocks import Block, Content, heading, item, note, paragraph, row
from bluejay.pile.sources.formats.office.symbols import SYMBOL_CODES, from_symbol_font
from bluejay.pile.sources.formats.office.word_styles import HEADING, is_generated

MARK = b"{\\rtf"
TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|((?:\\'[0-9a-fA-F]{2})+)|\\(.)|([{}])|([^\\{}\r\n]+)", re.DOTALL
)
"""A control word with its number, bytes in hexadecimal digits, a control symbol, a brace, text."""
BRACE = re.compile(rb"\\bin(\d{1,9}) ?|\\.|[{}]", re.DOTALL)
"""What counts in a group that is skipped; bytes behind `bin` may be braces."""
SKIPPED = {
    word
    for line in (
        "annotation atnauthor atndate atnicn atnid atnparent atnref atntime atrfend atrfstart background",
        "bkmkend bkmkstart colorschememapping colortbl comment datafield datastore doccomm falt filetbl",
        "fontemb fontfile footer footerf footerl footerr ftncn ftnsep ftnsepc header headerf headerl headerr",
        "keywords latentstyles levelnumbers leveltext listname listoverridetable listtable nextfile",
        "nonesttables nonshppict objdata operator panose pict pntxta pntxtb private revtbl rsidtbl rxe",
        "shprslt sn sp subject sv tc tcn template themedata txe xe",
    )
    for word in line.split()
}
"""Groups that hold no text of the document."""
KEPT = {"shpinst", "do", "fldinst", "footnote"}
"""Groups that are read although they begin as those do that older programs skip."""
CHARACTERS = {
    "tab": "\t",
    "line": "\n",
    "emdash": "—",
    "endash": "–",
    "emspace": " ",
    "enspace": " ",
    "qmspace": " ",
    "bullet": "•",
    "lquote": "‘",
    "rquote": "’",
    "ldblquote": "“",
    "rdblquote": "”",
    "lbr": "\n",
    "softline": "\n",
}
SYMBOLS = {"~": "\xa0", "_": "-", "\\": "\\", "{": "{", "}": "}", "\t": "\t"}
PAGES = {"ansi": "cp1252", "mac": "mac-roman", "pc": "cp437", "pca": "cp850"}
CHARSETS = {
    0: 1252,
    128: 932,
    129: 949,
    130: 1361,
    134: 936,
    136: 950,
    161: 1253,
    162: 1254,
    163: 1258,
    177: 1255,
    178: 1256,
    186: 1257,
    204: 1251,
    222: 874,
    238: 1250,
    254: 437,
    255: 850,
}
"""The code pages of the character sets of fonts."""
SYMBOL_SET, MAC_SET = 2, 77
PICTURES = "symbols"
"""Stands for the code page of a font of symbols."""
ASIDE = {"footnote", "shptxt", "dptxbxtext"}
"""Groups that are notes or text boxes."""


@dataclass
class Group:
    """What holds in a group until its end."""

    place: str = "text"
    """What its text is part of: the document itself, or "listtext", "fonttbl", ..."""
    font: int = -1
    fallback: int = 1
    """How many characters behind a character of Unicode stand for it in older programs."""
    is_hidden: bool = False
    is_deleted: bool = False


@dataclass
class Body:
    """The text of the document, or of a note or a text box in it, as it is read."""

    kind: str = ""
    depth: int = 0
    """How many groups are open in which it stands."""
    blocks: list[Block] = field(default_factory=list)
    boxes: list[Block] = field(default_factory=list)
    """The blocks of the text boxes that are anchored in the paragraph."""
    text: list[str] = field(default_factory=list)
    mark: list[str] = field(default_factory=list)
    """The mark of an item of a list."""
    cell: list[Block] = field(default_factory=list)
    cells: list[list[Block]] = field(default_factory=list)
    style: int = -1
    level: int = -1
    item_depth: int = 0
    in_table: bool = False


def read_rtf(raw: bytes) -> Content:
    """The text of a document, up to its end or to where it is broken off."""
    return Reader(raw).read()


class Reader:
    """The groups that are open, and what the document says of fonts and styles."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0
        self.groups = [Group()]
        self.bodies = [Body()]
        self.notes: list[list[Block]] = []
        self.page = self.ansi = "cp1252"
        self.decoder = codecs.getincrementaldecoder("cp1252")("replace")
        self.fonts: dict[int, str] = {}
        """The code page of each font that has one."""
        self.names: dict[int, str] = {}
        """The name of each font, with the semicolon behind it."""
        self.styles: dict[int, str] = {}
        self.style = -1
        self.codes: list[tuple[int, list[str]]] = []
        """The codes of the fields that are open, and how many groups are open in which they stand."""
        self.about: dict[str, str] = {}
        self.created: list[int] = []
        self.to_skip = 0
        self.begins = self.is_optional = False
        """Whether a group has just begun, and with the mark of those that older programs skip."""

    def read(self) -> Content:
        """The blocks of the document, with those of its notes at the end."""
        while self.at < len(self.raw) and self.groups:
            found = TOKEN.match(self.raw, self.at)
            self.at = found.end() if found else self.at + 1
            if found:
                self.token(*found.groups())
        while len(self.bodies) > 1:
            self.close_body()
        self.end_row(self.end_paragraph())
        blocks = self.bodies[0].blocks
        for number, written in enumerate(self.notes, 1):
            blocks += note(number, written)
        date = self.created if len(self.created) == 3 and self.created[0] else []
        meta = {
            "title": self.about.get("title", "").strip(),
            "authors": list(filter(None, map(str.strip, self.about.get("author", "").split(";")))),
            "date": "-".join(f"{number:02}" for number in date),
        }
        return Content(blocks, meta=meta)

    def token(
        self,
        word: bytes | None,
        number: bytes | None,
        digits: bytes | None,
        symbol: bytes | None,
        brace: bytes | None,
        text: bytes | None,
    ) -> None:
        """Take one token."""
        begins, self.begins = self.begins, brace == b"{"
        if word:
            self.word(word.decode(), int(number) if number else None)
        elif brace == b"{":
            self.to_skip, self.is_optional = 0, False
            self.groups.append(dataclasses.replace(self.groups[-1]))
        elif brace:
            self.close()
        elif symbol == b"*":
            self.is_optional = begins
        elif symbol in (b"\n", b"\r"):
            self.word("par", None)
        elif symbol:
            if self.to_skip:
                self.to_skip -= 1
            else:
                self.write(SYMBOLS.get(symbol.decode("latin-1"), ""))
        else:
            raw = bytes.fromhex(digits.replace(b"\\'", b"").decode()) if digits else text or b""
            skipped = min(self.to_skip, len(raw))
            self.to_skip -= skipped
            if raw := raw[skipped:]:
                self.write_bytes(raw)

    def close(self) -> None:
        """Close a group, with the note or text box that it is."""
        self.to_skip = 0
        while len(self.bodies) > 1 and self.bodies[-1].depth == len(self.groups):
            self.close_body()
        if self.codes and self.codes[-1][0] == len(self.groups):
            self.codes.pop()
        self.groups.pop()

    def close_body(self) -> None:
        """Take the blocks of a note or text box that ends."""
        self.end_row(self.end_paragraph())
        body = self.bodies.pop()
        if body.kind == "footnote":
            self.notes.append(body.blocks)
        else:
            self.bodies[-1].boxes += body.blocks

    def word(self, word: str, number: int | None) -> None:
        """Take a control word."""
        group, body = self.groups[-1], self.bodies[-1]
        is_optional, self.is_optional = self.is_optional, False
        if word == "bin":
            self.at += max(number or 0, 0)
        elif word in SKIPPED or (is_optional and word not in KEPT):
            self.skip()
        elif word == "u" and number is not None:
            self.write_symbols(chr(number % 0x10000))
            self.to_skip = group.fallback
        elif word == "uc":
            group.fallback = min(max(number or 0, 0), 100)
        elif word in CHARACTERS:
            self.write(CHARACTERS[word])
        elif word in ("v", "deleted"):
            is_on = number != 0
            group.is_hidden, group.is_deleted = (is_on, group.is_deleted) if word == "v" else (group.is_hidden, is_on)
        elif word == "plain":
            group.is_hidden = group.is_deleted = False
            group.font = -1
        elif word in ASIDE:
            if self.shows():
                if word == "footnote":
                    self.write(f"[{len(self.notes) + sum(open.kind == word for open in self.bodies) + 1}]")
                self.bodies.append(Body(word, len(self.groups)))
            else:
                self.skip()
        elif word == "field":
            self.codes.append((len(self.groups), []))
        elif word == "fldrslt":
            if self.codes and is_generated("".join(self.codes[-1][1])):
                self.skip()
        elif word in ("fldinst", "listtext", "pntext", "fonttbl", "stylesheet", "info", "title", "author", "creatim"):
            group.place = "listtext" if word == "pntext" else word
        elif word in PAGES:
            self.ansi = PAGES[word]
        elif word == "ansicpg" and number:
            self.ansi = known_page(number, self.ansi)
        elif group.place == "creatim" and word in ("yr", "mo", "dy"):
            self.created.append(number or 0)
        elif word in ("f", "fcharset", "s"):
            self.choose(word, number or 0)
        elif group.place == "text":
            self.format(word, number, body)

    def choose(self, word: str, number: int) -> None:
        """Take the number of a font, of the character set of one, or of a style."""
        group = self.groups[-1]
        if word == "f":
            group.font = number
        elif word == "fcharset":
            if number in (SYMBOL_SET, MAC_SET):
                self.fonts[group.font] = PICTURES if number == SYMBOL_SET else "mac-roman"
            elif number in CHARSETS:
                self.fonts[group.font] = known_page(CHARSETS[number], self.ansi)
        elif group.place == "stylesheet":
            self.style = number
        elif group.place == "text":
            self.bodies[-1].style = number

    def format(self, word: str, number: int | None, body: Body) -> None:
        """Take a control word about paragraphs."""
        if word == "pard":
            body.style = body.level = -1
            body.in_table, body.item_depth = False, 0
        elif word == "intbl":
            body.in_table = True
        elif word == "ilvl":
            body.item_depth = min(max(number or 0, 0), 8)
        elif word == "outlinelevel":
            body.level = number if number is not None else -1
        elif word in ("cell", "nestcell"):
            body.cell += self.end_paragraph()
            if word == "cell":
                body.cells.append(body.cell)
                body.cell = []
        elif word == "row":
            body.cell += self.end_paragraph()
            self.end_row([])
        elif word in ("par", "sect", "page", "column"):
            if word == "par" and not self.shows():
                return
            found = self.end_paragraph()
            if body.in_table:
                body.cell += found
            else:
                self.end_row(found)

    def end_row(self, following: list[Block]) -> None:
        """Take the row of a table that ends here, if there is one, and the blocks behind it."""
        body = self.bodies[-1]
        cells = [*body.cells, body.cell] if body.cell else body.cells
        body.blocks += [*(row(cells) if cells else []), *following]
        body.cells, body.cell = [], []

    def end_paragraph(self) -> list[Block]:
        """The blocks of the paragraph that ends here, with those of its text boxes."""
        body = self.bodies[-1]
        text, mark = (as_characters("".join(texts)) for texts in (body.text, body.mark))
        body.text, body.mark = [], []
        boxes, body.boxes = body.boxes, []
        name = self.styles.get(body.style, "").strip(" ;").lower()
        found = HEADING.match(name)
        level = 1 if name == "title" else int(found[1]) if found else body.level + 1
        mark = " ".join(mark.split())
        if mark and not any(map(str.isalnum, mark)):
            mark = "-"
        if 0 < level < 10:
            return [*heading(text if mark in ("", "-") else f"{mark} {text}", level), *boxes] if text.strip() else boxes
        return [*(item(text, mark, body.item_depth) if mark else paragraph(text)), *boxes]

    def skip(self) -> None:
        """Go to the end of the group that is open."""
        depth = 1
        while depth and (found := BRACE.search(self.raw, self.at)):
            depth += {b"{": 1, b"}": -1}.get(found[0], 0)
            self.at = found.end() + int(found[1] or 0) if depth else found.start()
        if depth:
            self.at = len(self.raw)

    def shows(self) -> bool:
        """Whether text that stands here is neither hidden nor deleted."""
        return not self.groups[-1].is_hidden and not self.groups[-1].is_deleted

    def write_bytes(self, raw: bytes) -> None:
        """Add text in the encoding of the font."""
        page = self.fonts.get(self.groups[-1].font, self.ansi)
        if page == PICTURES and self.groups[-1].place != "fonttbl":
            self.write_symbols("".join(chr(SYMBOL_CODES + code) if code > 32 else chr(code) for code in raw))
            return
        page = self.ansi if page == PICTURES else page
        if page != self.page:
            self.page, self.decoder = page, codecs.getincrementaldecoder(page)("replace")
        self.write(self.decoder.decode(raw))

    def write_symbols(self, text: str) -> None:
        """Add text in which private codes are what the font draws for them."""
        self.write(from_symbol_font(self.names.get(self.groups[-1].font, "").strip(" ;"), text))

    def write(self, text: str) -> None:
        """Add text to what it is part of."""
        place = self.groups[-1].place
        if place == "text" and self.shows():
            self.bodies[-1].text.append(text)
        elif place == "listtext":
            self.bodies[-1].mark.append(text)
        elif place == "fldinst" and self.codes:
            self.codes[-1][1].append(text)
        elif place == "fonttbl":
            self.names[self.groups[-1].font] = self.names.get(self.groups[-1].font, "") + text
        elif place == "stylesheet":
            self.styles[self.style] = self.styles.get(self.style, "") + text
        elif place in ("title", "author"):
            self.about[place] = self.about.get(place, "") + text


def known_page(number: int, usual: str) -> str:
    """Python's name of a code page; the usual one where it knows none."""
    try:
        return codecs.lookup({10000: "mac-roman", 1361: "johab", 65001: "utf-8"}.get(number, f"cp{number}")).name
    except LookupError:
        return usual


def as_characters(text: str) -> str:
    """A text in which characters beyond the first 65,536 are halves, as whole ones."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not text.isascii() else text
