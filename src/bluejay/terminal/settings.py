"""What a run is asked for, as a line that people edit, and as the link that the page understands."""

import shlex
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import parse_qsl, urlencode

from bluejay.infer.sampling import SamplingParams

NUMBERS = (
    *("top_p", "temperature", "max_tokens", "top_k", "n", "seed", "min_p", "typical_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)
LINKED = tuple(name for name in NUMBERS if name not in ("min_p", "typical_p"))
"""Those that the page has, too."""
KINDS: dict[str, Any] = {
    one.name: int if isinstance(one.default, int) or one.name == "seed" else float for one in fields(SamplingParams)
}
PAGE = "http://127.0.0.1:8000/"
"""Where `bluejay serve` has the page."""


@dataclass(frozen=True)
class Settings:
    """How a run goes."""

    params: SamplingParams = field(default_factory=SamplingParams)
    end_of_function: bool = False
    """Whether a text also ends where its function does."""

    def __str__(self) -> str:
        """A line that `parse` reads."""
        values = [f"{name}={'' if (v := getattr(self.params, name)) is None else v}" for name in NUMBERS]
        switch = f"end_of_function={'on' if self.end_of_function else 'off'}"
        return " ".join([*values, switch, *(shlex.quote(f"stop={escaped(stop)}") for stop in self.params.stop)])


def parse(line: str) -> Settings:
    """Settings from a line of name=value; what it leaves out has its default. Raises ValueError."""
    values: dict[str, Any] = {"stop": ()}
    end_of_function = False
    for word in shlex.split(line):
        name, equals, value = word.partition("=")
        if name not in (*NUMBERS, "stop", "end_of_function") or not equals:
            raise ValueError(f"{word!r} is no setting; one looks like top_p=0.9")
        if name == "stop":
            values["stop"] += (unescaped(value),) if value else ()
        elif name == "end_of_function":
            if value not in ("on", "off"):
                raise ValueError(f"end_of_function is {value!r}; it must be on or off")
            end_of_function = value == "on"
        elif value:
            values[name] = number(name, value)
    return Settings(SamplingParams(**values), end_of_function)


def number(name: str, value: str) -> int | float:
    """The value of a setting. Raises ValueError."""
    try:
        return KINDS[name](value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}; it must be a number") from None


def escaped(stop: str) -> str:
    r"""A stop sequence with \n and \t for what would break its line."""
    return stop.replace("\n", "\\n").replace("\t", "\\t")


def unescaped(stop: str) -> str:
    """What was escaped."""
    return stop.replace("\\n", "\n").replace("\\t", "\t")


def link_to(prompt: str, settings: Settings) -> str:
    """A link that brings a prompt and settings to the page, or back here."""
    params = settings.params
    values = {name: getattr(params, name) for name in LINKED}
    values["seed"] = "" if params.seed is None else params.seed
    values["stop_before"] = "\n".join(map(escaped, params.stop))
    values["end_of_function"] = str(settings.end_of_function).lower()
    return f"{PAGE}#{urlencode(values | {'prompt': prompt})}"


def linked(link: str) -> tuple[str, Settings]:
    """The prompt and the settings that a link of the page carries. Raises ValueError."""
    values: dict[str, str] = dict(parse_qsl(link.partition("#")[2], keep_blank_values=True))
    if "prompt" not in values:
        raise ValueError("this is no link of the page, which would carry a prompt behind its #")
    numbers: dict[str, Any] = {name: number(name, values[name]) for name in LINKED if values.get(name)}
    stop = tuple(unescaped(line) for line in values.get("stop_before", "").split("\n") if line)
    settings = Settings(SamplingParams(**numbers, stop=stop), values.get("end_of_function") == "true")
    return values["prompt"] + values.get("answer", ""), settings
