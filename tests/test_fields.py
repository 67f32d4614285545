"""Settings are declared once: options, ranges and help come from the fields of a dataclass."""

import argparse
import math
from dataclasses import dataclass, fields

import pytest

from bluejay.cli import parser
from bluejay.fields import add_options, check_ranges, given, setting, settings_of
from bluejay.infer.params import SamplingParams
from bluejay.serve.api.chat import ChatRequest
from bluejay.serve.api.completions import CompletionRequest
from bluejay.serve.settings import PublicSettings, ServeSettings


@dataclass(frozen=True)
class Example:
    share: float = setting(0.5, 0, 1)
    """How much
    of it."""
    names: tuple[str, ...] = ()
    """Who takes part."""
    quiet: bool = False
    """Say nothing."""

    def __post_init__(self) -> None:
        check_ranges(self)


def test_only_options_that_are_given_are_in_the_result():
    parser = argparse.ArgumentParser()
    add_options(parser, Example)
    assert given(parser.parse_args([]), Example) == {}
    parsed = parser.parse_args(["--share", "1", "--names", "a", "--names", "b", "--quiet"])
    assert given(parsed, Example) == {"share": 1.0, "names": ("a", "b"), "quiet": True}
    assert "how much of it (default: 0.5)" in " ".join(parser.format_help().split())


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_value_outside_the_range_is_refused_with_the_range(value):
    with pytest.raises(ValueError, match=r"share is .*; it must be between 0 and 1"):
        Example(value)


@pytest.mark.parametrize("kind", [SamplingParams, ServeSettings, PublicSettings])
def test_every_setting_has_a_help(kind):
    assert all(settings_of(kind)[field.name].help for field in fields(kind))


def test_every_sampling_parameter_is_an_option_and_a_parameter_of_the_api():
    names = settings_of(SamplingParams).keys() - {"prompt_logprobs"}  # which the API calls echo
    assert names <= CompletionRequest.model_fields.keys() & ChatRequest.model_fields.keys()
    flags = {name: f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}" for name in names - {"logprobs"}}
    values = {"logit_bias": "5=1", "stop": "x"}
    options = [f"{flag}={values.get(name, 1)}" if len(name) > 1 else f"{flag}1" for name, flag in flags.items()]
    assert given(parser().parse_args(["generate", "model", "prompt", *options]), SamplingParams).keys() == flags.keys()


def every_option(parser: argparse.ArgumentParser):
    """The options of a parser and of all verbs below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from every_option(verb)
        else:
            yield action


def test_options_that_count_say_their_least_number():
    negative = {"--position", "--layer"}  # count from the end
    kinds = (SamplingParams, ServeSettings, PublicSettings)  # have their ranges beside their fields
    declared = {f"--{name.replace('_', '-')}" for kind in kinds for name in settings_of(kind)}
    others = {name for one in every_option(parser()) if one.type is int for name in one.option_strings}
    assert others <= negative | declared | {"-n", "--processes"}  # checked with --hosts


@pytest.mark.parametrize("value", ["0", "-3", "2.5", "many"])
def test_a_number_below_the_least_is_refused_in_a_sentence(value, capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["trace", "data/quickstart", "the", f"--documents={value}"])
    assert f"--documents: it is {value}; it must be a whole number of at least 1" in capsys.readouterr().err
