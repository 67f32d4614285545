"""The layers that look back over a window only, as each family's `config.json` states them."""

from typing import Any

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.values import Values, flag, whole, wrong

MOST_LAYERS = 100_000
"""Layers of a model each of which is local or global."""
WINDOW = 4096
"""The window of Mistral and Qwen where `sliding_window` is missing; where it is null there is none."""
FIRST_LOCAL = 28
"""The first local layer of a Qwen where `max_window_layers` is missing."""
QWEN_WINDOW_KEYS = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")
"""Keys of `config.json` that `qwen_window` understands."""
LOCAL, GLOBAL = "sliding_attention", "full_attention"
"""Kinds of layers in `layer_types`."""
NO_WINDOW = "sliding_window is null"
"""Why a model that uses windows has none."""


def layers(values: Values, key: str) -> int:
    """The number of layers. Raises ValueError, naming the key, where they are too many to list."""
    n_layer = whole(values, key)
    if n_layer > MOST_LAYERS:
        raise ValueError(f"{key} is {n_layer}; bluejay reads at most {MOST_LAYERS}")
    return n_layer


def neo_locals(values: Values) -> Values:
    """GPT-Neo's local layers, from the list `attention_layers`, which counts where both are given, or from
    `attention_types`, in which [[["global", "local"], 6]] means six repetitions of the pair."""
    n_layer = layers(values, "num_layers")
    key = "attention_types" if values.get("attention_layers") is None else "attention_layers"
    given: Any = [[["global", "local"], 12]] if values.get(key) is None else values[key]
    kinds: list[Any] = []
    try:
        for pattern, times in given if key == "attention_types" else [(given, 1)]:
            if len(pattern) * times > n_layer - len(kinds):
                raise ValueError("they are too many")
            kinds += list(pattern) * times
    except (TypeError, ValueError):  # a number or a text in place of a list
        kinds = []
    if len(kinds) != n_layer or not all(kind in ("global", "local") for kind in kinds):
        raise ValueError(f"{key} must name global or local for each of {n_layer} layers")
    return {"local_layers": tuple(layer for layer, kind in enumerate(kinds) if kind == "local")}


def neo_types(config: GPTConfig) -> Values:
    """The inverse of `neo_locals`."""
    kinds = ["local" if layer in config.local_layers else "global" for layer in range(config.n_layer)]
    pairs = config.n_layer // 2
    types = [[kinds[:2], pairs]] if kinds == kinds[:2] * pairs else [[[kind], 1] for kind in kinds]
    return {"attention_types": types, "attention_layers": kinds}


def sliding_window(values: Values) -> int | None:
    """The window of Mistral and Qwen, in tokens; None if there is none. Raises ValueError for what is no number."""
    return None if values.get("sliding_window", WINDOW) is None else whole(values, "sliding_window", WINDOW)


def listed_layers(values: Values, n_layer: int, default: list[str], window: int | None, why: str) -> Values:
    """The window and the layers that have it, as `layer_types` lists them, or else `default`. Raises ValueError for a
    list that is none of these layers' kinds, or that names local layers where there is no window, which is `why`."""
    kinds: Any = default if values.get("layer_types") is None else values["layer_types"]
    if not isinstance(kinds, list) or len(kinds) != n_layer or any(kind not in (LOCAL, GLOBAL) for kind in kinds):
        raise ValueError(f"layer_types must name {GLOBAL} or {LOCAL} for each of {n_layer} layers")
    local = tuple(layer for layer, kind in enumerate(kinds) if kind == LOCAL)
    if local and window is None:
        raise ValueError(f"layer_types names {LOCAL}, but {why}, so those layers have no window")
    return {"window": window, "local_layers": local} if local else {}


def layer_types(config: GPTConfig) -> list[str]:
    """The inverse of `listed_layers`."""
    return [LOCAL if layer in config.local_layers else GLOBAL for layer in range(config.n_layer)]


def mistral_window(values: Values) -> Values:
    """Mistral's window, which all layers have unless `layer_types` lists which, as in Ministral."""
    window, n_layer = sliding_window(values), layers(values, "num_hidden_layers")
    return listed_layers(values, n_layer, [GLOBAL if window is None else LOCAL] * n_layer, window, NO_WINDOW)


def mistral_keys(config: GPTConfig) -> Values:
    """The inverse of `mistral_window`. With the list, transformers takes the model for a Ministral."""
    some = 0 < len(config.local_layers) < config.n_layer
    return {"sliding_window": config.window} | ({"layer_types": layer_types(config)} if some else {})


def qwen_window(values: Values) -> Values:
    """The window of Qwen2 and Qwen3, if `use_sliding_window` is true, in the layers that `layer_types` lists, or else
    in those from `max_window_layers` on. Raises ValueError, naming the key, for a list that is none of these layers'
    kinds."""
    used = values.get("use_sliding_window") is not None and flag(values, "use_sliding_window")
    window = sliding_window(values) if used else None
    n_layer = layers(values, "num_hidden_layers")
    first = FIRST_LOCAL if values.get("max_window_layers") is None else values["max_window_layers"]
    if type(first) is not int or first < 0:
        raise ValueError(wrong(values, "max_window_layers", "a whole number of at least 0"))
    default = [LOCAL if window is not None and layer >= first else GLOBAL for layer in range(n_layer)]
    return listed_layers(values, n_layer, default, window, NO_WINDOW if used else "use_sliding_window is not true")


def qwen_keys(config: GPTConfig) -> Values:
    """The inverse of `qwen_window`."""
    local = config.local_layers
    return {
        "use_sliding_window": bool(local),
        "sliding_window": config.window,
        "max_window_layers": min(local, default=config.n_layer),
        "layer_types": layer_types(config),
    }
