"""The settings of a run, as a line of text that the user edits and as a link that the page understands."""

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from bluejay.fields import Setting, settings_of
from bluejay.infer.params import SamplingParams

SAMPLING: dict[str, Setting] = {
    name: one for name, one in settings_of(SamplingParams).items() if name not in ("logprobs", "prompt_logprobs")
}
"""The sampling parameters that a user sets; the editor always asks for log-probabilities."""
PAGE_URL = "http://127.0.0.1:8000/"
"""The default address of the page of `bluejay serve`."""
LINK_NAMES = {"stop": "stop_before"}
"""Parameters that have another name in a link."""


@dataclass(frozen=True)
class Settings:
    """The settings of a run."""

    params: SamplingParams = field(default_factory=SamplingParams)
    end_of_function: bool = False
    """Whether generation also stops at the end of the function that is being written."""

    def __str__(self) -> str:
        """A line that `parse_settings` reads."""
        words = [f"{name}={text}" for name in SAMPLING for text in texts_of(self.params, name)]
        return shlex.join([*words, f"end_of_function={'on' if self.end_of_function else 'off'}"])


def texts_of(params: SamplingParams, name: str) -> list[str]:
    r"""The value of a parameter, or each of its items, as text; \n and \t stand for line breaks and tabs."""
    value, container = getattr(params, name), SAMPLING[name].container
    if container is dict:
        return [f"{token}={bias}" for token, bias in value.items()]
    if container is tuple:
        return [text.replace("\n", "\\n").replace("\t", "\\t") for text in value]
    return ["" if value is None else str(value)]


def params_from(texts: Mapping[str, Sequence[str]]) -> SamplingParams:
    """Parameters from their texts; an empty or missing text is the default. Raises ValueError."""
    values: dict[str, Any] = {}
    for name, found in texts.items():
        items, container = [value_from(name, text) for text in found if text], SAMPLING[name].container
        if items:
            values[name] = container(items) if container else items[-1]
    return SamplingParams(**values)


def value_from(name: str, text: str) -> Any:
    """The value, or the item of a value, in a text. Raises ValueError."""
    if SAMPLING[name].type is str:
        return text.replace("\\n", "\n").replace("\\t", "\t")
    try:
        return SAMPLING[name].type(text)
    except ValueError:
        number = "be a whole number" if SAMPLING[name].type is int else "be a number"
        form = "have the form TOKEN=NUMBER" if SAMPLING[name].container else number
        raise ValueError(f"{name} is {text!r}; it must {form}") from None


def parse_settings(line: str) -> Settings:
    """Settings from a line of name=value; those that it leaves out have their defaults. Raises ValueError."""
    texts: dict[str, list[str]] = defaultdict(list)
    words = shlex.shlex(line, posix=True)
    words.whitespace_split, words.commenters, words.escape = True, "", ""  # a backslash stands for itself
    for word in words:
        name, equals, text = word.partition("=")
        if name not in (*SAMPLING, "end_of_function") or not equals:
            raise ValueError(f"{word!r} is not a setting; one looks like top_p=0.9")
        texts[name].append(text)
    switch = texts.pop("end_of_function", ["off"])[-1]
    if switch not in ("on", "off"):
        raise ValueError(f"end_of_function is {switch!r}; it must be on or off")
    return Settings(params_from(texts), switch == "on")


def is_link(text: str) -> bool:
    """Whether a text is to be read as a link and not as settings."""
    return "#" in text and "prompt=" in text


def link_to(prompt: str, settings: Settings) -> str:
    """A link that opens the page, or this editor, with a prompt and settings."""
    values = {LINK_NAMES.get(name, name): "\n".join(texts_of(settings.params, name)) for name in SAMPLING}
    values |= {"end_of_function": str(settings.end_of_function).lower(), "prompt": prompt}
    return f"{PAGE_URL}#{urlencode(values)}"


def parse_link(link: str) -> tuple[str, Settings]:
    """The text and the settings in a link. Raises ValueError."""
    values: dict[str, str] = dict(parse_qsl(link.partition("#")[2], keep_blank_values=True))
    if "prompt" not in values:
        raise ValueError("this is not a link of the page: it has no prompt after a #")
    texts = {name: values.get(LINK_NAMES.get(name, name), "").split("\n") for name in SAMPLING}
    settings = Settings(params_from(texts), values.get("end_of_function") == "true")
    return values["prompt"] + values.get("answer", ""), settings
