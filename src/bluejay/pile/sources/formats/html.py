"""Web pages."""

import codecs
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urljoin

from bluejay.pile.documents import Document
from bluejay.pile.sources.io.licences import licence_at
from bluejay.pile.sources.io.records import RecordFiles

Extract = Literal["resiliparse", "justext"]
NOT_UTF8 = re.compile(rb"[\x00\x1b]")
"""Bytes that show encodings whose texts are also valid UTF-8: UTF-16 and ISO-2022."""
ABSOLUTE = re.compile(r"https?://\S+")


@dataclass(frozen=True, kw_only=True)
class Html(RecordFiles):
    """HTML files, each of which is one document: its main text, without menus and other boilerplate."""

    kind: Literal["html"] = "html"
    extract: Extract = "resiliparse"
    """What extracts the main text. resiliparse is 6 to 30 times faster; The Pile used justext (its section 2.1)."""
    language: str = "English"
    """The language by whose frequent words justext recognises prose, under its English name."""

    def document(self, name: str, record: Any) -> Document:
        return page(self, record, None, name, name)


def page(source: Any, raw: bytes, charset: str | None, name: str, url: str) -> Document:
    """A page as a document; `source` has the settings `extract` and `language`, and the licence of other pages."""
    from resiliparse.parse.html import HTMLTree

    html = decode(raw, charset)
    tree = HTMLTree.parse(html)
    address, licence, meta = statements(tree, url)
    text = prose(html, source.language) if source.extract == "justext" else main_text(tree)
    return Document(text, name, licence or source.licence, address, meta)


def decode(raw: bytes, charset: str | None) -> str:
    """The text of a page: as UTF-8 if it is valid, otherwise in the encoding that HTTP gave, or that the page declares,
    or that it seems to have. (Text in other encodings is hardly ever valid UTF-8; many UTF-8 pages declare another.)"""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charset = "utf-16"
    elif not NOT_UTF8.search(raw):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode("utf-8-sig")
    detected = charset or detect_encoding(raw, from_html_meta=True) or "utf-8"
    try:
        return bytes_to_str(raw, detected, errors="replace")
    except LookupError:  # HTTP named an encoding that does not exist
        return bytes_to_str(raw, detect_encoding(raw) or "utf-8", errors="replace")


def main_text(tree: Any) -> str:
    """The text of a page without its boilerplate, by resiliparse's rules."""
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(tree, preserve_formatting=True, main_content=True, alt_texts=False)


def prose(html: str, language: str) -> str:
    """The paragraphs of a page that justext classifies as prose in a language."""
    import justext

    paragraphs = justext.justext(html, justext.get_stoplist(language))
    return "\n\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)


def all_text(html: str) -> str:
    """The whole text of HTML without boilerplate: a post, a chapter, an opinion."""
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(html, preserve_formatting=True, main_content=False, alt_texts=False).strip()


def statements(tree: Any, url: str) -> tuple[str, str | None, dict[str, Any]]:
    """The page's own statements: its address, its licence (or None), and its title, language and date."""
    meta = {"title": " ".join((tree.title or "").split())}
    root = tree.document.query_selector("html")
    meta["language"] = (root.getattr("lang") or "") if root else ""
    dates = 'meta[property="article:published_time"], meta[name="date"], meta[name="dcterms.date"]'
    meta["date"] = next(attributes(tree, dates, "content"), "")
    addresses = attributes(tree, 'link[rel~="canonical"], meta[property="og:url"]', "href", "content")
    address = url if ABSOLUTE.match(url) else next(filter(ABSOLUTE.match, addresses), url)
    links = attributes(tree, 'link[rel~="license"], a[rel~="license"]', "href")
    licence = next(filter(None, (licence_at(urljoin(address, link)) for link in links)), None)
    return address, licence, {key: value for key, value in meta.items() if value}


def attributes(tree: Any, selector: str, *names: str) -> Iterator[str]:
    """The attributes with these names, of all elements that a selector finds."""
    for element in tree.document.query_selector_all(selector):
        yield from (value for name in names if (value := element.getattr(name)))
