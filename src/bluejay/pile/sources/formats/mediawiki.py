"""Wikipedia and other wikis: the XML dumps of MediaWiki (https://www.mediawiki.org/xml/export-0.11.xsd)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from io import BufferedIOBase
from typing import Any, Literal
from urllib.parse import quote

from bluejay.pile.documents import Document
from bluejay.pile.sources.io.elements import element, elements, line_of
from bluejay.pile.sources.io.records import RecordFiles

BASE = re.compile(r"<base>\s*([^<\s]*)")
VERBATIM = "math|chem|pre|source|syntaxhighlight|code|nowiki"
"""Tags whose content is text and not markup."""
NOT_TEXT = "ref|gallery|timeline|imagemap|score|mapframe|hiero|templatestyles|references"
"""Extension tags whose content is not part of the prose."""
PROTECTED = re.compile(rf"<({VERBATIM})\b[^<>/]*>.*?</\1\s*>|\x00", re.DOTALL | re.IGNORECASE)
NOT_PROSE = re.compile(
    rf"<!--.*?-->|<(?:{NOT_TEXT})\b[^<>]*/>|<({NOT_TEXT})\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
INNERMOST = re.compile(r"\{\{[^{}]*\}\}|^[ :]*\{\|[^{}]*?\|\}", re.MULTILINE)
"""A template or table that contains no other."""
MEDIA = re.compile(r"^\s*[^\W\d_]+\s*:(?=\S)")
"""The start of a link to a file, a category or another wiki, in any language."""
LANGUAGE_VARIANT = re.compile(r"-\{(?:[^{}|]*\|)?([^{}]*)\}-")
EMPTY_BRACKETS = re.compile(r" ?\((?:[\s,;:]|&nbsp;)*\)")
"""The remains of a template about pronunciation."""
EMPTY_LINE = re.compile(r"^(?:[-*#:; \t]+|__[A-Z]+__[ \t]*)(?:\n|\Z)", re.MULTILINE)
HEADING = "\x01"
"""Marks headings until those of empty sections have been removed."""
EMPTY_SECTION = re.compile(r"\x01(\d)[^\n]*\s*(?=\x01(\d)|\Z)")


@dataclass(frozen=True, kw_only=True)
class MediaWiki(RecordFiles):
    """Each article of a dump is one document, title and text, without tables, boxes and notes. Redirects and pages
    outside the main namespace are not read.

    The dumps do not state their licence: Wikipedia's is CC-BY-SA-4.0.
    """

    kind: Literal["mediawiki"] = "mediawiki"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The wiki's address and the source of each article."""
        base = ""
        for tag, source in elements(stream, "page", header="siteinfo"):
            if tag == "siteinfo":
                base = unescape("".join(BASE.findall(source))).rpartition("/")[0]
            is_article = tag == "page" and "<ns>0</ns>" in source and "<redirect" not in source[:2000]
            yield (base, source) if is_article else None

    def document(self, name: str, record: Any) -> Document:
        """Title, empty line, text (as in The Pile's Wikipedia)."""
        base, source = record
        page = element(source)
        title, revision = line_of(page.find("title")), page.findall("revision")[-1]
        text = plain_text(revision.findtext("text") or "")
        url = f"{base}/{quote(title.replace(' ', '_'), safe='/:(),')}" if base else f"{name}#{title}"
        meta = {"title": title, "date": line_of(revision.find("timestamp")), "revision": line_of(revision.find("id"))}
        return Document(f"{title}\n\n{text}" if text else "", name, self.licence, url, meta)


def plain_text(source: str) -> str:
    """The prose of an article: paragraphs, headings and lists, without markup, templates and tables."""
    import mwparserfromhell

    text = text_of(mwparserfromhell.parse(without_non_prose(source), skip_style_tags=True).nodes)
    text = EMPTY_BRACKETS.sub("", text.replace("'''", "").replace("''", "").replace("\xa0", " "))
    text = re.sub(r"[ \t]+$", "", re.sub(r"(?<=\S)[ \t]{2,}", " ", EMPTY_LINE.sub("", text)), flags=re.MULTILINE)
    shorter = None
    while shorter != text:  # a section is empty, too, if all of its subsections were
        text, shorter = EMPTY_SECTION.sub(lambda at: "" if not at[2] or at[2] <= at[1] else at[0], text), text
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", re.sub(rf"{HEADING}\d", "", text)).strip()


def without_non_prose(source: str) -> str:
    """The markup without the parts that are not prose; patterns remove them much faster than the parser would."""
    protected: list[str] = []

    def protect(found: re.Match[str]) -> str:
        protected.append(found[0])
        return f"\x00{len(protected) - 1}\x00"

    source, removed = NOT_PROSE.sub("", PROTECTED.sub(protect, source)), 1
    while removed:
        source, removed = INNERMOST.subn("", source)
    return re.sub("\x00(\\d+)\x00", lambda place: protected[int(place[1])], source) if protected else source


def text_of(nodes: list[Any]) -> str:
    """The text of nodes of wiki markup."""
    from mwparserfromhell import nodes as kinds

    parts: list[str] = []
    for node in nodes:
        if isinstance(node, kinds.Text):
            parts.append(LANGUAGE_VARIANT.sub(r"\1", node.value))
        elif isinstance(node, kinds.Heading):
            parts.append(f"\n\n{HEADING}{node.level}{text_of(node.title.nodes).strip()}\n\n")
        elif isinstance(node, kinds.Wikilink):
            parts.append("" if MEDIA.match(str(node.title)) else text_of((node.text or node.title).nodes))
        elif isinstance(node, kinds.ExternalLink):
            parts.append(text_of(node.title.nodes) if node.title else "" if node.brackets else str(node.url))
        elif isinstance(node, kinds.HTMLEntity):
            parts.append(node.normalize())
        elif isinstance(node, kinds.Tag):
            parts.append(tag_text(node))
    return "".join(parts)


def tag_text(node: Any) -> str:
    """The text of a tag; to the parser, wiki tables and list markers are tags, too."""
    name = str(node.tag).strip().lower()
    if name in (*NOT_TEXT.split("|"), "table"):
        return ""
    if name in ("br", "hr"):
        return "\n"
    if node.wiki_markup and name in ("li", "dt", "dd"):
        return "- " if name == "li" else ""
    if name in VERBATIM.split("|"):
        return str(node.contents)
    return text_of(node.contents.nodes) if node.contents else ""
