"""The order of the data can be asked both ways: which sequence is read when, and when a sequence is read."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.native import native
from bluejay.train.data.order import BLOCK_SIZES, Order, permute, phases
from bluejay.train.recipe import Mixture

needs_native = pytest.mark.skipif(not hasattr(native, "first_rows"), reason="built without the native part")


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 50))
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(i, size, key) for i in range(size)) == list(range(size))


@settings(deadline=None)
@needs_native
@given(st.integers(1, 3000), st.integers(-9, 2**70), st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
def test_unpermute_is_its_inverse(size, seed, numbers):
    indices = np.array([*range(0, size, 7)] * len(numbers))
    of = np.repeat(numbers, len(indices) // len(numbers))
    images = [permute(i, size, seed, number, "block") for i, number in zip(indices.tolist(), of.tolist(), strict=True)]
    assert native.unpermute(np.array(images), size, f"({seed}, ", of, ", 'block')").tolist() == indices.tolist()


@needs_native
def test_a_key_may_be_longer_than_a_block_of_the_hash():
    for seed in (10**90, 10**115, 10**127, 10**300):
        images = np.array([permute(i, 50, seed, 3, 1) for i in range(50)])
        assert native.unpermute(images, 50, f"({seed}, ", np.full(50, 3), ", 1)").tolist() == list(range(50))


MIXTURES = [
    (Mixture("a"),),
    (Mixture("a", 3.0), Mixture("b", 1.0)),
    (Mixture("a", 1.0), Mixture("b", 9.0)),
    (Mixture("a", 1.0, ((0.3, 5.0), (0.9, 0.0))), Mixture("b", 1.0, ((0.5, 0.0), (0.8, 2.0)))),
]


@needs_native
@pytest.mark.parametrize("mixture", MIXTURES, ids=["one set", "two sets", "a larger block", "weights that change"])
@pytest.mark.parametrize("end", [1, 700, BLOCK_SIZES[0], 4000])
def test_numbers_are_all_times_at_which_a_sequence_is_read(mixture, end):
    order = Order((37, 501)[: len(mixture)], tuple(phases(mixture, 3500)), seed=7)
    read = defaultdict(list)
    for number in range(end):
        read[order.place(number)].append(number)
    for part, size in enumerate(order.sizes):
        which, numbers = order.numbers(part, np.arange(size), end)
        found = sorted(zip(which.tolist(), numbers.tolist(), strict=True))
        assert found == [(window, number) for window in range(size) for number in read[part, window]]
