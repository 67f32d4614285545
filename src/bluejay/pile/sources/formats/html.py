"""Web pages."""

import contextlib
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urljoin

from bluejay.extras import install
from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.io.decode import decode_text, encoding_named, uncompressed
from bluejay.pile.sources.io.elements import document_element, local_name
from bluejay.pile.sources.io.licences import licence_at
from bluejay.pile.sources.io.records import RecordFiles

Extract = Literal["resiliparse", "justext"]
IS_XML = re.compile(r"\ufeff?\s*<\?xml\s")
SELF_CLOSED = re.compile(
    r"<(title|textarea|script|style|iframe|noscript|noembed|noframes|xmp)\b((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)/>",
    re.IGNORECASE,
)
"""An element without content of those whose content HTML reads as text, up to their end tag."""
EMPTY_START = re.compile(r"\A(?:[^\S\n]*\n)+")
"""Empty lines; not the indentation of what follows, which may be code."""
WITHIN_CODE = re.compile(r"\n(?=[^\n])")
MOST_AROUND = 100
"""Elements around code that are looked at: a page with more is malformed."""
SOFT_HYPHEN = "\xad"
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
        return page(self, record, None, name, name, xml=uncompressed(name).lower().endswith((".xhtml", ".xht")))


def page(source: Any, raw: bytes, charset: str | None, name: str, url: str, xml: bool = False) -> Document:
    """A page as a document; `source` has the settings `extract` and `language`, and the licence of other pages."""
    from resiliparse.parse.html import HTMLTree

    html = page_text(raw, charset, xml)
    tree = HTMLTree.parse(html)
    address, licence, meta = statements(tree, url)
    text = prose(html, source.language) if source.extract == "justext" else main_text(tree)
    return Document(text, name, licence or source.licence, address, meta)


def page_text(raw: bytes, charset: str | None, xml: bool = False) -> str:
    """The HTML of a page, by the encoding that HTTP gave, or that it declares or seems to have.

    A page that is XML, as it is said to be or as its first line says, is read as XML if it is well-formed: there,
    `<title/>` is a whole element, after which HTML would read the rest of the page as the title. It is one in XML that
    is not well-formed, too, which is read as HTML otherwise.

    Raises ValueError: it is not text.
    """
    text = decode_text(raw, charset_of(raw, charset))
    if xml or IS_XML.match(text):
        with contextlib.suppress(ValueError):
            return html_of(text)
        return SELF_CLOSED.sub(r"<\1\2></\1>", text)
    return text


def charset_of(raw: bytes, charset: str | None) -> str | None:
    """The encoding of a page: the one that its server or message gave, or that it declares or seems to have, if any."""
    from resiliparse.parse.encoding import detect_encoding

    return charset if charset and encoding_named(charset) else detect_encoding(raw, from_html_meta=True)


def html_of(source: str) -> str:
    """An XHTML document as HTML. Raises ValueError: it is not well-formed."""
    from lxml import etree

    root = document_element(source)
    if local_name(root).lower() != "html":
        raise ValueError("no page")
    for node in root.iter(etree.Element):
        node.tag = local_name(node)
    etree.cleanup_namespaces(root)
    return "<!DOCTYPE html>\n" + etree.tostring(root, encoding="unicode", method="html")


def main_text(tree: Any) -> str:
    """The text of a page without its boilerplate, by resiliparse's rules."""
    return shown_text(tree, main_content=True)


def shown_text(tree: Any, main_content: bool) -> str:
    """The text of a page, or of its main part, without the marks where words may be hyphenated."""
    from resiliparse.extract.html2text import extract_plain_text

    align_code(tree)
    text = extract_plain_text(tree, preserve_formatting=True, main_content=main_content, alt_texts=False)
    return text.replace(SOFT_HYPHEN, "")


def align_code(tree: Any) -> None:
    """Indent the lines of code within lists, of which resiliparse indents the first alone."""
    for code in selected(tree, "li pre"):
        depth, above = 0, code.parent
        for _ in range(MOST_AROUND):
            depth += above is not None and above.tag == "li"
            above = above and above.parent
        indentation, following = "\n" + " " * (2 * depth + 2), ""
        for node in reversed([node for node in code if node.tag == "#text"]):  # all of them, before any changes
            value = node.value
            if "\n" in value:  # a line that begins in the next of them, as in code with coloured words, counts, too
                indented = WITHIN_CODE.sub(indentation, value + following)
                node.value = indented[: len(indented) - len(following)]
            following = value[:1] or following


def prose(html: str, language: str) -> str:
    """The paragraphs of a page that justext classifies as prose in a language."""
    import justext

    paragraphs = justext.justext(html, justext.get_stoplist(language))
    text = "\n\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)
    return text.replace(SOFT_HYPHEN, "")


def require_stoplist(language: str) -> None:
    """Raise ValueError where justext has no frequent words of a language, so that it would find no prose at all."""
    try:
        from justext import get_stoplists
    except ImportError:
        raise ValueError(f'extract = "justext" needs justext: {install("corpus")}') from None
    names = sorted(get_stoplists())
    if language not in names:
        near = difflib.get_close_matches(language.capitalize(), names, n=1, cutoff=0.0)[0]
        raise ValueError(f"justext knows no language {language!r}; did you mean {near}?")


def all_text(html: str) -> str:
    """The whole text of HTML without boilerplate: a post, a chapter, an opinion."""
    from resiliparse.parse.html import HTMLTree

    return EMPTY_START.sub("", shown_text(HTMLTree.parse(html), main_content=False).rstrip())


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
    return address, licence, stated(meta)


def attributes(tree: Any, selector: str, *names: str) -> Iterator[str]:
    """The attributes with these names, of all elements that a selector finds."""
    for element in selected(tree, selector):
        yield from (value for name in names if (value := element.getattr(name)))


def selected(tree: Any, selector: str) -> list[Any]:
    """The elements that a selector finds; looking at them one by one would search the page again for each."""
    return tree.document.query_selector_all(selector).values()
