"""Bluejay: a language model from raw text to a served page, in one package."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluejay.infer.exceptions import (
        CacheError,
        ChatTemplateError,
        ContextLengthError,
        InferenceError,
        LogitsError,
        ModelClosedError,
        PromptError,
        TokenError,
    )
    from bluejay.infer.model import Model, load
    from bluejay.infer.params import SamplingParams
    from bluejay.infer.samples import Chunk
    from bluejay.infer.scoring import LogLikelihood, Score
    from bluejay.lens.activations import Lens
    from bluejay.pile.build import build

PUBLIC = {
    "CacheError": "bluejay.infer.exceptions",
    "ChatTemplateError": "bluejay.infer.exceptions",
    "Chunk": "bluejay.infer.samples",
    "ContextLengthError": "bluejay.infer.exceptions",
    "InferenceError": "bluejay.infer.exceptions",
    "Lens": "bluejay.lens.activations",
    "LogLikelihood": "bluejay.infer.scoring",
    "LogitsError": "bluejay.infer.exceptions",
    "Model": "bluejay.infer.model",
    "ModelClosedError": "bluejay.infer.exceptions",
    "PromptError": "bluejay.infer.exceptions",
    "SamplingParams": "bluejay.infer.params",
    "Score": "bluejay.infer.scoring",
    "TokenError": "bluejay.infer.exceptions",
    "build": "bluejay.pile.build",
    "load": "bluejay.infer.model",
}

__all__ = [
    "CacheError",
    "ChatTemplateError",
    "Chunk",
    "ContextLengthError",
    "InferenceError",
    "Lens",
    "LogLikelihood",
    "LogitsError",
    "Model",
    "ModelClosedError",
    "PromptError",
    "SamplingParams",
    "Score",
    "TokenError",
    "build",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `bluejay --help` need not wait for torch."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'bluejay' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The public names, those included that are imported on first use."""
    return sorted({*globals(), *__all__})
