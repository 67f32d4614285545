"""Wikipedia and other wikis: the XML dumps of MediaWiki (https://www.mediawiki.org/xml/export-0.11.xsd)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from io import BufferedIOBase
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from bluejay.pile.documents import Document
from bluejay.pile.sources.formats.mediawiki_names import LANGUAGES, formatted
from bluejay.pile.sources.io.elements import element, elements, line_of
from bluejay.pile.sources.io.ranges import Records
from bluejay.pile.sources.io.records import RecordFiles

BASE = re.compile(r"<base>\s*([^<\s]*)")
NAMESPACE = re.compile(r'<namespace\s[^>]*?key="(-?\d+)"[^>]*>([^<]+)</namespace>')
REDIRECT = re.compile(r"<redirect\b|<text\b[^>]*>\s*#\w+\s*:?\s*\[\[")
TITLE, NUMBER = re.compile(r"<title>([^<:]*):"), re.compile(r"<ns>\s*(-?\d+)")
VERBATIM = "math|chem|ce|pre|source|syntaxhighlight|nowiki"
"""Tags whose content is text and not markup."""
BLOCKS = {"p": "\n\n", "blockquote": "\n\n", "li": "\n- "}
BLOCKS |= dict.fromkeys(("div", "center", "ul", "ol", "dl", "dt", "dd", "tr"), "\n")
"""Tags of HTML that begin a line, and what is before their text."""
NOT_TEXT = "ref|gallery|timeline|imagemap|score|mapframe|hiero|templatestyles|references"
"""Extension tags whose content is not part of the prose."""
PROTECTED = re.compile(rf"<({VERBATIM})\b([^<>/]*)>(.*?)</\1\s*>|\x03", re.DOTALL | re.IGNORECASE)
PLACE = re.compile("\x03(\\d+)\x03")
"""Stands for verbatim text while markup is removed around it."""
NOWIKI = re.compile(r"</?nowiki\s*/?>", re.IGNORECASE)
NOT_PROSE = re.compile(
    rf"<!--.*?-->|<(?:{NOT_TEXT})\b[^<>]*/>|<({NOT_TEXT})\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
INNERMOST = re.compile(r"\{\{[^{}]*\}\}|^[ :]*\{\|[^{}]*?\|\}", re.MULTILINE)
"""A template or table that contains no other."""
POWER_OF_TEN = re.compile(r"(?<=\d)(?<![^\d.,]10)\{\{[Ee]\|([-−+]?\d+)\}\}")
"""English for 5.98×10^24: 5.98{{e|24}}. In French, the template {{e}} only raises: 10{{e|24}}, km{{e|2}}."""
LANGUAGE_VARIANT = re.compile(r"-\{(?:([^{}|]*)\|)?([^{}]*)\}-")
"""Text for several variants of a language, after flags: -{zh-hans:计算机; zh-hant:電腦}-."""
FIRST_VARIANT = re.compile(r"\A\s*[a-z]{2,3}(?:-[a-z]{2,4})?\s*:\s*([^;]*).*", re.DOTALL)
HIDDEN_VARIANT = re.compile(r"(?:^|;)\s*[HT]\s*(?:;|$)")
GAP = "\x02"
"""Stands where a template or a file was within a line, as one about pronunciation does, until the brackets and marks
around it have been removed, too."""
AROUND_GAPS = (
    (re.compile(r" ?\([\s,;:]*\x02[\s,;:\x02]*\)"), ""),
    (re.compile(r"\([ \t]*(?:\x02[ \t]*[,;:]?[ \t]*)+"), "("),
    (re.compile(r"(?<![ \t])(?:[ \t]*+(?:[,;:][ \t]*+)?\x02)+[ \t]*+\)"), ")"),
    (re.compile(r"([,;])(?:[ \t]*\x02[ \t]*[,;])+"), r"\1"),
    (re.compile(GAP), ""),
)
EMPTY_LINE = re.compile(r"^(?:[-*#:; \t]+|__[A-Z]+__[ \t]*)(?:\n|\Z)", re.MULTILINE)
NESTED = re.compile(r"^(?:- )+(?=- )", re.MULTILINE)
"""The outer markers of an item in a list within a list."""
HEADING = "\x01"
"""Marks headings until those of empty sections have been removed."""
EMPTY_SECTION = re.compile(r"\x01(\d)[^\n]*\s*(?=\x01(\d)|\Z)")


SUBJECTS = "user project wikipedia file image mediawiki template help category portal module draft"
NAMESPACES = frozenset(f"{name}{talk}" for name in SUBJECTS.split() for talk in ("", " talk")) | {"talk", "special"}
NOT_SHOWN_KEYS = (-2, 6, 14)
"""The numbers of the namespaces Media, File and Category."""
NOT_SHOWN = frozenset({"media", "file", "image", "category"})
"""The names of these namespaces that every wiki understands."""
FILE_NAME = re.compile(
    r":.*\.(?:jpe?g|png|gif|svg|tiff?|webp|og[gvam]|web[mp]|mp[34]|wav|flac|pdf|djvu|xcf|midi?)$", re.I
)


@dataclass(frozen=True)
class Wiki:
    """What a dump says of its wiki."""

    base: str = ""
    """The address before the titles; empty if the dump does not give one."""
    namespaces: frozenset[str] = NAMESPACES
    """The names of namespaces other than that of the articles."""
    not_shown: frozenset[str] = NOT_SHOWN
    """The names of the namespaces whose links show no text."""

    def is_article(self, page: str) -> bool:
        """Whether a page is an article; the first versions of the format give the namespace in the title alone."""
        number, title = NUMBER.search(page), TITLE.search(page)
        if number or not title:
            in_main = not number or number[1] == "0"
        else:
            in_main = folded(unescape(title[1])) not in self.namespaces
        return in_main and not REDIRECT.search(page)

    def shows(self, target: str) -> bool:
        """Whether a link shows text: not if it puts the page into a category, shows a file, or names the same page in
        another language. A colon before the target makes it a plain link."""
        prefix, colon, name = target.partition(":")
        prefix = folded(prefix)
        if not colon or not prefix:
            return True
        is_language = prefix in LANGUAGES and not name.startswith((" ", "_"))
        return prefix not in self.not_shown and not is_language and not FILE_NAME.search(target.strip())


def folded(name: str) -> str:
    """The name of a namespace as MediaWiki compares names."""
    return " ".join(name.replace("_", " ").split()).casefold()


@dataclass(frozen=True, kw_only=True)
class MediaWiki(RecordFiles):
    """Each article of a dump is one document, title and text, without tables, boxes and notes. Redirects and pages
    outside the main namespace are not read.

    The dumps do not state their licence: Wikipedia's is CC-BY-SA-4.0.
    """

    RECORDS: ClassVar = Records(b"<page>", header=True)
    kind: Literal["mediawiki"] = "mediawiki"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The wiki and the source of each article."""
        wiki = Wiki()
        for tag, source in elements(stream, "page", header="siteinfo"):
            if isinstance(source, ValueError):
                yield source
                continue
            if tag == "siteinfo":
                wiki = wiki_of(source)
            yield (wiki, source) if tag == "page" and wiki.is_article(source) else None

    def document(self, name: str, record: Any) -> Document:
        """Title, empty line, text (as in The Pile's Wikipedia)."""
        wiki, source = record
        page = element(source)
        title, revision = line_of(page.find("title")), page.findall("revision")[-1]
        text = plain_text(revision.findtext("text") or "", wiki)
        url = f"{wiki.base}/{quote(title.replace(' ', '_'), safe='/:(),')}" if wiki.base else f"{name}#{title}"
        meta = {"title": title, "date": line_of(revision.find("timestamp")), "revision": line_of(revision.find("id"))}
        return Document(f"{title}\n\n{text}" if text else "", name, self.licence, url, meta)


