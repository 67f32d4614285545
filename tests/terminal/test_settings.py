"""Settings as a line of text in the terminal, and as a link of the page."""

import pytest

from bluejay.infer.params import SamplingParams
from bluejay.terminal.settings import Settings, link_to, parse_link, parse_settings


@pytest.mark.parametrize("line", ["top_p", "topp=1", "top_p=much", "n=0", "logit_bias=65"])
def test_invalid_settings_are_refused(line):
    with pytest.raises(ValueError, match=r"one looks like|must"):
        parse_settings(line)


def test_a_count_that_is_not_whole_is_named():
    with pytest.raises(ValueError, match=r"max_tokens is '1.5'; it must be a whole number"):
        parse_settings("max_tokens=1.5")


@pytest.mark.parametrize(
    ("line", "stop"),
    [
        (r"stop=\n", "\n"),
        (r"stop=\n\n", "\n\n"),
        (r"'stop=a \n'", "a \n"),
        (r"stop=C:\dir", r"C:\dir"),
        (r'stop="a b\"', "a b\\"),
    ],
)
def test_a_backslash_in_settings_needs_no_quotes(line, stop):
    assert parse_settings(f"{line} top_k=5") == Settings(SamplingParams(stop=(stop,), top_k=5))


def test_settings_survive_their_line_and_their_link():
    params = SamplingParams(
        temperature=0.3,
        min_p=0.05,
        logit_bias={65: -100.0, 66: 1.5},
        n=4,
        seed=9,
        stop=("a b", "\n\n", "'", '"', "\\d '\"#"),
    )
    for settings in (Settings(), Settings(params, end_of_function=True)):
        assert parse_settings(str(settings)) == settings
        prompt = 'a "cat" & <b>\nשלום'
        assert parse_link(link_to(prompt, settings)) == (prompt, settings)
    with pytest.raises(ValueError, match="not a link of the page"):
        parse_link("http://127.0.0.1:8000/#n=1")
