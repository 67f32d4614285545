"""The background sections of patents, from the full texts of the USPTO.

Grants since 2005 (`us-patent-grant`) and their applications mark sections by headings; those of 2002 to 2004 (`PATDOC`)
have headings within a brief summary. The file of a week holds many XML documents, one after another.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.io.elements import element, elements, line_of, local_name
from bluejay.pile.sources.io.records import RecordFiles

ROOTS = ("us-patent-grant", "us-patent-application", "PATDOC")
HEADINGS, PARAGRAPHS = {"heading", "H"}, {"p", "PARA"}
BACKGROUND = re.compile(r"\b(?:background|prior art|related art|description of the (?:prior|related|background) art)\b")
OTHER_SECTION = re.compile(r"\b(?:summary|brief description|detailed description|disclosure|drawings?|embodiments?)\b")
CROSS_REFERENCE = re.compile(r"\bcross[- ]?references?\b")
FORMULAS = frozenset({"maths", "tables", "CWU", "chemistry"})


@dataclass(frozen=True, kw_only=True)
class Patents(RecordFiles):
    """The background section of each patent is one document; patents without that heading are skipped."""

    kind: Literal["patents"] = "patents"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The source of each patent."""
        for _, source in elements(stream, *ROOTS):
            yield source

    def document(self, name: str, record: Any) -> Document:
        """The paragraphs under the heading of the background and its subheadings."""
        patent = element(record)
        text = "\n\n".join(background(patent))
        if not text:
            raise ValueError("the patent has no section about its background")
        title = line_of(patent.find(".//invention-title")) or line_of(patent.find(".//B540"))
        number, date = publication(patent)
        url = f"https://patents.google.com/patent/{number}" if number else name
        meta = {"title": title, "date": date, "number": number}
        return Document(text, name, self.licence, url, stated(meta))


def background(patent: Any) -> Iterator[str]:
    """The paragraphs of the first section about the background."""
    inside = found = False
    for node in patent.iter():
        name = local_name(node)
        if name in HEADINGS:
            heading = line_of(node).lower()
            begins = bool(BACKGROUND.search(heading)) and not CROSS_REFERENCE.search(heading)
            ends = bool(OTHER_SECTION.search(heading)) and not begins
            inside = (inside or begins) and not ends
            if found and not inside:
                return
        elif inside and name in PARAGRAPHS:
            for apart in node.iter("br", "li", "dt", "dd"):
                apart.text = f" {apart.text or ''}"
            paragraph = line_of(node, FORMULAS)
            found = found or bool(paragraph)
            if paragraph:
                yield paragraph


def publication(patent: Any) -> tuple[str, str]:
    """Country, number and kind of a patent in one word, as in citations; and its date."""
    about = patent.find(".//publication-reference/document-id")
    if about is not None:
        parts = [line_of(about.find(part)) for part in ("country", "doc-number", "kind")]
        return parts[0] + re.sub(r"^([A-Z]*)0+", r"\1", parts[1]) + parts[2], line_of(about.find("date"))
    parts = [line_of(patent.find(f".//{part}")) for part in ("B190", "B110", "B130")]
    return parts[0] + re.sub(r"^([A-Z]*)0+", r"\1", parts[1]) + parts[2], line_of(patent.find(".//B140"))
