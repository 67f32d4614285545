"""From bytes to text: the one rule by which every source decodes.

A byte order mark decides. Otherwise bytes that are UTF-8, but for a few broken ones, are UTF-8, whatever they are
declared to be: text in other encodings is hardly ever valid UTF-8, and much UTF-8 is declared to be something else.
Otherwise the declared encoding is taken, by the meaning that the WHATWG Encoding Standard gives to its name, and at
last windows-1252; a file that is none of these, as its runs of letters beyond ASCII show, is refused. Each broken byte
becomes one U+FFFD.
"""

import codecs
import contextlib
import io
import re
import tokenize
from io import BufferedIOBase
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator

from bluejay.pile.documents import read_bounded
from bluejay.pile.sources.io.open import BROKEN, COMPRESSIONS, READ_BYTES, open_bytes, refuse_pointer, refuse_tar

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""A byte order mark, and the encoding that it says; that of UTF-32 begins with one of UTF-16."""
MARKS = tuple(mark for mark, _ in BYTE_ORDER_MARKS)
NAMES = """
ascii=cp1252 iso8859-1=cp1252 iso8859-9=cp1254 iso8859-11=cp874 tis-620=cp874 windows-874=cp874 dos-874=cp874
gb2312=gb18030 gbk=gb18030 gb-2312-80=gb18030 euc-kr=cp949 windows-949=cp949 big5=big5hkscs cn-big5=big5hkscs
shift-jis=cp932 windows-31j=cp932 sjis=cp932 iso2022-jp=iso2022-jp-ext iso-8859-8-i=iso8859-8 iso-8859-8-e=iso8859-8
logical=iso8859-8 visual=iso8859-8 koi=koi8-r koi8=koi8-r koi8-ru=koi8-u mac=mac-roman mac-ukrainian=mac-cyrillic
unicode-1-1-utf-8=utf-8 unicode20utf8=utf-8 unicode11utf8=utf-8 utf-16=utf-16-le unicode=utf-16-le ucs-2=utf-16-le
iso-10646-ucs-2=utf-16-le csunicode=utf-16-le unicodefffe=utf-16-be unicodefeff=utf-16-le sun-eu-greek=iso8859-7
hz-gb-2312=hz dos-866=cp866 csgb231280=gb18030 csshiftjis=cp932 ks-c-5601-1989=cp949
"""
MEANT = {name: meant for name, _, meant in (pair.partition("=") for pair in NAMES.split())}
"""The name of an encoding, as it is declared or as Python has it -> Python's name for what is meant by it."""
PYTHONS_OWN = ("idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")
"""Text encodings to Python that no text is in."""
SEVEN_BIT = ("iso2022", "hz", "utf-7")
"""Encodings whose texts are ASCII, and so UTF-8, to whoever does not know of them."""
ISOLATED = 4
"""Characters beyond ASCII for each broken byte above which the bytes are taken to be in an encoding."""
MAX_CONTROLS, MAX_CONTROL_SHARE = 2, 0.02
"""The control characters that a file of text may have: a few, and a share of its length."""
OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The start of an office document of an old kind, and of an encrypted one of a new kind."""
OTHER_FORMATS = {
    b"{\\rtf": 'RTF, which kind = "office" reads',
    b"%PDF-": 'PDF, which kind = "pdf" reads',
    b"%!PS": "PostScript; save it as plain text, or make a PDF of it",
    b"PK\x03\x04": "a zip archive, as which office documents are stored, too; "
    'kind = "archive" reads archives, kind = "office" documents',
    b"PAR1\x15": 'Parquet, which kind = "parquet" reads',
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    OLD_OFFICE: "an office document of an old kind; save it as .docx, .pptx or CSV",
    b"SQLite format 3\0": "a database of SQLite; export its text",
}
"""The start of files that may look like text -> what they are, and what to do with them."""
REPEATED, RUN = re.compile(rb"([\x80-\xff])\1{2,}"), re.compile(rb"[\x80-\xff]{4,}")
"""One byte beyond ASCII several times, as in a line of dashes; and different ones together, as in words in Cyrillic or
Chinese: in the languages of windows-1252, fewer stand together."""
MIN_RUN_BYTES, MIN_REPEATED = 16, 1.5
"""Bytes in such runs that tell of another encoding, and how often each is there: in a list of letters, it is once."""
START_BYTES = 1 << 16
"""Bytes by which the encoding of a long file is known."""
SURROGATE = re.compile("[\ud800-\udfff]")
BEYOND_ASCII = bytes(range(128, 256))
CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\a\b\t\n\v\f\r\x1b")
"""Control characters that text does not have."""


def decode(raw: bytes, declared: str | None = None) -> str:
    """The text of bytes that are declared to be in an encoding, if they are; a name that means nothing is ignored."""
    if marked := marked_encoding(raw):
        return raw.decode(marked, "replace")
    name = encoding_named(declared) if declared else None
    utf8 = fitting(raw, "utf-8", ISOLATED)
    if utf8 is not None and not (name and may_hide(raw, name)):
        return utf8
    text = fitting(raw, name, ISOLATED) if name and name != "utf-8" else None
    if text is None:
        text = fitting(raw, "utf-8", 1)
    text = raw.decode("cp1252", "replace") if text is None else text
    return SURROGATE.sub("\ufffd", text) if name == "utf-7" else text  # Python's UTF-7 lets them pass


def marked_encoding(start: bytes) -> str | None:
    """The encoding that a byte order mark says; None without one."""
    if not start.startswith(MARKS):  # tried for every record
        return None
    return next(name for mark, name in BYTE_ORDER_MARKS if start.startswith(mark))


def may_hide(raw: bytes, name: str) -> bool:
    """Whether bytes that look like UTF-8 are in the encoding `name`, as its escapes or zero bytes show."""
    if name.startswith(("utf-16", "utf-32")):
        return b"\0" in raw
    shift = {"hz": b"~{", "utf-7": b"+"}.get(name, b"\x1b")
    return name.startswith(SEVEN_BIT) and raw.isascii() and shift in raw and fitting(raw, name, ISOLATED) is not None


def fitting(raw: bytes, name: str, isolated: int) -> str | None:
    """The text of bytes in an encoding; None if more than one of `isolated` characters beyond ASCII is broken."""
    try:
        return raw.decode(name)
    except UnicodeDecodeError:
        text = raw.decode(name, "replace")
    whole = raw.count("\ufffd".encode()) if name == "utf-8" else 0
    broken = text.count("\ufffd") - whole
    others = len(text) - broken - len(text.encode("ascii", "ignore"))
    return text if broken * isolated <= others else None


def in_utf8(stream: BufferedIOBase) -> BufferedIOBase:
    """A decompressed stream without its byte order mark; one whose mark says UTF-16 or UTF-32, as UTF-8."""
    buffered: Any = stream
    name = marked_encoding(buffered.peek(4)[:4])
    if name == "utf-8-sig":
        buffered.read(len(codecs.BOM_UTF8))
    return buffered if name in (None, "utf-8-sig") else io.BufferedReader(Recoded(buffered, name))


def recoded(stream: BufferedIOBase, encoding: str | None) -> io.BufferedReader:
    """A decompressed stream in this encoding as UTF-8; itself without one, with a byte order mark, or where letters
    beyond ASCII at its start are UTF-8."""
    start = start_of(stream)
    whole = start[: start.rfind(b"\n") + 1] or start  # not to end within a character
    is_utf8 = not whole.isascii() and fitting(whole, "utf-8", ISOLATED) is not None
    name = encoding_named(encoding) if encoding else None
    if name is None or is_utf8 or marked_encoding(start):
        return cast(io.BufferedReader, stream)
    return io.BufferedReader(Recoded(stream, name))


class Recoded(io.RawIOBase):
    """A stream of text in another encoding, as UTF-8."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self.stream, self.decoder = stream, codecs.getincrementaldecoder(encoding)("replace")
        self.ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self.ready:
            chunk = self.stream.read1(READ_BYTES)
            self.ready = self.decoder.decode(chunk, final=not chunk).encode()
            if not chunk and not self.ready:
                return 0
        count = min(len(view), len(self.ready))
        view[:count], self.ready = self.ready[:count], self.ready[count:]
        return count


