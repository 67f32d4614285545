"""Texts in several languages: EuroParl's own files (https://www.statmt.org/europarl/), OPUS XML and TMX 1.4."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, read_until_damaged, stated
from bluejay.pile.sources.formats.opus import sentence
from bluejay.pile.sources.io.decode import decode_text
from bluejay.pile.sources.io.elements import element, elements, line_of, local_name
from bluejay.pile.sources.io.open import BROKEN, decompressed
from bluejay.pile.sources.io.records import RecordFiles

LANGUAGE_ATTRIBUTE = "{http://www.w3.org/XML/1998/namespace}lang"
CODES = frozenset({"bpt", "ept", "it", "ph", "ut"})
"""Elements of TMX that hold the markup of the program that a segment is from."""
UNITS_PER_DOCUMENT = 500
"""A translation memory is not divided into documents; this is about the sentences of a sitting of EuroParl."""
DETECTION_BYTES = 4096
"""The format of a file is detected from its first bytes."""
TAG = re.compile(r"^<(/?\w+)((?:[^<>\"]|\"[^\"]*\")*)/?>$")
NAME = re.compile(r'NAME="([^"]*)"', re.IGNORECASE)
SITTING = re.compile(r"(?:^|/)([a-z]{2})/(?:[^/]+/)*ep-(\d\d)-(\d\d)-(\d\d)[^/]*$")
"""The path of a sitting in EuroParl's release: `txt/en/ep-00-01-17.txt`."""
FIRST_YEAR_OF_1900S = 70
"""Two-digit years from this one on are in the 1900s."""


@dataclass(frozen=True, kw_only=True)
class Parallel(RecordFiles):
    """Each language of a text is one document: paragraphs and the names of their speakers, as in The Pile."""

    kind: Literal["parallel"] = "parallel"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """Language and text, or the XML source of a text."""
        content: Any = decompressed(stream)
        start = content.peek(DETECTION_BYTES)[:DETECTION_BYTES]
        if b"<tmx" in start.replace(b"\0", b""):
            yield from translation_units(content)
        elif start.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"<?xml"):
            for _, source in elements(content, "document", "text", "corpus", "DOC"):
                yield source if isinstance(source, ValueError) else ("", source)
        else:
            raw, damage = read_until_damaged(content)
            yield "europarl", raw
            if damage:
                raise damage

    def document(self, name: str, record: Any) -> Document:
        """One text in one language."""
        language, content = record
        sitting = SITTING.search(name)
        meta = {"language": sitting[1] if sitting else language}
        if sitting:
            year, month, day = sitting.groups()[1:]
            meta["date"] = f"{'19' if int(year) >= FIRST_YEAR_OF_1900S else '20'}{year}-{month}-{day}"
        if language == "europarl":
            meta["language"] = sitting[1] if sitting else ""
            text = paragraphs(decode_text(content))
        else:
            text = "\n".join(content) if isinstance(content, list) else marked_text(element(content))
        return Document(text, name, self.licence, name, stated(meta))


def translation_units(stream: BufferedIOBase) -> Iterator[Any]:
    """The segments of a TMX file, language by language for each UNITS_PER_DOCUMENT translation units."""
    held: dict[str, list[str]] = {}
    try:
        for count, (_, source) in enumerate(elements(stream, "tu"), 1):
            try:
                if isinstance(source, ValueError):
                    raise source
                unit = element(source)
            except ValueError as error:
                yield error
                continue
            for variant in unit.iter("tuv"):
                language = (variant.get(LANGUAGE_ATTRIBUTE) or variant.get("lang") or "").lower()
                held.setdefault(language, []).append(line_of(variant.find("seg"), CODES))
            if count % UNITS_PER_DOCUMENT == 0:
                yield from held.items()
                held = {}
    except BROKEN:  # the units before the damage are complete
        yield from held.items()
        raise
    yield from held.items()


def marked_text(root: Any) -> str:
    """The text of OPUS XML, with one line per paragraph and per speaker's name."""
    lines: list[str] = []
    paragraph: list[str] = []
    for node in root.iter():
        name = local_name(node).lower()
        if name in ("p", "speaker", "chapter"):
            lines.append(" ".join(paragraph))
            paragraph = []
            lines.append(node.get("NAME", node.get("name", "")) if name == "speaker" else "")
        elif name == "s":
            paragraph.append(sentence(node))
    return "\n".join(line for line in (*lines, " ".join(paragraph)) if line)


def paragraphs(text: str) -> str:
    """The text of one of EuroParl's own files, in which a tag is alone on its line and is not closed."""
    lines = []
    for line in text.splitlines():
        tag = TAG.match(line.strip())
        if not tag:
            lines.append(unescape(line.strip()))
        elif tag[1].upper() == "SPEAKER" and (name := NAME.search(tag[2])):
            lines.append(unescape(name[1]))
    return "\n".join(filter(None, lines))
