"""The text of an office document in blocks, and the numbers of its lists and notes."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

INDENT = "  "
LAYOUT_CHARACTERS = 400
"""A cell of several paragraphs, or one that is a row, with more characters holds text that a table only lays out."""
ROMAN = (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc")
ROMAN += (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")
MAX_ROMAN, MAX_LETTERS = 4999, 780
"""The largest numbers that are written so; 780 is zz..., 30 times."""


@dataclass(frozen=True)
class Block:
    """A paragraph, a heading, an item of a list, a row of a table or a line of code."""

    text: str
    kind: str = ""
    """Blocks of one kind that has a name follow each other on the next line, others behind an empty one."""


@dataclass
class Content:
    """What was read of a document."""

    blocks: list[Block]
    faults: list[ValueError] = field(default_factory=list)
    """What is wrong with parts of the document that are therefore missing."""
    meta: dict[str, Any] = field(default_factory=dict)
    rights: str = ""
    """What the document says about its licence."""


def joined(blocks: Iterable[Block]) -> str:
    """The text of blocks."""
    parts: list[str] = []
    kind = ""
    for block in blocks:
        parts += ["\n" if kind and block.kind == kind else "\n\n", block.text] if parts else [block.text]
        kind = block.kind
    return "".join(parts)


def paragraph(text: str) -> list[Block]:
    """A paragraph, unless there is nothing in it."""
    text = cleaned(text).strip()
    return [Block(text)] if text else []


def line_of_code(text: str) -> list[Block]:
    """A paragraph that is a line of code, with its indentation."""
    return [Block(cleaned(text), "code")]


def heading(text: str, level: int) -> list[Block]:
    """A heading of a level from 1 on, unless there is nothing in it."""
    line = " ".join(cleaned(text).split())
    return [Block(f"{'#' * min(level, 6)} {line}")] if line else []


def item(text: str, mark: str, depth: int) -> list[Block]:
    """An item of a list behind its mark, at a depth from 0 on, unless there is nothing in it."""
    text = cleaned(text).strip()
    before = INDENT * depth
    following = before + " " * (len(mark) + 1)
    return [Block(f"{before}{mark} {text}".replace("\n", f"\n{following}"), "item")] if text else []


def cleaned(text: str) -> str:
    """A text without the marks where words may be hyphenated, and without spaces at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.replace("\xad", "").split("\n"))


def row(cells: Sequence[list[Block]]) -> list[Block]:
    """A row of a table as a line with tabs between its cells; the blocks of cells that hold longer text."""
    texts = [joined(cell) for cell in cells]
    most = 0 if len(cells) == 1 else 1
    if any(len(cell) > most and len(text) > LAYOUT_CHARACTERS for cell, text in zip(cells, texts, strict=True)):
        return list(itertools.chain.from_iterable(cells))
    line = "\t".join(" ".join(text.split()) for text in texts).rstrip()
    return [Block(line, "row")] if line else []


def note(number: int, blocks: list[Block]) -> list[Block]:
    """A footnote or endnote behind its number."""
    text = joined(blocks)
    return [Block(f"[{number}] {text}")] if text else []


def in_form(number: int, form: str) -> str:
    """A number as `form` writes it: 1, 01, a, A, i or I.

    >>> [in_form(28, form) for form in ("1", "a", "I")]
    ['28', 'bb', 'XXVIII']
    """
    if form.lower() == "a" and 0 < number <= MAX_LETTERS:
        text = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
    elif form.lower() == "i" and 0 < number <= MAX_ROMAN:
        text, left = "", number
        for value, letters in ROMAN:
            text += letters * (left // value)
            left %= value
    else:
        return f"{number:02}" if form == "01" else str(number)
    return text.upper() if form.isupper() else text
