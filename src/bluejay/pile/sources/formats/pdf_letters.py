"""The letters that a PDF shows where its text has others: codes of fonts, accents by themselves, ligatures."""

import math
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ctypes import c_int, create_string_buffer
from functools import cached_property
from typing import Any

from bluejay.pile.sources.formats.office.symbols import from_symbol_font

SYMBOL_CODE = re.compile("[\uf020-\uf0ff]")
"""A character of a font of symbols, by the code that it has there."""
CODE = re.compile(rf"{SYMBOL_CODE.pattern}|[\x01-\x08\x0b\x0c\x0e-\x1f]")
"""Such a code, or one of a font for which PDFium knows no character."""
ACCENTS: dict[str, str] = dict(
    zip("`´¨ˆ˜¯˘˙˚¸ˇ˝", "\u0300\u0301\u0308\u0302\u0303\u0304\u0306\u0307\u030a\u0327\u030c\u030b", strict=True)
)
"""An accent by itself, which TeX's oldest fonts draw over a letter -> the one that combines with a letter."""
CEDILLA, QUOTE = "¸`"
"""The accent that is drawn under a letter, and the one that is a quotation mark, too, as in `a'."""
ACCENT = re.compile(f"[{''.join(ACCENTS)}]")
OTHERS = re.compile(f"{CODE.pattern}|{ACCENT.pattern}")
"""What a page may show as something else."""
UNDER_ACCENT = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u04ff]")
DOTLESS = {"ı": "i", "ȷ": "j"}
LEANING, SPACE = 0.35, 0.2
"""How far the middle of an accent may be beside its letter, as a part of the letter's width, as italics lean; and the
narrowest space, as a part of the height of the letters."""
Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points."""
MAX_FONT_NAME, CODES, MAX_STRAYS = 128, 256, 200
NUMBER, NUMERAL = re.compile(rb"\b(\d{1,10})\s+\d{1,5}\s+obj\b"), re.compile(rb"\d{1,10}")
PACKED = re.compile(rb"/Type\s*/ObjStm\b")
FIRST = re.compile(rb"/First\s+(\d{1,10})\b")
MAX_PACKED_BYTES = 1 << 26
"""Bytes of objects that are packed together; a file may state that there are more than fit into memory."""
SUBSET = re.compile(r"\A[A-Z]{6}\+")
"""What stands before the name of a font of which a file has a part."""
BASE_FONT = re.compile(rb"/BaseFont\s*/(?:[A-Z]{6}\+)?([^\s/<>\[\]()]+)")
ENCODING = re.compile(rb"/Encoding\s*(\d{1,10})\s+\d+\s+R")
DIFFERENCES = re.compile(rb"/Differences\s*\[([^\]]*)\]")
GLYPH = re.compile(rb"(\d{1,10})|/([^\s/\[\]]+)")
LIGATURE = re.compile(rb"[A-Za-z](?:_[A-Za-z])+")
"""The name of a glyph that is several letters (https://github.com/adobe-type-tools/agl-specification)."""


class Letters:
    """What the text of a file's pages shows."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @cached_property
    def ligatures(self) -> dict[tuple[str, str], str]:
        """The ligatures of the file's fonts, which are looked for when a page has a code that is unknown."""
        return ligatures(self.raw)

    def shown(self, text: str, page: Any) -> Sequence[str]:
        """What each character of the text of a page shows: itself, another one, several or nothing."""
        if not OTHERS.search(text):
            return text
        shown = list(text)
        for found in CODE.finditer(text):
            shown[found.start()] = self.by_font(found[0], page, found.start())
        accents = [found.start() for found in ACCENT.finditer(text)]
        strays = []
        for at in accents:
            beside = [place for place in (at + 1, at - 1) if 0 <= place < len(text) and UNDER_ACCENT.match(text[place])]
            if not combine(shown, text, at, page, {place: box(page, place) for place in beside}):
                strays.append(at)
        letters = {}
        if strays:
            letters = {found.start(): box(page, found.start()) for found in UNDER_ACCENT.finditer(text)}
        for at in strays[:MAX_STRAYS]:  # PDFium puts an accent that is high, as that of a capital, somewhere else
            combine(shown, text, at, page, letters)
        return shown

    def by_font(self, code: str, page: Any, place: int) -> str:
        """What the font of a character shows for its code; the code itself where that is not known."""
        font = font_of(page, place)
        return from_symbol_font(font, code) if SYMBOL_CODE.match(code) else self.ligatures.get((font, code), code)


def combine(shown: list[str], text: str, accent: int, page: Any, letters: dict[int, Box]) -> bool:
    """Put an accent of a text on the letter over or under which it is drawn, of those at some places, if any is."""
    mark, drawn = text[accent], box(page, accent)
    distances = {place: distance(mark, drawn, letter) for place, letter in letters.items()}
    place = min(distances, key=distances.__getitem__, default=accent)
    if distances.get(place, math.inf) == math.inf:
        return False
    combined = unicodedata.normalize("NFC", DOTLESS.get(shown[place], shown[place]) + ACCENTS[mark])
    if len(combined) > 1 and abs(place - accent) > 1:
        return False
    shown[place], shown[accent] = combined, ""
    close_gap(shown, text, accent, page)
    return True


def distance(mark: str, accent: Box, letter: Box) -> float:
    """How far the middle of an accent is beside that of a letter which it is drawn over, or under as a cedilla is;
    infinite where it is drawn elsewhere."""
    left, bottom, right, top = letter
    width, height = right - left, top - bottom
    beside = abs(accent[0] + accent[2] - left - right) / 2
    above = (accent[1] + accent[3] - bottom - top) / 2 * (-1 if mark == CEDILLA else 1)
    is_near = beside <= width / 2 + (0 if mark == QUOTE else LEANING * width)
    return beside if is_near and 0 < above < height * 3 / 2 else math.inf


def close_gap(shown: list[str], text: str, accent: int, page: Any) -> None:
    """Take away the spaces around an accent that is now a part of its letter, but for one between words."""
    begin, end = accent, accent + 1
    while begin and (text[begin - 1] == " " or not shown[begin - 1]):
        begin -= 1
    while end < len(text) and (text[end] == " " or not shown[end]):
        end += 1
    if end - begin > 1 and not text[begin - 1 : begin].isspace() and not text[end : end + 1].isspace():
        shown[begin:end] = [""] * (end - begin)
        (_, _, right, _), (left, bottom, _, top) = box(page, begin - 1), box(page, end)
        if left - right > SPACE * (top - bottom):
            shown[accent] = " "


def character(page: Any, place: int) -> int:
    """The number of the character at a place in the text of a page, by which PDFium knows it; -1 if it is none."""
    from pypdfium2.raw import FPDFText_GetCharIndexFromTextIndex

    return FPDFText_GetCharIndexFromTextIndex(page, place)


def box(page: Any, place: int) -> Box:
    """Where the character at a place in the text of a page is drawn; nowhere if it is none."""
    number = character(page, place)
    return page.get_charbox(number) if number >= 0 else (0.0, 0.0, 0.0, 0.0)


def font_of(page: Any, place: int) -> str:
    """The name of the font of the character at a place in the text of a page."""
    from pypdfium2.raw import FPDFText_GetFontInfo

    name = create_string_buffer(MAX_FONT_NAME)
    FPDFText_GetFontInfo(page, character(page, place), name, MAX_FONT_NAME, c_int())
    return SUBSET.sub("", name.value.decode("utf-8", "replace"))


def ligatures(raw: bytes) -> dict[tuple[str, str], str]:
    """The name of a font and a code -> the letters of its glyph, for the ligatures that a file's fonts name; without
    those whose code is another ligature in a second font of that name."""
    found: dict[tuple[str, str], set[str]] = {}
    objects = dict(objects_of(raw))
    for content in objects.values():
        name, encoding = BASE_FONT.search(content), ENCODING.search(content)
        if name and (differences := DIFFERENCES.search(objects.get(encoding[1], b"") if encoding else content)):
            code = 0
            for number, glyph in GLYPH.findall(differences[1]):
                if LIGATURE.fullmatch(glyph) and code < CODES:
                    key = (name[1].decode("utf-8", "replace"), chr(code))
                    found.setdefault(key, set()).add(glyph.decode().replace("_", ""))
                code = int(number) if number else code + 1
    return {key: letters.pop() for key, letters in found.items() if len(letters) == 1}


def objects_of(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The number of each object of a file and its content, but for streams; also of those that are packed into one."""
    begin = 0
    while (end := raw.find(b"endobj", begin)) >= 0:
        described, stream, content = raw[begin:end].partition(b"stream")
        begin = end + len(b"endobj")
        if number := NUMBER.search(described):
            yield number[1], described
        if stream and PACKED.search(described) and (first := FIRST.search(described)):
            with suppress(zlib.error):  # it is encrypted, or packed in another way
                packed = zlib.decompressobj().decompress(content.lstrip(b"\r\n"), MAX_PACKED_BYTES)
                places = list(map(int, NUMERAL.findall(packed[: int(first[1])])))
                starts = [int(first[1]) + place for place in places[1::2]]
                for number, start, end in zip(places[::2], starts, [*starts[1:], len(packed)], strict=False):
                    yield b"%d" % number, packed[start:end]
