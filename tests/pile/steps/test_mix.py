"""Shares, copies and order follow the recipe, and are functions of the text and the seed."""

import numpy as np
import pytest

from bluejay.pile.recipe import Component, Mix, Split
from bluejay.pile.sources.code.stdlib import Stdlib
from bluejay.pile.steps.mix import copies_of, epochs_of, shuffle_keys, split_of

HASHES = np.arange(20_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def component(name: str, **fields: float) -> Component:
    return Component(name, (Stdlib("stdlib"),), **fields)


def test_the_split_has_the_shares_asked_for() -> None:
    parts = np.bincount(split_of(HASHES, Split(valid=0.1, test=0.2), seed=1)) / len(HASHES)
    assert parts == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
    assert (split_of(HASHES, Split(0.1, 0.2), 1) != split_of(HASHES, Split(0.1, 0.2), 2)).any()


@pytest.mark.parametrize("epochs", [0.3, 1.0, 2.5])
def test_epochs_hold_on_average(epochs: float) -> None:
    copies = copies_of(HASHES, epochs, seed=1)
    assert set(copies.tolist()) <= {int(epochs), int(epochs) + 1}
    assert copies.mean() == pytest.approx(epochs, abs=0.01)


def test_order_is_random_and_different_for_each_copy() -> None:
    first, second = (np.argsort(shuffle_keys(HASHES, copy, seed=1)) for copy in (0, 1))
    for order in (first, second):
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.03
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert len(np.unique(shuffle_keys(HASHES, 0, seed=1))) == len(HASHES)


def test_epochs_follow_from_temperature_and_weights() -> None:
    large, small = component("large"), component("small")
    sizes = {"large": 900, "small": 100}
    assert epochs_of([large, small], sizes, Mix()) == {"large": 1.0, "small": 1.0}
    warm = epochs_of([large, small], sizes, Mix(temperature=2.0))
    assert warm == pytest.approx({"large": 1.0, "small": 3.0})
    assert warm["small"] * 100 / (warm["large"] * 900) == pytest.approx((100 / 900) ** 0.5)
    assert epochs_of([large, small], sizes, Mix(temperature=9.0))["small"] == 4.0
    even = [component("large", weight=1.0), component("small", weight=1.0)]
    assert epochs_of(even, sizes, Mix(most_epochs=10.0)) == pytest.approx({"large": 1.0, "small": 9.0})
    assert epochs_of([component("large", epochs=0.5), small], sizes, Mix()) == {"large": 0.5, "small": 1.0}