def wiki_of(siteinfo: str) -> Wiki:
    """What a dump says of its wiki; the names of other namespaces than its own are those of MediaWiki."""
    base = unescape("".join(BASE.findall(siteinfo))).rpartition("/")[0]
    named = [(int(key), folded(unescape(name))) for key, name in NAMESPACE.findall(siteinfo)]
    return Wiki(
        base,
        namespaces=NAMESPACES | {name for key, name in named if key},
        not_shown=NOT_SHOWN | {name for key, name in named if key in NOT_SHOWN_KEYS},
    )


def plain_text(source: str, wiki: Wiki | None = None) -> str:
    """The prose of an article: paragraphs, headings and lists, without markup, templates and tables."""
    import mwparserfromhell

    source, verbatim = without_non_prose(source)
    text = text_of(mwparserfromhell.parse(source, skip_style_tags=True).nodes, wiki or Wiki())
    text = text.replace("'''", "").replace("''", "").replace("\xa0", " ").replace("\xad", "")
    for around, rest in AROUND_GAPS:
        text = around.sub(rest, text)
    text = re.sub(r"[ \t]+$", "", re.sub(r"(?<=\S)[ \t]{2,}", " ", EMPTY_LINE.sub("", text)), flags=re.MULTILINE)
    shorter = None
    while shorter != text:  # a section is empty, too, if all of its subsections were
        text, shorter = EMPTY_SECTION.sub(lambda at: "" if not at[2] or at[2] <= at[1] else at[0], text), text
    text = re.sub(r"\s*\n\s*\n\s*", "\n\n", re.sub(rf"{HEADING}\d", "", text)).strip()
    text = NESTED.sub(lambda found: "  " * (len(found[0]) // 2), text)
    return PLACE.sub(lambda place: verbatim[int(place[1])], text)


def without_non_prose(source: str) -> tuple[str, list[str]]:
    """The markup without the parts that are not prose, and the verbatim texts that its places stand for; patterns
    remove them much faster than the parser would."""
    verbatim: list[str] = []

    def protect(found: re.Match[str]) -> str:
        name, attributes, content = (found[key] or "" for key in (1, 2, 3))
        name = name.lower()
        verbatim.append(unescape(NOWIKI.sub("", content)) if name in ("pre", "nowiki") else content)
        is_block = name in ("pre", "source", "syntaxhighlight") and "inline" not in attributes
        if is_block:
            verbatim[-1] = verbatim[-1].strip("\n")
        line = "\n\n" if is_block else ""
        return f"{line}\x03{len(verbatim) - 1}\x03{line}"

    def shown(found: re.Match[str]) -> str:
        within = found.start() and found.string[found.start() - 1] != "\n"
        return formatted(found[0]) or (GAP if within else "")

    source, removed = POWER_OF_TEN.sub(r"×10^\1", NOT_PROSE.sub("", PROTECTED.sub(protect, source))), 1
    while removed:
        source, removed = INNERMOST.subn(shown, source)
    return source, verbatim


def in_one_variant(found: re.Match[str]) -> str:
    """What a text for several variants of a language shows in the first of them."""
    return "" if HIDDEN_VARIANT.search(found[1] or "") else FIRST_VARIANT.sub(r"\1", found[2])


def text_of(nodes: list[Any], wiki: Wiki) -> str:
    """The text of nodes of wiki markup."""
    from mwparserfromhell import nodes as kinds

    parts: list[str] = []
    for node in nodes:
        if isinstance(node, kinds.Text):
            parts.append(LANGUAGE_VARIANT.sub(in_one_variant, node.value))
        elif isinstance(node, kinds.Heading):
            parts.append(f"\n\n{HEADING}{node.level}{text_of(node.title.nodes, wiki).strip()}\n\n")
        elif isinstance(node, kinds.Wikilink):
            parts.append(
                text_of((node.text or node.title).nodes, wiki).lstrip(":") if wiki.shows(str(node.title)) else GAP
            )
        elif isinstance(node, kinds.ExternalLink):
            parts.append(text_of(node.title.nodes, wiki) if node.title else "" if node.brackets else str(node.url))
        elif isinstance(node, kinds.HTMLEntity):
            parts.append(node.normalize())
        elif isinstance(node, kinds.Tag):
            parts.append(tag_text(node, wiki))
    return "".join(parts)


def tag_text(node: Any, wiki: Wiki) -> str:
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
    text = text_of(node.contents.nodes, wiki) if node.contents else ""
    return f"{BLOCKS[name]}{text}\n" if name in BLOCKS else text
