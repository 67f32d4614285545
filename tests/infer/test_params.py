"""Sampling parameters are taken in the forms in which people give them, and refused in one sentence."""

import pytest

from bluejay.infer.params import SamplingParams


def test_stop_is_a_string_or_several():
    assert SamplingParams(stop="END") == SamplingParams(stop=("END",)) == SamplingParams(stop=["END"])
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize(
    ("stop", "reason"),
    [("", "an empty string"), (["a", ""], "an empty string"), (5, "a string or a list"), ([5], "a string or a list")],
)
def test_any_other_stop_is_refused(stop, reason):
    with pytest.raises(ValueError, match=rf"^stop .*{reason}"):
        SamplingParams(stop=stop)
