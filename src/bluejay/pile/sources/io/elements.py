"""Large XML files, element by element: never a whole dump in memory, and what is broken costs one element.

Elements are found by their tags in the bytes and parsed one at a time, without the file's document type. So nothing in
a file can define an entity, which rules out entity bombs and entities that name other files.
"""

import codecs
import html
import re
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.sources.io.open import decompressed

CHUNK = 1 << 20
"""Bytes read at once."""
DECLARED = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
CONTROL = bytes(code for code in range(32) if code not in b"\t\n\r")
"""Characters that XML 1.0 does not allow, and that its writers let through."""
DOCTYPE = b'<!DOCTYPE x SYSTEM "">'
"""Makes the named entities of the lost document type references, which `text_of` knows, not errors."""


def elements(stream: BufferedIOBase, *names: str, header: str = "") -> Iterator[tuple[str, str]]:
    """The name and the source of each element of these names, in order; and of one named `header`, if it comes first.

    Raises EOFError: the file ends within an element; any of `open.BROKEN`; both after all whole elements.
    """
    names = (*names, header) if header else names
    begin = re.compile(rb"<(" + "|".join(map(re.escape, names)).encode() + rb")(?=[\s/>])")
    longest = max(map(len, names)) + 1
    held, encoding = b"", ""
    for chunk in chunks(stream):
        held += chunk
        encoding = encoding or declared_encoding(held)
        at = 0
        while found := begin.search(held, at):
            end = element_end(held, found)
            if end < 0:
                break
            yield found[1].decode(), held[found.start() : end].translate(None, CONTROL).decode(encoding, "replace")
            at = end
        held = held[found.start() if found else max(at, len(held) - longest) :]
    if found := begin.search(held):
        raise EOFError(f"the file ends within <{found[1].decode()}>")


def chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    """The content of a file that may be compressed, as bytes in which tags are ASCII."""
    content: Any = decompressed(stream)
    first = content.read1(CHUNK)
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decoder = codecs.getincrementaldecoder("utf-16")("replace")
        yield re.sub(DECLARED, b"", decoder.decode(first).encode())
        while chunk := content.read1(CHUNK):
            yield decoder.decode(chunk).encode()
        return
    while first:
        yield first
        first = content.read1(CHUNK)


def declared_encoding(start: bytes) -> str:
    """The encoding that the beginning of a file declares, if Python knows it; UTF-8 otherwise."""
    found = DECLARED.search(start[:CHUNK])
    try:
        return codecs.lookup(found[1].decode()).name if found else "utf-8"
    except LookupError:
        return "utf-8"


def element_end(held: bytes, found: re.Match[bytes]) -> int:
    """Where the element that begins at a match ends; below zero where that is not held yet."""
    tag_end = held.find(b">", found.end())
    if tag_end > 0 and held[tag_end - 1 : tag_end] == b"/":
        return tag_end + 1
    closing = b"</" + found[1] + b">"
    end = held.find(closing, found.end())
    return end + len(closing) if end >= 0 else -1


def element(source: str) -> Any:
    """The lxml element that a piece of XML is. Raises ValueError: it is not well-formed."""
    from lxml import etree

    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, remove_comments=True
    )
    try:
        return etree.fromstring(DOCTYPE + source.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"not well-formed XML: {error}") from None


def local_name(node: Any) -> str:
    """An element's name without its namespace; empty for an entity, a comment, an instruction."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def text_of(node: Any, skip: frozenset[str] = frozenset()) -> str:
    """The text within an element, white space as it is, without the elements named in `skip`."""
    parts = [node.text or ""]
    for child in node:
        if local_name(child):
            parts.append("" if local_name(child) in skip else text_of(child, skip))
        elif child.text and child.text.startswith("&"):
            parts.append(html.unescape(child.text))
        parts.append(child.tail or "")
    return "".join(parts)


def line_of(node: Any, skip: frozenset[str] = frozenset()) -> str:
    """The text within an element as one line; empty where there is no element."""
    return "" if node is None else " ".join(text_of(node, skip).split())


def document_element(raw: bytes) -> Any:
    """The root of a small XML document, its entities not resolved. Raises ValueError: it is not well-formed."""
    from lxml import etree

    try:
        return etree.fromstring(raw, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
    except etree.XMLSyntaxError as error:
        raise ValueError(f"not well-formed XML: {error}") from None