def encoding_named(label: str) -> str | None:
    """Python's name of the text encoding that a label means; None if it means none.

    >>> encoding_named("ISO-8859-1"), encoding_named("x-sjis"), encoding_named("klingon")
    ('cp1252', 'cp932', None)
    """
    label = label.strip(" \t\r\n\f\"'").lower().replace("_", "-")
    for name in (label, label.removeprefix("x-").removeprefix("x-")):
        if name in MEANT:
            return MEANT[name]
        try:
            found = codecs.lookup(name)
        except (LookupError, ValueError):  # ValueError: a null character in the name
            continue
        if found._is_text_encoding:
            name = found.name.replace("_", "-")
            return None if name in PYTHONS_OWN else MEANT.get(name, found.name)
    return None


def read_text(path: Path | str) -> str:
    """The text of a file that may be compressed. Raises ValueError: it cannot be read, is too large, or is not text."""
    try:
        with open_bytes(str(path)) as stream:
            raw = read_bounded(stream)
    except BROKEN as error:
        raise ValueError(f"broken: {error}") from None
    return file_text(raw, Path(path).name)


def file_text(raw: bytes, name: str, declared: str | None = None) -> str:
    """The text of a whole file, line ends unchanged; Python source may declare its encoding (PEP 263).

    Raises ValueError: the file is not text, or stands for another.
    """
    refuse_pointer(raw)
    refuse_tar(raw)
    refuse_other_format(raw)
    return decode_text(raw, declared_in_python(raw) if uncompressed(name).endswith(".py") else declared)


