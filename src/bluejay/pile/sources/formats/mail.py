"""E-mail: mbox files (RFC 4155), maildirs and single messages (RFC 5322)."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import policy
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document
from bluejay.pile.sources.formats.html import all_text
from bluejay.pile.sources.io.lines import decode, lines
from bluejay.pile.sources.io.records import RecordFiles

SEPARATOR = re.compile(rb"From \S.*\d\d:\d\d")
"""The start of the line before each message of an mbox: sender and time."""
QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
HEADER = re.compile(rb"^(?:From |[\x21-\x39\x3b-\x7e]+:)")


@dataclass(frozen=True, kw_only=True)
class Mail(RecordFiles):
    """Each message is one document: its plain text, otherwise the text of its HTML, without headers and attachments."""

    kind: Literal["mail"] = "mail"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The bytes of each message."""
        message: list[bytes] = []
        blank, is_mbox = True, None
        for line in lines(stream):
            if is_mbox is None:
                is_mbox = bool(SEPARATOR.match(line))
            if blank and is_mbox and SEPARATOR.match(line):
                if message:
                    yield QUOTED.sub(rb"\1", b"".join(message))
                message = []
            else:
                message.append(line)
            blank = not line.strip()
        if message:
            content = b"".join(message)
            yield QUOTED.sub(rb"\1", content) if is_mbox else content

    def document(self, name: str, record: Any) -> Document:
        """The body of a message; subject and date are metadata."""
        if not HEADER.match(record.lstrip()):
            raise ValueError("not a message: it does not begin with a header")
        message = BytesParser(policy=policy.compat32).parsebytes(record)
        identifier = header(message, "Message-ID").strip("<> ")
        meta = {"title": header(message, "Subject"), "date": date_of(message)}
        url = f"mid:{identifier}" if identifier else name
        stated = {key: value for key, value in meta.items() if value}
        return Document(body(message), name, self.licence, url, stated)


def body(message: Message) -> str:
    """The parts that a reader sees; of alternatives, the plain one. A part with a malformed type is plain text."""
    kind = message.get_content_type()
    if message.is_multipart():
        parts = [part for part in message.get_payload() if isinstance(part, Message)]
        texts = [body(part).strip() for part in parts]
        if kind != "multipart/alternative":
            return "\n\n".join(filter(None, texts))
        plain_first = sorted(
            zip(parts, texts, strict=True), key=lambda part: part[0].get_content_type() != "text/plain"
        )
        return next((text for _, text in plain_first if text), "")
    is_text = kind.startswith("text/") or message.get_content_maintype() == "multipart"
    if message.get_content_disposition() == "attachment" or not is_text:
        return ""
    payload = message.get_payload(decode=True)
    text = decode(payload if isinstance(payload, bytes) else b"", message.get_content_charset())
    return all_text(text) if kind == "text/html" else text


def header(message: Message, name: str) -> str:
    """A header on one line, its encoded words decoded unless they are malformed."""
    value = f"{message.get(name, '')}"  # it is a Header, not a str, if it has bytes that are not ASCII
    with contextlib.suppress(LookupError, ValueError):
        value = str(make_header(decode_header(value)))
    return " ".join(value.encode("utf-8", "replace").decode().split())


def date_of(message: Message) -> str:
    """The time of sending, in ISO 8601; empty if the header is malformed."""
    try:
        return parsedate_to_datetime(header(message, "Date")).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""
