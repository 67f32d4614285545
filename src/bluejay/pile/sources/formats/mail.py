"""E-mail: mbox files (RFC 4155), maildirs and single messages (RFC 5322)."""

import contextlib
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from email import policy
from email.header import decode_header
from email.message import Message
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from io import BufferedIOBase
from itertools import chain, dropwhile
from typing import Any, Literal

from bluejay.pile.documents import MAX_DOCUMENT_BYTES, Document, stated, too_large
from bluejay.pile.sources.formats.html import all_text, charset_of
from bluejay.pile.sources.io.decode import decode, encoding_named, refuse_unknown
from bluejay.pile.sources.io.lines import lines
from bluejay.pile.sources.io.records import RecordFiles

SEPARATOR = re.compile(
    rb"From .*\b(?:mon|tue|wed|thu|fri|sat|sun),?\s+"
    rb"(?:[a-z]{3,9}\s+\d{1,2}|\d{1,2}[\s-]+[a-z]{3,9}[\s-]+\d{2,4})\s+\d\d?:\d\d",
    re.IGNORECASE,
)
"""The start of the line before each message of an mbox: sender and date, as asctime or RFC 5322 write it. Archives of
Mailman have it right behind the text of the message before."""
OTHER_SEPARATOR = re.compile(rb"From \S.*\d\d:\d\d")
"""The same with a date in another form, in files whose first line has one; it needs an empty line before it."""
QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
"""A line of a message that an mbox quotes, because it resembles a separator."""
FIELD = re.compile(rb"[\x21-\x39\x3b-\x7e]+[ \t]*:")
"""The start of a header line."""
HEADER = re.compile(rb"^(?:From |[\x21-\x39\x3b-\x7e]+:)")
"""What the bytes of a message begin with."""
BASE64_LINE = re.compile(r"[A-Za-z0-9+/]*={0,2}")
"""A line of base64; only the last has padding."""
NOT_SHOWN = "calendar css directory rtf rfc822-headers vcard x-amp-html x-vcard"
"""The types of parts below text/ that are data, or the same message once more."""
ENCRYPTED = "-----BEGIN PGP MESSAGE-----"
"""What an encrypted text begins with (RFC 9580, section 6.2)."""
SIGNED = re.compile(
    r"^-----BEGIN PGP SIGNED MESSAGE-----[ \t\r]*\n(?:[A-Za-z]+:[^\n]*\n)*\r?\n((?:(?!-----)[^\n]*\n)*+)"
    r"-----BEGIN PGP SIGNATURE-----[^\n]*\n(?:(?!-----)[^\n]*\n)*+-----END PGP SIGNATURE-----[^\n]*(?:\n|\Z)",
    re.MULTILINE,
)
"""A text that is signed in the clear, and its signature (RFC 9580, section 7)."""
ARMOUR = re.compile(
    r"^((?:[>|] ?)*)-----BEGIN PGP (SIGNATURE|MESSAGE|PUBLIC KEY BLOCK|PRIVATE KEY BLOCK)-----[^\n]*\n"
    r"(?:(?!\1-----)[^\n]*\n)*+\1-----END PGP \2-----[^\n]*(?:\n|\Z)",
    re.MULTILINE,
)
"""Keys, signatures and encrypted texts that are pasted or quoted in a text."""
UUENCODED = re.compile(r"^begin [0-7]{3,4} [^\n]+\n(?:[ -`]{0,64}\r?\n)*+end[ \t\r]*(?:\n|\Z)", re.MULTILINE)
"""A file that is attached within a text, as before MIME (POSIX, uuencode)."""
SCRUBBED = re.compile(
    r"^-------------- next part --------------\s*\n"
    r"(?:An? [^\n]* was scrubbed\.\.\.\s*\n(?:[A-Z][A-Za-z]+ ?:(?: [^\n]*)?(?:\n|\Z))*)?",
    re.MULTILINE,
)
"""What Mailman's archives have in place of an attachment, and between the parts of a message."""
DASHED = re.compile(r"^- (?=-)", re.MULTILINE)
"""What a line of such a text has before it that begins with a dash."""
SIGNATURE = "-- "
"""The line before a signature: the space at its end joins nothing (RFC 3676, section 4.3)."""


