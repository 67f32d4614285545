"""Scientific articles in JATS XML (ANSI/NISO Z39.96), the format of PubMed Central."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.formats.mathml import formula
from bluejay.pile.sources.io.elements import element, elements, line_of, local_name, pieces, text_of
from bluejay.pile.sources.io.licences import licence_at
from bluejay.pile.sources.io.records import RecordFiles

EXCLUDED_INLINE = frozenset({"fn", "table-wrap", "fig", "fig-group", "graphic", "media", "label", "object-id"})
"""Elements within a line that are printed elsewhere."""
TEX_BODY = re.compile(r"\\begin\{document\}(.*?)(?:\\end\{document\}|\Z)", re.DOTALL)
"""A formula within a whole document in LaTeX, as Springer has it."""
EXCLUDED = EXCLUDED_INLINE.difference({"fig", "fig-group"}) | {"ref-list", "fn-group", "sec-meta"}
PARAGRAPHS = ("p", "disp-formula", "attrib", "term", "verse-line")
"""Elements that hold text or nothing, so that what is not a block in them is part of a line."""
PARTS = ("body", "back/app-group/app", "back/app", "back/sec", "back/ack", "floats-group", "floats-wrap")
"""Where the text of an article is; authors' manuscripts in PubMed Central have all figures at the end."""
FLOATS = ("fig", "fig-group")
"""Elements that are printed beside the paragraph in which they stand."""
LINES = ("code", "preformat")
"""Elements whose white space is kept."""
BLOCKS = {"p", "list", "def-list", "disp-quote", "disp-formula", "disp-formula-group", "verse-group", "verse-line"}
BLOCKS |= {"attrib", "speech", "statement", "boxed-text", "explanation", "question", "question-wrap", "answer"}
BLOCKS |= {"chem-struct-wrap", "supplementary-material", *FLOATS, *LINES}
"""Elements that stand on lines of their own, within a paragraph as well as outside of one."""


@dataclass(frozen=True, kw_only=True)
class Jats(RecordFiles):
    """Each article is one document: title, abstracts, sections with headings, captions of figures, formulas; no tables,
    notes, references."""

    kind: Literal["jats"] = "jats"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The source of each article."""
        for _, source in elements(stream, "article"):
            yield source

    def document(self, name: str, record: Any) -> Document:
        """The article as Markdown."""
        article = element(record)
        prepare(article)
        about = article.find("front/article-meta")
        about = element("<article-meta/>") if about is None else about
        title = line_of(about.find("title-group/article-title"), EXCLUDED_INLINE)
        subtitle = line_of(about.find("title-group/subtitle"), EXCLUDED_INLINE)
        title = ": ".join(filter(None, (title, subtitle)))
        blocks = [f"# {title}"] if title else []
        for number, abstract in enumerate(about.findall("abstract")):
            blocks += [] if number and abstract.get("abstract-type") else ["## Abstract"]
            blocks += body(abstract, 2)
        for path in PARTS:
            for part in article.findall(path):
                blocks += body(part, 1 if path == "body" else 2)
        if not any(not block.startswith("#") for block in blocks):
            raise ValueError("the article has neither abstract nor body")
        meta = {
            "title": title,
            "date": published(about),
            "journal": line_of(article.find("front/journal-meta//journal-title")),
            "language": article.get("{http://www.w3.org/XML/1998/namespace}lang", ""),
            "type": article.get("article-type", ""),
        }
        return Document(
            "\n\n".join(blocks), name, licence_of(about) or self.licence, address(about) or name, stated(meta)
        )


def body(node: Any, level: int) -> list[str]:
    """The text blocks of an element. Text around the blocks within a paragraph makes blocks, too."""
    blocks: list[str] = []
    floating: list[str] = []
    line: list[str] = []
    is_mixed = local_name(node) in PARAGRAPHS or any(isinstance(piece, str) and piece.strip() for piece in pieces(node))
    for piece in pieces(node):
        name = "" if isinstance(piece, str) else local_name(piece)
        if not name:
            line.append(piece)
        elif is_mixed and name in FLOATS:
            floating += body(piece, level)
        elif is_mixed and name not in BLOCKS:
            line.append("" if name in EXCLUDED_INLINE else text_of(piece, EXCLUDED_INLINE))
        elif name not in EXCLUDED:
            blocks += [one_line(line), *block(piece, name, level)]
            line = []
    return [block for block in (*blocks, one_line(line), *floating) if block.strip("- ")]


def block(node: Any, name: str, level: int) -> list[str]:
    """The text blocks of an element that stands on lines of its own."""
    if name == "title":
        title = line_of(node, EXCLUDED_INLINE)
        return [f"{'#' * level} {title}"] if title and title.lower() != "abstract" else []
    if name == "list":
        items = (list_item(body(item, level)) for item in node.findall("list-item"))
        return ["\n".join(f"- {item}" for item in items if item)]
    if name == "def-item":
        return [": ".join(filter(None, (" ".join(body(part, level)) for part in node if local_name(part))))]
    if name == "verse-group":
        return ["\n".join(body(node, level))]
    if name in LINES:
        return [text_of(node, EXCLUDED_INLINE).strip("\n")]
    return body(node, level + (name == "sec"))


def prepare(article: Any) -> None:
    """Put spaces where lines break within a text, and formulas as TeX where they have it, else in a line."""
    for node in list(article.iter()):
        name = local_name(node)
        if name == "break":
            node.tail = f" {node.tail or ''}"
        elif name == "tex-math":
            found = TEX_BODY.search(node.text or "")
            node.text = found[1].strip() if found else node.text
        elif name == "math":
            parent, tail = node.getparent(), node.tail
            has_tex = parent is not None and parent.find("tex-math") is not None
            text = "" if has_tex else formula(node)
            node.clear()
            node.text, node.tail = text, tail


def list_item(blocks: list[str]) -> str:
    """The blocks of an item of a list, as one line and the lists within it."""
    lists = ("\n  " + block.replace("\n", "\n  ") if block.startswith("- ") else f" {block}" for block in blocks)
    return "".join(lists).strip()


def one_line(texts: list[str]) -> str:
    """Texts as one line."""
    return " ".join("".join(texts).split())


def published(about: Any) -> str:
    """The earliest of the publication dates that the article states."""
    dates = []
    for date in about.findall("pub-date"):
        parts = [line_of(date.find(part)) for part in ("year", "month", "day")]
        dates.append("-".join(part.zfill(2) for part in parts if part))
    return min(filter(None, dates), key=lambda date: f"{date}~", default="")  # of equal years the most precise


def licence_of(about: Any) -> str:
    """The licence whose address is among the permissions, else the sentence that states it."""
    stated = about.find(".//license")  # in articles of before 2006 it stands by itself
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
