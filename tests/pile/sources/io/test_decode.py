"""One rule by which bytes become text."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from bluejay.pile.sources.io.decode import decode, encoding_named, file_text, is_binary, read_text

GERMAN = "Grüße aus Köln – „hallo“"


@pytest.mark.parametrize(
    ("raw", "declared", "text"),
    [
        ("é".encode(), None, "é"),
        ("é".encode("utf-8-sig"), "latin-1", "é"),
        ("é…".encode("cp1252"), None, "é…"),
        ("я".encode("koi8-r"), "koi8-r", "я"),
        ("é".encode("utf-16"), None, "é"),
        ("é".encode("utf-32"), None, "é"),
        ("é".encode("utf-16-le"), "utf-16", "é"),
        (b"a\x81\xff", "utf-8", "a\ufffdÿ"),
        (b"a", "klingon", "a"),
        (b"a", "base64", "a"),
        (b"a", "utf-8\0", "a"),
        # Names mean what browsers take them to mean.
        ("It’s a “test” – 5 €".encode("cp1252"), "iso-8859-1", "It’s a “test” – 5 €"),
        ("It’s".encode("cp1252"), "US-ASCII", "It’s"),
        ("中文邮件，镕".encode("gb18030"), "gb2312", "中文邮件，镕"),
        ("똠방각하".encode("cp949"), "EUC-KR", "똠방각하"),
        ("①ⅱ㈱".encode("cp932"), "x-sjis", "①ⅱ㈱"),
        ("İstanbul – ğ".encode("cp1254"), "ISO-8859-9", "İstanbul – ğ"),
        ("日本語 ﾃｽﾄ".encode("iso2022-jp-ext"), "iso-2022-jp", "日本語 ﾃｽﾄ"),
        ("中文".encode("hz"), "hz-gb-2312", "中文"),
        (b"\\ud800 \\x41", "raw_unicode_escape", "\\ud800 \\x41"),
        ("Köln".encode("utf-7"), "utf-7", "Köln"),
        (b"+2AA- a", "utf-7", "\ufffd a"),
        # UTF-8 is UTF-8 whatever is said, and a broken byte is one broken character.
        (GERMAN.encode(), "iso-8859-1", GERMAN),
        (GERMAN.encode(), "gb2312", GERMAN),
        (GERMAN.encode() + b" \xc3 cut", "utf-8", f"{GERMAN} \ufffd cut"),
        (GERMAN.encode() * 3 + b"\n\xfcber", None, f"{GERMAN * 3}\n\ufffdber"),
        ("日本語のテキスト".encode()[:-1], "shift_jis", "日本語のテキス\ufffd"),
        ("Köln".encode() + b" \xc3", None, "Köln \ufffd"),
        ("中文邮件".encode("gb18030") + b"\xff", "gbk", "中文邮件\ufffd"),
        # Text that is not UTF-8 at large is not UTF-8.
        ("Grüße".encode("cp1252"), "utf-8", "Grüße"),
        ("élève à Noël".encode("cp1252"), None, "élève à Noël"),
    ],
)
def test_bytes_are_decoded(raw: bytes, declared: str | None, text: str) -> None:
    assert decode(raw, declared) == text


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("ISO-8859-1", "cp1252"),
        ("x-gbk", "gb18030"),
        ("latin1", "cp1252"),
        ("ks_c_5601-1987", "cp949"),
        (" 'windows-1251' ", "cp1251"),
        ("x-mac-cyrillic", "mac-cyrillic"),
        ("unicode-1-1-utf-8", "utf-8"),
        ("x-user-defined", None),
        ("rot13", None),
        ("raw_unicode_escape", None),
        ("unicode-escape", None),
        ("undefined", None),
        ("idna", None),
        ("", None),
    ],
)
def test_names_of_encodings(label: str, name: str | None) -> None:
    assert encoding_named(label) == name


@pytest.mark.parametrize(
    ("name", "raw", "text"),
    [
        ("a.py", "# coding: latin-1\n'café'\n".encode("latin-1"), "# coding: latin-1\n'café'\n"),
        ("a.py", b"\xef\xbb\xbfx = 1\r\n", "x = 1\r\n"),
        ("a.txt", b"\xef\xbb\xbfcaf\xc3\xa9\r\n\x00", "café\r\n\x00"),
        ("a.txt", b"", ""),
        ("a.py", b"# coding: klingon\n", "# coding: klingon\n"),
        ("a.py", b"# coding: ascii\n# \xff", "# coding: ascii\n# ÿ"),
        ("a.py.gz", gzip.compress("# coding: koi8-r\n# да".encode("koi8-r"), mtime=0), "# coding: koi8-r\n# да"),
        ("a.txt", bz2.compress(b"text"), "text"),
        ("a.TXT.XZ", lzma.compress(b"text"), "text"),
        ("a.txt", b"\xff\xfea\x00", "a"),
    ],
)
def test_files_are_decoded(tmp_path: Path, name: str, raw: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(raw)
    assert read_text(tmp_path / name) == text


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.txt", bytes(range(256))),
        ("a.py", b"\x01\x02\x00"),
        ("a.txt", b"text\0" * 20),
    ],
)
def test_bytes_that_are_not_text_are_refused(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match="not text"):
        read_text(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read"):
        read_text(tmp_path / "missing")


def test_a_zero_byte_marks_a_binary_file() -> None:
    assert is_binary(b"\x7fELF\x00")
    assert not is_binary("text é".encode())


@pytest.mark.parametrize("name", ["data.txt", "model.py"])
def test_a_pointer_is_no_text(name: str) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(ValueError, match="pointer of Git LFS"):
        file_text(pointer, name)
    assert file_text(b"version https://example.org", name)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"{\\rtf1\\ansi{\\fonttbl\\f0 Helvetica;}Hello}", 'RTF, which kind = "office" reads'),
        (b"%PDF-1.3\n% ReportLab\n1 0 obj\n<< /F1 2 0 R >>\nendobj\n", 'PDF, which kind = "pdf" reads'),
        (b"%!PS-Adobe-3.0\n(Hello) show\n", "PostScript"),
        (b"PK\x03\x04word/document.xml", "office documents"),
    ],
)
def test_a_file_of_another_format_is_no_text(start: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        file_text(start, "a.txt")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Съешь ещё этих мягких французских булок, да выпей чаю. int x = 1; // проверка значения\n"),
        ("koi8-r", "Съешь ещё этих мягких французских булок, да выпей чаю. int x = 1; // проверка значения\n"),
        ("gb18030", "今天天气很好，我们去公园散步。天气很好，我们去公园。\n" * 2),
        ("shift-jis", "これは日本語のテストです。今日は天気がいい。カタカナのデータ。\n"),
        ("euc-kr", "이것은 한국어 시험 문서입니다. 오늘은 날씨가 좋습니다.\n"),
        ("cp1253", "Αυτό είναι ένα ελληνικό κείμενο για δοκιμή.\n"),
    ],
)
def test_a_file_in_an_unknown_encoding_is_refused(encoding: str, text: str) -> None:
    with pytest.raises(ValueError, match="its encoding is unknown: it is neither UTF-8 nor windows-1252"):
        file_text(text.encode(encoding), "a.txt")
    assert file_text(text.encode(), "a.txt") == text
    assert file_text(text.encode(encoding), "a.txt", encoding) == text


@pytest.mark.parametrize(
    "text",
    [
        "“Été” à Noël – Größe, þæð öllum, jäääär … ••••••••••••••••••••••••",
        "return s.replace(/[ÀÁÂÃÄÅàáâãäåÒÓÔÕÖØòóôõöøÈÉÊËèéêëÇçÌÍÎÏìíîïÙÚÛÜùúûüÿÑñ]/g, '')",
    ],
)
def test_text_in_windows_1252_is_read(text: str) -> None:
    assert file_text(text.encode("cp1252"), "a.js") == text
