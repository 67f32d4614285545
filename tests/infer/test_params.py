"""Sampling parameters are taken in the forms in which people give them, and refused in one sentence."""

import pytest

from bluejay.infer.params import SamplingParams, changed


def test_stop_is_a_string_or_several():
    assert SamplingParams(stop="END") == SamplingParams(stop=("END",))
    assert SamplingParams(stop="a b\n").stop == ("a b\n",)
    assert SamplingParams(stop=("a", "b")).stop == ("a", "b") and SamplingParams().stop == ()
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b") and SamplingParams(stop=[]).stop == ()


@pytest.mark.parametrize("stop", ["", ("a", ""), ["a", ""]])
def test_empty_stop_is_refused(stop):
    with pytest.raises(ValueError, match=r"^stop holds an empty string"):
        SamplingParams(stop=stop)


def test_a_number_past_the_range_of_floats_is_refused_as_one_past_its_own():
    for value in (10**400, -(10**400)):
        with pytest.raises(ValueError, match=r"^temperature is -?inf; it must be between 0 and 2"):
            changed(None, {"temperature": value})
