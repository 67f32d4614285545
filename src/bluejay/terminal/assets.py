"""The data that the terminal editor and the page share: `assets/examples.json` and `assets/editor.json`."""

import json
from importlib import resources
from typing import Any


def read(name: str) -> Any:
    """An asset of the package."""
    return json.loads(resources.files("bluejay").joinpath("assets", name).read_text(encoding="utf-8"))


EXAMPLES: list[dict[str, Any]] = read("examples.json")
"""Prompts to try: title, watch_for (what to look at in the answer), settings, text."""
_EDITOR = read("editor.json")
PROBABILITY_THRESHOLDS: list[float] = _EDITOR["probability_thresholds"]
"""Probabilities below which the colour of a token deepens, in descending order."""
STOP_REASONS: dict[str, str] = _EDITOR["stop_reasons"]
"""Why a sample has ended, in words."""
LIMITS: str = _EDITOR["limits"]
"""What a user should know about the model's answers."""
