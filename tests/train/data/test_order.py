"""The order of the data can be asked both ways: which sequence is read when, and when a sequence is read."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.train.data.order import BLOCK_SIZES, Order, permute, phases, unpermute
from bluejay.train.recipe import Mixture


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 50))
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(i, size, key) for i in range(size)) == list(range(size))


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 50))
def test_unpermute_is_its_inverse(size, key):
    assert [unpermute(permute(i, size, key, "part"), size, key, "part") for i in range(0, size, 7)] == [
        *range(0, size, 7)
    ]


MIXTURES = [
    (Mixture("a"),),
    (Mixture("a", 3.0), Mixture("b", 1.0)),
    (Mixture("a", 1.0), Mixture("b", 9.0)),
    (Mixture("a", 1.0, ((0.3, 5.0), (0.9, 0.0))), Mixture("b", 1.0, ((0.5, 0.0), (0.8, 2.0)))),
]


@pytest.mark.parametrize("mixture", MIXTURES, ids=["one set", "two sets", "a larger block", "weights that change"])
@pytest.mark.parametrize("end", [1, 700, BLOCK_SIZES[0], 4000])
def test_numbers_are_all_times_at_which_a_sequence_is_read(mixture, end):
    order = Order((37, 501)[: len(mixture)], tuple(phases(mixture, 3500)), seed=7)
    read = defaultdict(list)
    for number in range(end):
        read[order.place(number)].append(number)
    for part, size in enumerate(order.sizes):
        for window in range(size):
            assert order.numbers(part, window, end) == read[part, window]
