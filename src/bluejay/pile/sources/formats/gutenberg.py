"""Books of Project Gutenberg: plain text between a header and a licence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, read_until_damaged
from bluejay.pile.sources.io.decode import decode_text
from bluejay.pile.sources.io.open import decompressed
from bluejay.pile.sources.io.records import RecordFiles

EBOOK = r"(?:THIS|THE) (?:COPYRIGHTED )?PROJECT GUTENBERG E(?:BOOK|TEXT)"
START = re.compile(
    rf"^\*\*\* ?START OF {EBOOK}.*(?:\n.+)*?\*\*\*\s*$"
    r"|^\*+ ?END[ *]*THE SMALL PRINT.*$",
    re.MULTILINE | re.IGNORECASE,
)
END = re.compile(
    rf"^\*\*\* ?END OF {EBOOK}|^End of (?:the |this )?Project Gutenberg|^\*\*\*START\*\*THE SMALL PRINT",
    re.MULTILINE | re.IGNORECASE,
)
HEADER = re.compile(
    r"^\W*(?:This is )?(?:the )?Project Gutenberg(?:['’]s\b|(?: \w+)? E-?(?:book|text)\b)", re.MULTILINE | re.IGNORECASE
)
CREDITS = re.compile(
    r"\A(?:\s*(?:Produced by|E-?text prepared by|This e-?text was|Transcribed from)[^\n]*(?:\n.+)*\n)+", re.I
)
LAST_LINES = re.compile(r"\n[ \t]*\n[ *]*(?:\w+ ){1,4}Proje[ckt]+ Gutenberg\b.*(?:\n.+){0,3}\s*\Z", re.IGNORECASE)
"""What says in another language that a book ends: Fin de Project Gutenberg's Candide, par Voltaire."""
FIELD = r"^{}:[ \t]*(.+(?:\n[ \t]+\S.*)*)"
NUMBER = re.compile(r"E(?:book|text) ?#? ?(\d+)|\[E(?:book|text) #(\d+)\]", re.IGNORECASE)
RELEASED = re.compile(r"^(?:Official Release|Release|Posting) Date:[ \t]*([^\[\n]+)", re.MULTILINE | re.IGNORECASE)
MENTION = re.compile(r"\bProject\s+Gutenberg", re.IGNORECASE)
COPYRIGHTED = re.compile(r"\bcopyrighted Project Gutenberg", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Gutenberg(RecordFiles):
    """Each book is one document, without Project Gutenberg's header, licence and credits; a file may hold several.

    The books are in the public domain in the United States unless their header says otherwise.
    """

    kind: Literal["gutenberg"] = "gutenberg"
    licence: str = "LicenseRef-public-domain-US"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The header and text of each book."""
        raw, damage = read_until_damaged(decompressed(stream))
        declared = re.search(rb"^Character set encoding:\s*(\S+)", raw[:20_000], re.MULTILINE)
        rest = decode_text(raw, declared[1].decode("latin-1") if declared else None).replace("\r\n", "\n")
        if not START.search(rest):
            if MENTION.search(rest):
                raise ValueError("the line that starts a Project Gutenberg book is not there")
            yield "", rest  # header and licence were removed before, as in PG-19
        while start := START.search(rest):
            header, rest = rest[: start.start()], rest[start.end() :]
            begins = "small print" not in start[0].lower() or HEADER.search(header)
            following = START.search(rest)
            end = END.search(rest)
            if end and (not following or end.start() < following.start()):
                text, rest = rest[: end.start()], rest[end.end() :]
            elif following:  # the header of the next book ends this one
                headers = (found.start() for found in HEADER.finditer(rest, 0, following.start()))
                at = max(headers, default=following.start())
                text, rest = rest[:at], rest[at:]
            else:
                text, rest = rest, ""
            if begins and text.strip():  # in some old files the licence is at the end; no book follows it
                yield header + start[0], LAST_LINES.sub("", text)
        if damage:
            raise damage

    def document(self, name: str, record: Any) -> Document:
        """The text of a book, with what its header states."""
        header, text = record
        number = NUMBER.search(header)
        fields = {key: re.search(FIELD.format(key), header, re.MULTILINE) for key in ("Title", "Author", "Language")}
        released = RELEASED.search(header)
        meta = {key.lower(): " ".join(found[1].split()) for key, found in fields.items() if found}
        meta |= {"date": released[1].strip()} if released else {}
        url = f"https://www.gutenberg.org/ebooks/{number[1] or number[2]}" if number else name
        licence = "unknown" if COPYRIGHTED.search(header) else self.licence
        return Document(CREDITS.sub("", text).strip() + "\n", name, licence, url, meta)
