"""Lines of plain text."""

import bz2
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluejay.pile.sources.io.lines import READ_BYTES, lines


@given(st.binary(max_size=300))
def test_lines_are_those_of_a_file(data: bytes) -> None:
    assert list(lines(io.BytesIO(b" " + data))) == list(io.BytesIO(b" " + data))


def test_long_and_compressed() -> None:
    data = b"a" * (READ_BYTES + 10) + b"\nb\r\nc"
    assert [len(line) for line in lines(io.BytesIO(bz2.compress(data)))] == [READ_BYTES + 11, 3, 1]
    reader = lines(io.BytesIO(gzip.compress(b"line\n" * 10)[:-8]))
    with pytest.raises(EOFError):
        assert [next(reader) for _ in range(11)]