@dataclass(frozen=True, kw_only=True)
class Mail(RecordFiles):
    """Each message is one document: its plain text, otherwise the text of its HTML, without headers, attachments (also
    those that are written in the text) and the signatures and keys of PGP."""

    kind: Literal["mail"] = "mail"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The bytes of each message; an exception in place of one that is too large."""
        message, size = bytearray(), 0
        blank, line = True, b""
        separator: re.Pattern[bytes] | None = None
        written = dropwhile(lambda line: not line.strip(), lines(stream))
        for number, following in enumerate(chain(written, [b""])):
            if number == 0:
                line = following
                continue
            if number == 1:
                separator = next((kind for kind in (SEPARATOR, OTHER_SEPARATOR) if kind.match(line)), None)
            may_begin = separator if blank or separator is SEPARATOR else None
            if may_begin and may_begin.match(line) and begins_message(following):
                if size:
                    yield whole(message, size, in_mailbox=True)
                size = 0
            else:
                size += len(line)
                if size > MAX_DOCUMENT_BYTES:
                    message.clear()
                else:
                    message += line
            blank, line = not line.strip(), following
        if size:
            yield whole(message, size, in_mailbox=separator is not None)

    def document(self, name: str, record: Any) -> Document:
        """The body of a message; subject and date are metadata."""
        if not HEADER.match(record.lstrip()):
            raise ValueError("not a message: it does not begin with a header")
        message = BytesParser(policy=policy.compat32).parsebytes(record)
        identifier = header(message, "Message-ID").strip("<> ")
        meta = {"title": header(message, "Subject"), "date": date_of(message)}
        url = f"mid:{identifier}" if identifier else name
        text = body(message)
        if text.lstrip().startswith(ENCRYPTED):
            raise ValueError("encrypted, by PGP")
        text = SIGNED.sub(lambda found: DASHED.sub("", found[1]), text)
        for attached in (ARMOUR, UUENCODED, SCRUBBED):
            text = attached.sub("", text)
        return Document(text, name, self.licence, url, stated(meta))


def whole(message: bytearray, size: int, in_mailbox: bool) -> bytes | ValueError:
    """A message of `size` bytes, whose memory is given back; an exception in place of one that was too large."""
    if size > MAX_DOCUMENT_BYTES:
        return too_large()
    content = bytes(message)
    message.clear()
    return QUOTED.sub(rb"\1", content) if in_mailbox else content


def begins_message(line: bytes) -> bool:
    """Whether a message may begin with a line: a header line, also that of a mailbox which was itself quoted."""
    return bool(FIELD.match(line)) or line.startswith(b">From ")


def body(message: Message) -> str:
    """The parts that a reader sees; of alternatives, the plain one. A part with a malformed type is plain text.

    Raises ValueError: the encoding of a part is unknown.
    """
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
    is_data = message.get_content_subtype() in NOT_SHOWN.split()
    if message.get_content_disposition() == "attachment" or not is_text or is_data:
        return ""
    raw, footer = payload(message)
    charset = message.get_content_charset()
    charset = charset_of(raw, charset) if kind == "text/html" else charset
    if not charset or not encoding_named(charset):
        refuse_unknown(raw)
    text = decode(raw, charset)
    if kind == "text/plain" and str(message.get_param("format", "")).lower() == "flowed":
        text = unflowed(text, str(message.get_param("delsp", "")).lower() == "yes")
    text = f"{text.rstrip()}\n\n{footer}" if footer else text
    return all_text(text) if kind == "text/html" else text


def unflowed(text: str, spaces_go: bool) -> str:
    """Text in format=flowed (RFC 3676) with each paragraph on one line: a line that ends with a space goes on in the
    next one of the same depth of quotation. Where `spaces_go`, as DelSp says, that space is no part of the text."""
    written: list[tuple[int, list[str]]] = []
    goes_on = False
    for line in text.replace("\r\n", "\n").split("\n"):
        stuffed = line.lstrip(">")
        depth, content = len(line) - len(stuffed), stuffed.removeprefix(" ")
        if not goes_on or content == SIGNATURE or written[-1][0] != depth:
            written.append((depth, []))
        goes_on = content.endswith(" ") and content != SIGNATURE
        written[-1][1].append(content[:-1] if goes_on and spaces_go else content)
    return "\n".join(f"{'>' * depth} " * bool(depth) + "".join(parts) for depth, parts in written)


def payload(message: Message) -> tuple[bytes, str]:
    """The content of a part, and the text behind its base64, which mailing lists append to messages."""
    whole = message.get_payload(decode=True)
    coded = message.get_payload()
    coding = f"{message.get('Content-Transfer-Encoding', '')}".strip().lower()
    if coding != "base64" or not isinstance(coded, str):
        return whole if isinstance(whole, bytes) else b"", ""
    written = coded.strip().splitlines()
    width = len(written[0].strip()) if written else 0
    end = 0
    while end < len(written):
        line = written[end].strip()
        if not BASE64_LINE.fullmatch(line) or (len(line) % 4 and len(line) != width):
            break
        end += 1
        if line.endswith("="):
            break
    digits = "".join(map(str.strip, written[:end])).rstrip("=")
    digits = digits[:-1] if len(digits) % 4 == 1 else digits
    rest = written[end:] if digits else []
    if any(len(line) > width // 2 and BASE64_LINE.fullmatch(line.strip()) for line in rest):  # damage, not a footer
        return whole if isinstance(whole, bytes) else b"", ""
    return b64decode(digits + "=" * (-len(digits) % 4)), "\n".join(rest).strip()


def header(message: Message, name: str) -> str:
    """A header on one line, its encoded words decoded unless they are malformed."""
    raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
    value = raw.encode("ascii", "surrogateescape") if has_raw_bytes(raw) else raw
    value = decode(value) if isinstance(value, bytes) else value
    with contextlib.suppress(ValueError):
        parts = decode_header(value)
        value = "".join(part if isinstance(part, str) else words(part, charset) for part, charset in parts)
    return " ".join(value.encode("utf-8", "replace").decode().split())


def has_raw_bytes(value: str) -> bool:
    """Whether a header holds bytes that are not ASCII, as surrogates, and nothing else beyond ASCII."""
    return not value.isascii() and all(mark.isascii() or "\udc80" <= mark <= "\udcff" for mark in value)


def words(part: bytes, charset: str | None) -> str:
    """A part of a header; without a charset it stood beside encoded words."""
    return part.decode("raw-unicode-escape", "replace") if charset is None else decode(part, charset)


def date_of(message: Message) -> str:
    """The time of sending, in ISO 8601; empty if the header is malformed."""
    try:
        return parsedate_to_datetime(header(message, "Date")).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""
