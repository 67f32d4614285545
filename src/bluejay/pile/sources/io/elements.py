"""Large XML files, element by element: a dump is never held in memory, and damage costs one element.

Elements are found by their tags in the bytes and parsed one at a time, without the file's document type. So no file can
define an entity, which rules out entity bombs and entities that name other files.
"""

import html
import re
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.documents import MAX_DOCUMENT_BYTES, too_large
from bluejay.pile.sources.io.decode import decode, in_utf8
from bluejay.pile.sources.io.open import decompressed

READ_BYTES = 1 << 20
"""Bytes that are read at once; an XML declaration is within the first of them."""
SLASH = ord("/")
ENCODING = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
TAG = re.compile(rb"""(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")
"""What stands in a tag behind its name. Values in quotation marks may hold a `>`, but no `<`."""
OPENING = re.compile(r"""\s*<(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")
CONTROL = bytes(code for code in range(32) if code not in b"\t\n\r")
"""Characters that XML 1.0 forbids but that occur in dumps."""
PROLOGUE = re.compile(
    r"\s*(?:<\?xml\b[^>]*\?>)?(?:\s|<!--.*?-->|<\?.*?\?>)*"
    r"(?:<!DOCTYPE\b(?:[^\[\]>\"']|\"[^\"]*\"|'[^']*')*(?:\[(?:[^\]\"'<]|\"[^\"]*\"|'[^']*'|<!--.*?-->|<)*\]\s*)?>)?",
    re.DOTALL | re.IGNORECASE,
)
"""What stands before the root of a document: declaration, comments, document type."""
PREFIX = re.compile(r"<([\w.-]+):[\w.-]+|\s([\w.-]+):[\w.-]+\s*=")
"""The prefix of an element's or an attribute's name."""
DECLARED = re.compile(r"\sxmlns:([\w.-]+)\s*=")
"""A prefix that a tag declares."""
DOCTYPE = b'<!DOCTYPE x SYSTEM "">'
"""With a document type, named entities of the omitted one are references, which `text_of` resolves, not errors."""


def elements(stream: BufferedIOBase, *names: str, header: str = "") -> Iterator[tuple[str, str | ValueError]]:
    """Name and source of each element with one of these names, in order, and of an element named `header`; in place of
    the source of one that is larger than MAX_DOCUMENT_BYTES, the exception that says so.

    Raises EOFError: the file ends within an element; any of `open.BROKEN`; both after all complete elements.
    """
    names = (*names, header) if header else names
    begin = re.compile(rb"<((?:[\w.-]{1,40}:)?(" + "|".join(map(re.escape, names)).encode() + rb"))(?=[\s/>])")
    longest = max(map(len, names)) + 42
    held, encoding = bytearray(), None
    tag = name = mark = b""
    is_large = False
    sought = 0  # where the search for `mark` goes on, or for the next element where none is open
    for chunk in chunks(stream):
        held += chunk
        if encoding is None:
            declared = ENCODING.search(bytes(held[:READ_BYTES]))
            encoding = declared[1].decode() if declared else "utf-8"
        while True:
            if not tag:
                found = begin.search(held, sought)
                if not found:
                    del held[: max(sought, len(held) - longest)]
                    sought = 0
                    break
                tag, name, mark, is_large = bytes(found[1]), bytes(found[2]), b">", False
                del held[: found.start()]
                sought = len(tag) + 1
            end = held.find(mark, sought)
            if end >= 0 and mark in (b">", b"<") and not is_large:
                following = held.find(b"<", 1)
                whole = TAG.match(held, len(tag) + 1, following if following >= 0 else len(held))
                if not whole and following < 0:  # the `>` may be within a value that goes on
                    mark, sought = b"<", len(held)
                    continue
                mark, end = b">", whole.end() - 1 if whole else held.find(b">", len(tag) + 1)
            if end >= 0 and mark == b">" and held[end - 1] != SLASH:
                mark, sought = b"</" + tag + b">", 0
                continue
            if end < 0:
                sought = max(0, len(held) - len(mark) + 1)
                if len(held) > MAX_DOCUMENT_BYTES:
                    is_large, mark = True, b">" if mark == b"<" else mark
                    del held[: len(held) - len(mark) - 1]
                    sought = 0
                break
            end += len(mark)
            source = bytes(memoryview(held)[:end])
            del held[:end]
            if is_large or end > MAX_DOCUMENT_BYTES:
                yield name.decode(), too_large()
            else:
                yield name.decode(), decode(source.translate(None, CONTROL), encoding)
            tag, sought = b"", 0
    if tag:
        raise EOFError(f"the file ends within <{tag.decode()}>")


def chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    """The content of a file that may be compressed, as bytes in which tags are ASCII (UTF-16 becomes UTF-8)."""
    unpacked = decompressed(stream)
    content: Any = in_utf8(unpacked)
    first = content.read1(READ_BYTES)
    yield first if content is unpacked else re.sub(ENCODING, b"", first)
    while chunk := content.read1(READ_BYTES):
        yield chunk


def element(source: str) -> Any:
    """The lxml element of a piece of XML, without namespaces. Raises ValueError: it is not well-formed."""
    from lxml import etree

    root = well_formed(source)
    if "xmlns" in source or root.prefix:
        for node in root.iter(etree.Element):
            node.tag = local_name(node)
    return root


def well_formed(source: str) -> Any:
    """The lxml element of a piece of XML. Raises ValueError: it is not well-formed.

    Prefixes that are declared outside of the piece are declared anew, as names of themselves.
    """
    from lxml import etree

    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, remove_comments=True
    )
    try:
        return etree.fromstring(DOCTYPE + source.encode(), parser)
    except etree.XMLSyntaxError as error:
        if error.code == etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE and (whole := with_prefixes(source)) != source:
            return well_formed(whole)
        raise ValueError(f"not well-formed XML: {error}") from None


def with_prefixes(source: str) -> str:
    """A piece of XML in which the first tag declares every prefix that it does not declare itself."""
    opening = OPENING.match(source)
    known = {"xml", "xmlns", *DECLARED.findall(opening[0] if opening else "")}
    missing = sorted({name for pair in PREFIX.findall(source) for name in pair if name} - known)
    declared = "".join(f' xmlns:{name}="{name}"' for name in missing)
    return re.sub(r"^\s*<[^\s/>]+", lambda found: found[0] + declared, source, count=1)


def local_name(node: Any) -> str:
    """An element's name without its namespace; empty for entities, comments and processing instructions."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def text_of(node: Any, skip: frozenset[str] = frozenset()) -> str:
    """The text within an element, white space unchanged, without the elements named in `skip`."""
    return "".join(
        piece if isinstance(piece, str) else "" if local_name(piece) in skip else text_of(piece, skip)
        for piece in pieces(node)
    )


def pieces(node: Any) -> Iterator[Any]:
    """The texts and the elements within an element, in order."""
    yield node.text or ""
    for child in node:
        if local_name(child):
            yield child
        elif child.text and child.text.startswith("&"):
            yield html.unescape(child.text)
        yield child.tail or ""


def line_of(node: Any, skip: frozenset[str] = frozenset()) -> str:
    """The text within an element as one line; empty if the element is None."""
    return "" if node is None else " ".join(text_of(node, skip).split())


def document_element(document: str | bytes) -> Any:
    """The root of a small XML document, entities unresolved. Raises ValueError: it is not well-formed."""
    if isinstance(document, bytes):
        found = ENCODING.search(document[:READ_BYTES])
        document = decode(document, found[1].decode() if found else None)
    return well_formed(PROLOGUE.sub("", document.lstrip("\ufeff"), count=1))
