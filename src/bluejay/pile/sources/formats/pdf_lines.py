"""From the lines of a PDF's pages to running text: without running titles, words and paragraphs joined."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

HYPHENATED = "\ufffe"
"""PDFium's mark of a word that is hyphenated at the end of a line."""
SOFT_HYPHEN = re.compile(rf"[{HYPHENATED}\xad]\n?")
HYPHEN = re.compile(r"(?<=[^\W\d_]-)\n(?=[^\W\d_])")
"""A line end behind the hyphen of a compound."""
TEX_FONT = {"\x0b": "ff", "\x0c": "fi", "\x0e": "ffi", "\x0f": "ffl"}
TEX_FONT |= {"\x10": "“", "\x11": "”", "\x15": "–", "\x16": "—"}
TEX_FONT |= {"\x1b": "ff", "\x1c": "fi", "\x1d": "fl", "\x1e": "ffi", "\x1f": "ffl"}
"""Character codes of TeX's fonts (OT1 and T1) -> letters. They appear in texts of files that do not map them."""
TEX_LETTER = re.compile(r"(?<=[^\W\d_])[\x0b-\x1f]|[\x0b-\x1f](?=\w)|(?<=\d)[\x15\x16]")
"""A control character that is a letter or a dash of TeX's fonts, as the characters around it show."""
LIGATURES = {0xFB00 + number: letters for number, letters in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}
BRACKETS = "‾⏐⎯®©™⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪⎮⎞⎟⎠⎤⎥⎦⎫⎬⎭"
SMALL = (*b"!$&?0123456789abcdefghijklmnopqrstuvwxyz\xa1\xa2\xbf", *range(0xE0, 0xF7), *range(0xF8, 0x100))
PRIVATE = {0xF700 + code: chr(code) for code in SMALL}
PRIVATE |= {0xF8E5 + number: mark for number, mark in enumerate(BRACKETS)}
PRIVATE |= {0xF6E9 + number: letter for number, letter in enumerate("abdeilmorst")}
PRIVATE |= {0xF6BE: "ȷ", 0xF6DC: "1", 0xF6DE: "—", 0xF6F9: "ł", 0xF6FA: "œ", 0xF6FD: "š", 0xF6FF: "ž", 0xF0B7: "•"}
"""Private codes -> characters: Adobe's for digits of old style, letters in small capitals and parts of large brackets
(https://github.com/adobe-type-tools/agl-aglfn), and the bullet of the font Symbol, by whatever font it is drawn."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
WITHIN_SENTENCE = re.compile(r"(?<=[\w,;)\]”’\"'])\n(?=[^\W\d_A-Z])|(?<=[,;])\n(?=[\w(])")
"""A line end within a sentence, as far as the letters around it show."""
IDEOGRAPHS = "\u3001-\u3003\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff60\U00020000-\U0003ffff"
"""Letters and marks of Chinese and Japanese, between which there are no spaces."""
FIRST_WORD = re.compile(rf"\s*(?:[{IDEOGRAPHS}]|[^\s{IDEOGRAPHS}]+)")
BETWEEN_IDEOGRAPHS = re.compile(f"(?<=[{IDEOGRAPHS}])\n(?=[{IDEOGRAPHS}])")
TENS, ONES = " x xx xxx xl l lx lxx lxxx xc", " i ii iii iv v vi vii viii ix"
ROMAN = {
    ten + one: 10 * tens + ones for tens, ten in enumerate(TENS.split(" ")) for ones, one in enumerate(ONES.split(" "))
}
"""The numbers that pages before the first chapter have -> their values."""
PAGE_NUMBER = re.compile(r"[0-9]{1,4}")
MIN_PAGES = 4
"""The smallest number of pages that tells a running title from text."""
PARAGRAPH = "\u2029"
"""A line end that stays, until all are found."""
CONTINUES, BEGINS = re.compile(rf"(?![{IDEOGRAPHS}])[^\W\d_]$"), re.compile(r"[\w(\[\"'“„‘‚«‹]")
"""The end of a line that is not the end of a sentence, and the start of one that may go on."""
AFTER_WORD = re.compile(r"[.,:;!?)\]]")
"""Marks that stand behind a word without a space."""
NEAR_LINES = 2
"""Lines before and behind a line end that show how far lines go."""
FLUSH, MIN_FLUSH, FLUSH_SHARE = 1.0, 4, 1 / 6
"""How exactly the lines of justified text end at one place, in points, and how many of a page must."""
EARLY = 0.12
"""The part of a line that is free where only a paragraph ends: TeX may break a line before the last word that fits."""
SPACE = 0.2
"""The narrowest space, as a part of the height of the letters around it."""


@dataclass(frozen=True)
class Line:
    """A line of a page, and where it is, in points from the left and the bottom of the page."""

    text: str
    left: float = 0.0
    right: float = 0.0
    """The end of the line; not behind `left` where nothing is known of its place."""
    bottom: float = 0.0
    top: float = 0.0
    """The top of its first character; `bottom` is that of the same."""
    size: float = 0.0
    """The size of its font."""


def running_text(pages: list[list[Line]]) -> str:
    """The text of pages, without running titles and page numbers."""
    return join_lines("\n".join(joined(page) for page in without_running_titles(pages)))


def joined(lines: list[Line]) -> str:
    """The text of a page, its lines joined or parted where their places show which; other line ends are LF."""
    ends = Counter(round(line.right / FLUSH) for line in lines if line.right > line.left)
    least = max(MIN_FLUSH, FLUSH_SHARE * len(lines))
    flush = {end for end in ends if sum(ends[end + beside] for beside in (-1, 0, 1)) >= least}
    parts = [lines[0].text] if lines else []
    for number, (before, after) in enumerate(pairwise(lines)):
        near = lines[max(0, number - NEAR_LINES) : number + 2 + NEAR_LINES]
        parts += [between(before, after, near, flush), after.text]
    return "".join(parts)


def between(before: Line, after: Line, near: list[Line], flush: set[int]) -> str:
    """What stands between a line and the next one, by their places: nothing or a space within a line, or within a
    paragraph; PARAGRAPH where the next word would have had room; LF where the places do not tell."""
    if before.right <= before.left or after.right <= after.left:
        return "\n"
    height = max(before.top - before.bottom, after.top - after.bottom)
    gap = after.left - before.right
    if -height / 2 < gap < height and before.bottom < after.top and after.bottom < before.top:
        return " " if gap > SPACE * height and not AFTER_WORD.match(after.text) else ""
    if not (after.top < before.top and after.left < before.right):
        return "\n"
    margin = max(line.right for line in near if line.left < before.right and before.left < line.right)
    room = margin - before.right
    if room > max(width_of_word(after), EARLY * (margin - before.left)):
        return PARAGRAPH
    goes_on = CONTINUES.search(before.text) and BEGINS.match(after.text) and before.size == after.size
    is_full = room <= FLUSH and round(before.right / FLUSH) in flush
    return " " if goes_on and is_full and after.left <= before.left + FLUSH else "\n"


def width_of_word(line: Line) -> float:
    """About the width of the first word of a line, or of the first character in a script without spaces."""
    drawn = len(line.text) / (1 + line.text.count(HYPHENATED))  # PDFium goes on in one line behind a split word
    word = FIRST_WORD.match(line.text)
    return (line.right - line.left) * len(word[0] if word else line.text) / drawn


def without_running_titles(pages: list[list[Line]]) -> list[list[Line]]:
    """Pages without first and last lines that are a page number, one at each end, or are equal, except digits, on a
    third of the pages: left and right pages often have different ones, and the first has none; nor those that begin or
    end with the number of their page, as the title of a chapter may do."""
    edges = Counter(line for page in pages for line in {outermost(page), outermost(page[::-1])})
    first = first_numbers(pages)

    def n_running(lines: list[Line], at: int) -> int:
        alone = 0
        for count, line in enumerate(lines):
            text = shape(line)
            alone += text == "0"
            has_number = text != "0" and {(kind, number - at) for kind, number in numbers([line])} & first
            if alone > 1 or not (has_number or is_running(text, edges, len(pages))):
                return count
        return len(lines)

    kept = [page[n_running(page, at) :] for at, page in enumerate(pages)]
    return [page[: len(page) - n_running(page[::-1], at)] for at, page in enumerate(kept)]


def shape(line: Line) -> str:
    """A line with 0 in place of each number."""
    return re.sub(r"\d+", "0", line.text.strip())


def outermost(lines: list[Line]) -> str:
    """The shape of the first line that is neither empty nor a number; empty if there is none."""
    return next((text for text in map(shape, lines) if text not in ("", "0")), "")


def first_numbers(pages: list[list[Line]]) -> set[tuple[str, int]]:
    """The kind of numbers of pages and the one that the first page would have: of each kind, what most pages agree on,
    if a third of them do, or a few for Roman numbers."""
    found: dict[str, Counter[int]] = {}
    for at, page in enumerate(pages):
        for kind, number in numbers(page):
            found.setdefault(kind, Counter())[number - at] += 1
    least = {"arabic": max(MIN_PAGES, len(pages) / 3), "roman": MIN_PAGES}
    best = {kind: counts.most_common(1)[0] for kind, counts in found.items()}
    return {(kind, first) for kind, (first, count) in best.items() if count >= least[kind]}


def numbers(lines: list[Line]) -> set[tuple[str, int]]:
    """The numbers, and their kinds, with which the first or the last of the lines that are not empty begins or ends."""
    written = [line.text.split() for line in lines if line.text.strip()]
    found = {word for words in (*written[:1], *written[-1:]) for word in (words[0], words[-1])}
    arabic = {("arabic", int(word)) for word in found if PAGE_NUMBER.fullmatch(word)}
    return arabic | {("roman", ROMAN[word]) for word in found if word in ROMAN}


def is_running(line: str, edges: Counter[str], pages: int) -> bool:
    """Whether a line at the edge of a page is a page number or a running title."""
    return not line or line == "0" or (pages >= MIN_PAGES and edges[line] >= max(2, pages / 3))


def join_lines(text: str) -> str:
    """The text with words and paragraphs joined that were split between lines, as far as the text shows."""
    text = CONTROL.sub(
        "", TEX_LETTER.sub(lambda found: TEX_FONT.get(found[0], ""), HYPHEN.sub("", SOFT_HYPHEN.sub("", text)))
    )
    text = WITHIN_SENTENCE.sub(" ", BETWEEN_IDEOGRAPHS.sub("", text.translate(LIGATURES | PRIVATE)))
    return text.replace(PARAGRAPH, "\n").strip()
