"""The sampling parameters. This module does not import torch, so that `bluejay --help` is fast."""

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from bluejay.fields import check_ranges, setting


@dataclass(frozen=True)
class SamplingParams:
    """How to continue one prompt. Raises ValueError for a value outside its range."""

    max_tokens: int = setting(128, 0)
    """Tokens to generate at most; fewer where the context fills up first."""
    temperature: float = setting(0.8, 0, 2)
    """Divides the logits; 0 always takes the likeliest token (greedy decoding)."""
    top_p: float = setting(0.9, 0, 1)
    """Keep the smallest set of likeliest tokens whose probabilities sum to this (Holtzman et al., section 3.1)."""
    top_k: int = setting(0, 0, None, "0, which keeps all")
    """Keep this many of the likeliest tokens."""
    min_p: float = setting(0.0, 0, 1)
    """Keep the tokens at least this many times as likely as the likeliest one (Nguyen et al., section 3)."""
    typical_p: float = setting(1.0, 0, 1)
    """Keep the tokens of most typical surprise whose probabilities sum to this (Meister et al., section 3.2)."""
    presence_penalty: float = setting(0.0, -2, 2)
    """Subtracted once from the logit of every token that has been generated."""
    frequency_penalty: float = setting(0.0, -2, 2)
    """Subtracted from the logit of a token for every time it has been generated."""
    repetition_penalty: float = setting(1.0, 0.01, 100)  # past these a logit may overflow
    """Divides positive logits of tokens in the prompt or the answer, multiplies negative ones (CTRL, section 4.1)."""
    logit_bias: Mapping[int, float] | None = field(default_factory=lambda: MappingProxyType({}))
    """Added to the logits of single tokens, which are given by their ids; between -100 and 100."""
    logprobs: int | None = setting(None, 0)
    """Report the log-probability of every generated token, and of this many of the likeliest alternatives."""
    prompt_logprobs: bool = False
    """Report log-probabilities for the tokens of the prompt, too; max_tokens may then be 0."""
    seed: int | None = setting(None, -(2**63), 2**63 - 1, "a new one each time")
    """Seed of the random numbers: the same seed gives the same text."""
    stop: tuple[str, ...] | list[str] | str | None = ()
    """Strings before which generation ends; none of them is part of the answer."""
    n: int = setting(1, 1)
    """Samples of the same prompt; sample i is drawn with seed + i."""

    def __post_init__(self) -> None:
        for name, kind in NUMBERS.items():
            object.__setattr__(self, name, as_number(name, kind, getattr(self, name)))
        if self.max_tokens < 1 and not self.prompt_logprobs:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        check_ranges(self)
        stop = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else self.stop
        stop = tuple(stop) if isinstance(stop, Iterable) else (stop,)
        if not all(isinstance(text, str) for text in stop):
            raise ValueError(f"stop is {self.stop!r}; it must be a string or a list of strings")
        object.__setattr__(self, "stop", stop)
        if self.prompt_logprobs not in (True, False, None):
            given = f"prompt_logprobs is {self.prompt_logprobs!r}"
            raise ValueError(f"{given}; it must be True or False; logprobs is the number of alternatives")
        biases = {} if self.logit_bias is None else as_biases(self.logit_bias)
        object.__setattr__(self, "logit_bias", biases)
        if not all(-100 <= bias <= 100 for bias in biases.values()):
            raise ValueError("logit_bias holds a value that is not between -100 and 100")
        if "" in stop:
            raise ValueError("stop holds an empty string, which would end every answer at once")


NUMBERS: Mapping[str, type[int] | type[float]] = {
    one.name: float if one.type is float else int for one in fields(SamplingParams) if "low" in one.metadata
}
"""Parameter -> whether it is a whole number."""
TRANSFORMERS = {"max_new_tokens": "max_tokens", "num_return_sequences": "n", "stop_strings": "stop"}
"""What transformers calls a parameter -> its name here, which is vLLM's."""
OPTIONAL = ("logprobs", "seed")
"""Numbers that may be None."""


def as_number(name: str, kind: type[int] | type[float], value: Any) -> Any:
    """The value of a parameter as Python's int or float; numpy's numbers are welcome. Raises ValueError for others."""
    if value is None and name in OPTIONAL:
        return None
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # a whole number past a float's range, which no parameter's range holds
            return math.inf if value == abs(value) else -math.inf
    raise ValueError(f"{name} is {value!r}; it must be a {'whole ' if kind is int else ''}number")


def as_biases(value: Any) -> dict[int, float]:
    """The value of `logit_bias` with Python's numbers. Raises ValueError if it maps anything but ids to numbers."""
    if not isinstance(value, Mapping):
        raise ValueError(f"logit_bias is {value!r}; it must map token ids to numbers")
    return {
        as_number("a token id in logit_bias", int, id): as_number("a value in logit_bias", float, bias)
        for id, bias in value.items()
    }


def changed(params: SamplingParams | None, settings: Mapping[str, Any]) -> SamplingParams:
    """Parameters with some fields changed. Raises TypeError for a field that does not exist, ValueError for a value
    outside its range."""
    names = [field.name for field in fields(SamplingParams)]
    for name in settings:
        if name == "do_sample":
            raise TypeError("there is no parameter do_sample; temperature=0 is greedy, any other temperature samples")
        if name not in names:
            near = TRANSFORMERS.get(name) or next(iter(difflib.get_close_matches(name, names, 1)), None)
            raise TypeError(f"there is no parameter {name}" + (f"; did you mean {near}?" if near else ""))
    if params is not None and not isinstance(params, SamplingParams):
        raise TypeError(f"the parameters are {params!r}; they must be SamplingParams, or keywords such as max_tokens=8")
    values = {
        name: as_number(name, NUMBERS[name], value) if name in NUMBERS else value for name, value in settings.items()
    }
    if values.get("logit_bias") is not None:
        values["logit_bias"] = as_biases(values["logit_bias"])
    return replace(params or SamplingParams(), **values)