def refuse_other_format(start: bytes) -> None:
    """Raise ValueError where a file begins like one of OTHER_FORMATS."""
    for mark, what in OTHER_FORMATS.items():
        if start.startswith(mark):
            raise ValueError(what)


def decode_text(raw: bytes, declared: str | None = None) -> str:
    """The text of bytes, as `decode` gives it. Raises ValueError: they are not text, but an image or a program; or
    their encoding is unknown."""
    text = decode(raw, declared)
    if len(text) == len(raw) and not raw.isascii() and text == raw.decode("cp1252", "replace"):
        refuse_unknown(raw)
    encoded = text.encode("utf-8", "replace") if b"\0" in raw else raw  # zeros are half of UTF-16
    if len(encoded) - len(encoded.translate(None, CONTROLS)) > MAX_CONTROLS + MAX_CONTROL_SHARE * len(text):
        refuse_zeros(raw)
        raise ValueError("not text: it has too many control characters")
    return text


def start_of(stream: BufferedIOBase) -> bytes:
    """The first bytes of a decompressed stream, which it gives again; none where it is damaged."""
    with contextlib.suppress(*BROKEN):  # which reading raises again
        return cast(io.BufferedReader, stream).peek(START_BYTES)
    return b""


def refuse_unknown(raw: bytes) -> None:
    """Raise ValueError for bytes that are neither UTF-8 nor windows-1252: most of those beyond ASCII stand in runs."""
    varied = REPEATED.sub(b"", raw)
    found = b"".join(RUN.findall(varied))
    if len(found) < MIN_RUN_BYTES or marked_encoding(raw) or fitting(raw, "utf-8", 1) is not None:
        return
    beyond = len(varied) - len(varied.translate(None, BEYOND_ASCII))
    if 2 * len(found) > beyond and len(found) >= MIN_REPEATED * len(set(found)):
        raise ValueError(
            "its encoding is unknown: it is neither UTF-8 nor windows-1252; convert it to UTF-8, as in "
            '`iconv -f GB18030 -t UTF-8`, or write encoding = "gb18030" beside kind = "text", "csv" or "subtitles"'
        )


def refuse_zeros(start: bytes) -> None:
    """Raise ValueError for zero bytes alone, as in a file that was never filled, and for bytes that have as many zeros
    as UTF-16 and UTF-32 but no byte order mark. Zeros may stand behind a text."""
    written = start.rstrip(b"\0")
    if start and not written:
        raise ValueError("not text: it begins with nothing but zero bytes")
    if written.count(0) > MAX_CONTROLS + MAX_CONTROL_SHARE * len(written) and not marked_encoding(start):
        raise ValueError(
            "not text: it has many zero bytes, as UTF-16 has, but no byte order mark; convert it to UTF-8, as in "
            '`iconv -f UTF-16LE -t UTF-8`, or write encoding = "utf-16-le" beside kind = "text", "csv" or "subtitles"'
        )


def known_encoding(name: str) -> str:
    """The name of an encoding, in a recipe. Raises ValueError: it means none."""
    if encoding_named(name) is None:
        raise ValueError(f'{name} is no encoding; it must be one such as "windows-1250", "shift_jis" or "koi8-r"')
    return name


Encoding = Annotated[str, AfterValidator(known_encoding)]
"""The name of an encoding in a recipe."""


def uncompressed(name: str) -> str:
    """The name of a file without the suffix of its compression.

    >>> uncompressed("test.jsonl.XZ")
    'test.jsonl'
    """
    return next((name[: -len(end)] for end in COMPRESSIONS if name.lower().endswith(end)), name)


def declared_in_python(raw: bytes) -> str | None:
    """The encoding that Python source declares."""
    try:
        return tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
    except (SyntaxError, UnicodeError):
        return None


def is_binary(raw: bytes) -> bool:
    """Whether a file is binary: it has a zero byte near its start (git's rule), and no byte order mark."""
    return b"\0" in raw[:8000] and not marked_encoding(raw)
