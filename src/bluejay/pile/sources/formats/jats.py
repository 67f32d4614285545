"""Scientific articles in JATS XML (ANSI/NISO Z39.96), the format of PubMed Central."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document
from bluejay.pile.sources.io.elements import element, elements, line_of, local_name
from bluejay.pile.sources.io.licences import licence_at
from bluejay.pile.sources.io.records import RecordFiles

EXCLUDED_INLINE = frozenset(
    {"fn", "table-wrap", "fig", "fig-group", "disp-formula-group", "graphic", "media", "mml:math", "math", "object-id"}
)
"""Elements within a paragraph that are printed elsewhere. Formulas are kept as TeX if they have it."""
EXCLUDED = frozenset({"table-wrap", "ref-list", "fn-group", "object-id", "label", "graphic", "media", "sec-meta"})
PARAGRAPHS = {"p", "disp-quote", "disp-formula", "verse-group", "code", "preformat", "attrib", "speech", "statement"}


@dataclass(frozen=True, kw_only=True)
class Jats(RecordFiles):
    """Each article is one document: title, abstract, sections with headings, captions; no tables, notes, references."""

    kind: Literal["jats"] = "jats"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The source of each article."""
        for _, source in elements(stream, "article"):
            yield source

    def document(self, name: str, record: Any) -> Document:
        """The article as Markdown."""
        article = element(record)
        about = article.find("front/article-meta")
        about = element("<article-meta/>") if about is None else about
        title = line_of(about.find("title-group/article-title"), EXCLUDED_INLINE)
        abstract = about.find("abstract")
        blocks = [f"# {title}"] if title else []
        if abstract is not None:
            blocks += ["## Abstract", *body(abstract, 2)]
        for part in (article.find("body"), *article.findall("back/app-group/app"), *article.findall("back/ack")):
            if part is not None:
                blocks += body(part, 1)
        if not any(not block.startswith("#") for block in blocks):
            raise ValueError("the article has neither abstract nor body")
        meta = {
            "title": title,
            "date": published(about),
            "journal": line_of(article.find("front/journal-meta//journal-title")),
            "language": article.get("{http://www.w3.org/XML/1998/namespace}lang", ""),
            "type": article.get("article-type", ""),
        }
        stated = {key: value for key, value in meta.items() if value}
        return Document("\n\n".join(blocks), name, licence_of(about) or self.licence, address(about) or name, stated)


def body(node: Any, level: int) -> list[str]:
    """The text blocks of a section, a box, a list or an abstract."""
    blocks = []
    for child in node:
        name = local_name(child)
        if name == "title":
            title = line_of(child, EXCLUDED_INLINE)
            blocks += [f"{'#' * level} {title}"] if title and title.lower() != "abstract" else []
        elif name == "list":
            items = (" ".join(body(item, level)) for item in child.findall("list-item"))
            blocks.append("\n".join(f"- {item}" for item in items if item))
        elif name in PARAGRAPHS:
            blocks.append(line_of(child, EXCLUDED_INLINE))
            for floating in child.iter("fig", "list"):
                blocks += body(floating, level) if floating.tag == "fig" else []
        elif name and name not in EXCLUDED:
            blocks += body(child, level + (name == "sec"))
    return [block for block in blocks if block.strip("- ")]


def published(about: Any) -> str:
    """The earliest of the publication dates that the article states."""
    dates = []
    for date in about.findall("pub-date"):
        parts = [line_of(date.find(part)) for part in ("year", "month", "day")]
        dates.append("-".join(part.zfill(2) for part in parts if part))
    return min(filter(None, dates), default="")


def licence_of(about: Any) -> str:
    """The licence whose address is among the permissions, else the sentence that states it."""
    stated = about.find("permissions/license")
    if stated is None:
        return ""
    values = [value for node in stated.iter() if local_name(node) for value in (*node.attrib.values(), node.text or "")]
    return next(filter(None, map(licence_at, values)), "") or line_of(stated)[:200]


def address(about: Any) -> str:
    """The URL of the article, from its DOI, else from its number in PubMed Central; empty without either."""
    numbers = {node.get("pub-id-type"): line_of(node) for node in about.findall("article-id")}
    if "doi" in numbers:
        return f"https://doi.org/{numbers['doi']}"
    number = numbers.get("pmc") or numbers.get("pmcid")
    return f"https://www.ncbi.nlm.nih.gov/pmc/articles/PMC{number.removeprefix('PMC')}/" if number else ""
