"""Abstracts in PubMed's MEDLINE XML (https://www.nlm.nih.gov/bsd/licensee/elements_descriptions.html)."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.io.elements import element, elements, line_of
from bluejay.pile.sources.io.records import RecordFiles


@dataclass(frozen=True, kw_only=True)
class PubMed(RecordFiles):
    """Each article with an abstract is one document: title, empty line, abstract."""

    kind: Literal["pubmed"] = "pubmed"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The source of each article."""
        for _, source in elements(stream, "PubmedArticle", "PubmedBookArticle"):
            yield source

    def document(self, name: str, record: Any) -> Document:
        """Title and abstract; the parts of a structured abstract keep their labels."""
        article = element(record)
        abstract = article.find(".//Abstract")
        if abstract is None:
            raise ValueError("the article has no abstract")
        title = line_of(article.find(".//ArticleTitle"))
        paragraphs = []
        for part in abstract.findall("AbstractText"):
            label = part.get("Label", "")
            paragraphs.append(f"{label}: {line_of(part)}" if label else line_of(part))
        identifier = line_of(article.find(".//PMID"))
        meta = {
            "title": title,
            "date": published(article),
            "journal": line_of(article.find(".//Journal/Title")),
            "language": line_of(article.find(".//Language")),
            "copyright": line_of(abstract.find("CopyrightInformation")),
        }
        url = f"https://pubmed.ncbi.nlm.nih.gov/{identifier}/" if identifier else name
        text = "\n\n".join(filter(None, [title, "\n".join(paragraphs)])) if any(paragraphs) else ""
        return Document(text, name, self.licence, url, stated(meta))


def published(article: Any) -> str:
    """The date of publication, as precise as the article states it: 2001-Mar-15."""
    date = article.find(".//PubDate")
    if date is None:
        return ""
    return "-".join(filter(None, (line_of(date.find(part)) for part in ("Year", "Month", "Day", "MedlineDate"))))
