"""Sampling parameters are taken in the forms in which people give them, and refused in one sentence."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from bluejay.infer.params import SamplingParams, changed


def test_stop_is_a_string_or_several():
    assert SamplingParams(stop="END") == SamplingParams(stop=("END",))
    assert SamplingParams(stop="a b\n").stop == ("a b\n",)
    assert SamplingParams(stop=("a", "b")).stop == ("a", "b") and SamplingParams().stop == ()
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b") and SamplingParams(stop=[]).stop == ()


def test_stop_may_be_an_iterator_which_is_read_once():
    assert SamplingParams(stop=(text for text in "ab")).stop == ("a", "b")
    assert changed(None, {"stop": map(str, [1, 2])}).stop == ("1", "2")
    with pytest.raises(ValueError, match=r"^stop is 5; it must be a string or a list of strings"):
        SamplingParams(stop=5)


@pytest.mark.parametrize("value", [5, "no"])
def test_a_setting_that_is_on_or_off_is_no_number_and_no_text(value):
    with pytest.raises(ValueError, match=rf"^prompt_logprobs is {value!r}; it must be True or False"):
        changed(None, {"prompt_logprobs": value})


@pytest.mark.parametrize("name", ["stop", "logit_bias"])
def test_none_is_no_stop_and_no_bias(name):
    assert SamplingParams(**{name: None}) == changed(None, {name: None}) == SamplingParams()
    given = {"stop": "END"} if name == "stop" else {"logit_bias": {5: 1.0}}
    assert changed(SamplingParams(**given), {name: None}) == SamplingParams()


@pytest.mark.parametrize("stop", ["", ("a", ""), ["a", ""]])
def test_empty_stop_is_refused(stop):
    with pytest.raises(ValueError, match=r"^stop holds an empty string"):
        SamplingParams(stop=stop)


def test_a_number_past_the_range_of_floats_is_refused_as_one_past_its_own():
    for value in (10**400, -(10**400)):
        with pytest.raises(ValueError, match=r"^temperature is -?inf; it must be between 0 and 2"):
            changed(None, {"temperature": value})


@pytest.mark.parametrize(
    ("bias", "says"),
    [
        ([5], r"logit_bias is \[5\]; it must map token ids to numbers"),
        ({1.5: 1}, "a token id in logit_bias is 1.5; it must be a whole number"),
        ({"5": 1}, "a token id in logit_bias is '5'; it must be a whole number"),
        ({5: "x"}, "a value in logit_bias is 'x'; it must be a number"),
        ({5: float("nan")}, "logit_bias holds a value that is not between -100 and 100"),
    ],
    ids=str,
)
def test_a_logit_bias_that_is_none_is_refused(bias, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        changed(None, {"logit_bias": bias})


def test_the_numbers_of_a_logit_bias_may_be_numpys():
    params = changed(None, {"logit_bias": {np.int64(5): np.float32(1.5)}})
    assert params == SamplingParams(logit_bias={5: 1.5}) and params != SamplingParams()


def test_the_page_about_python_has_every_parameter():
    page = (Path(__file__).parents[2] / "docs/python.md").read_text(encoding="utf-8")
    table = page.partition("`SamplingParams`](")[2].partition("\n\n`bluejay generate`")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall("`(.*?)`", row)]
    assert sorted(named) == sorted(field.name for field in fields(SamplingParams))


def test_the_least_number_of_tokens_is_the_one_that_is_taken():
    for given in ({"max_tokens": -3}, {"max_tokens": 0}):
        with pytest.raises(ValueError, match=rf"^max_tokens is {given['max_tokens']}; it must be at least 1$"):
            SamplingParams(**given)
    with pytest.raises(ValueError, match=r"^max_tokens is -3; it must be at least 0$"):
        SamplingParams(max_tokens=-3, prompt_logprobs=True)
    assert SamplingParams(max_tokens=1).max_tokens == 1
    assert SamplingParams(max_tokens=0, prompt_logprobs=True).max_tokens == 0
