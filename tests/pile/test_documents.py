"""Files are decoded to text, or refused."""

from pathlib import Path

import pytest

from bluejay.pile.documents import is_binary, read_text


@pytest.mark.parametrize(
    ("name", "raw", "text"),
    [
        ("a.py", "# coding: latin-1\n'café'\n".encode("latin-1"), "# coding: latin-1\n'café'\n"),
        ("a.py", b"\xef\xbb\xbfx = 1\r\n", "x = 1\r\n"),
        ("a.txt", b"\xef\xbb\xbfcaf\xc3\xa9\r\n\x00", "café\r\n\x00"),
        ("a.txt", b"", ""),
    ],
)
def test_files_are_decoded(tmp_path: Path, name: str, raw: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(raw)
    assert read_text(tmp_path / name) == text


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.py", b"# coding: klingon\n"),
        ("a.py", b"# coding: ascii\n\xff"),
        ("a.py", b"# coding: rot13\n"),
        ("a.txt", b"\xff\xfea\x00"),
        ("a.txt", b"\xed\xa0\x80"),
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
