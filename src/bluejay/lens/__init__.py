"""A model -> its workings: activations by TransformerLens's names, and methods that explain a prediction with them."""

from importlib import import_module
from typing import Any

PUBLIC = {
    "Activations": "activations",
    "Attribution": "attribution",
    "Lens": "activations",
    "TunedLens": "layers",
    "attribute": "attribution",
    "features": "probes",
    "generate": "steering",
    "head_card": "cards",
    "head_curve": "patching",
    "head_edits": "patching",
    "head_scores": "heads",
    "heads_over_training": "heads",
    "induction_prompts": "patching",
    "logit_lens": "layers",
    "look": "prediction",
    "neuron_card": "cards",
    "pair_of": "patching",
    "passages": "cards",
    "patch": "patching",
    "patch_heads": "patching",
    "patterns": "heads",
    "probe": "probes",
    "repeat_gain": "heads",
    "steer": "steering",
    "steering_cost": "steering",
    "steering_vector": "steering",
    "tune": "layers",
    "without_tokens": "ablation",
}
"""Each public name and its module."""


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'bluejay.lens' has no attribute {name!r}")
    return getattr(import_module(f"bluejay.lens.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*globals(), *PUBLIC})
