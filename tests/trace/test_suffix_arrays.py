"""The suffix array of any text is the order of its suffixes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluejay.native import native

TEXTS = st.one_of(
    st.lists(st.integers(0, 1), max_size=80),
    st.lists(st.integers(0, 40), max_size=80),
    st.tuples(st.lists(st.integers(0, 3), max_size=9), st.integers(1, 30)).map(lambda pair: pair[0] * pair[1]),
)


@given(TEXTS)
@pytest.mark.parametrize("kind", ["16", "32"])
def test_the_suffixes_are_in_order(kind, text):
    order = np.empty(len(text), np.int32)
    symbols = np.array(text, np.uint16 if kind == "16" else np.int32)
    getattr(native, f"sort_suffixes_{kind}")(symbols, order, 41)
    assert order.tolist() == sorted(range(len(text)), key=lambda place: text[place:])


def test_a_symbol_that_is_not_below_k_is_refused():
    with pytest.raises(ValueError, match="not below k"):
        native.sort_suffixes_16(np.array([3], np.uint16), np.empty(1, np.int32), 3)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(9, 31))
def test_packed_entries_are_bits_one_after_another(sizes, bits):
    ends = np.cumsum(sizes) - 1
    n = int(ends[-1]) + 1
    order = np.array([*ends, *(place for place in range(n) if place not in set(ends.tolist()))], np.int32)
    n_bytes = native.pack_suffixes(order, ends, bits)
    number = int.from_bytes(order.view(np.uint8)[:n_bytes].tobytes(), "little")
    assert n_bytes == -(-(n - len(ends)) * bits // 8)
    assert [number >> bits * i & (1 << bits) - 1 for i in range(n - len(ends))] == list(range(n - len(ends)))
