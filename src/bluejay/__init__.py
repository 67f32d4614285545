"""Bluejay: a language model from raw text to a served page, in one package."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluejay.infer.model import Model, load
    from bluejay.infer.params import SamplingParams
    from bluejay.pile.build import build
    from bluejay.train.loop import train

PUBLIC = {
    "load": "bluejay.infer.model",
    "Model": "bluejay.infer.model",
    "SamplingParams": "bluejay.infer.params",
    "build": "bluejay.pile.build",
    "train": "bluejay.train.loop",
}

__all__ = ["Model", "SamplingParams", "build", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `bluejay --help` need not wait for torch."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'bluejay' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
