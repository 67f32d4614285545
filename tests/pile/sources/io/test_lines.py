"""Lines of plain text."""

import bz2
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluejay.pile.sources.io import lines as long_files
from bluejay.pile.sources.io.lines import READ_BYTES, lines


def test_a_line_without_end_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_files, "MAX_DOCUMENT_BYTES", 2 * READ_BYTES)
    data = b"a" * (5 * READ_BYTES) + b"\nb\n"
    found = list(lines(io.BytesIO(data)))
    assert b"".join(found) == data and found[-1] == b"b\n"
    assert max(map(len, found)) <= 3 * READ_BYTES


@given(st.binary(max_size=300))
def test_lines_are_those_of_a_file(data: bytes) -> None:
    written = b" " + data
    if b"\n" not in data and b"\r" in data[:-1]:
        assert [line.rstrip(b"\r") for line in lines(io.BytesIO(written))] == written.removesuffix(b"\r").split(b"\r")
        assert b"".join(lines(io.BytesIO(written))) == written
    else:
        assert list(lines(io.BytesIO(written))) == list(io.BytesIO(written))


def test_long_and_compressed() -> None:
    data = b"a" * (READ_BYTES + 10) + b"\nb\r\nc"
    assert [len(line) for line in lines(io.BytesIO(bz2.compress(data)))] == [READ_BYTES + 11, 3, 1]
    reader = lines(io.BytesIO(gzip.compress(b"line\n" * 10)[:-8]))
    with pytest.raises(EOFError):
        assert [next(reader) for _ in range(11)]
