"""The memory that a model takes while it is served, from its files alone, before any weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.hub import ADAPTER_CONFIG
from bluejay.gpt.formats.layouts import is_hugging_face
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.infer.backends.native import Cache, NativeBackend, chosen, page_bytes
from bluejay.infer.backends.torch import PAGE_SIZE, attention_block
from bluejay.infer.cache import pages_of_all
from bluejay.infer.scoring import PAGE, PAGES_PER_STEP, TOKENS_PER_STEP
from bluejay.infer.weights import LEAST_CACHE, native_takes, token_bytes

MODEL, READING, INSIDE = "model", "reading", "inside"
"""What of a model can be in memory: weights and cache; the cache that embeddings are read with; the lens."""
TOKEN_BYTES = 1500
"""Bytes of a tokenizer for each token of its vocabulary, those of its tables in Python included."""
FIXED_BYTES = 16_000_000
"""Bytes of all that does not depend on the model's size, such as its thread."""


@dataclass(frozen=True)
class Needs:
    """Bytes of memory, at most."""

    weights: int
    """Weights in the form that computes, and their files as far as these stay mapped."""
    cache: int
    """Keys and values."""
    cache_tokens: int
    """Tokens that these are of: those of as many samples as run at a time, each as long as the context, or fewer."""
    work: int
    """The tokenizer, and the activations of a step."""
    parts: Mapping[str, int]
    """What is added when it is first asked for: READING, INSIDE."""

    @property
    def of(self) -> dict[str, int]:
        """The bytes of each part: MODEL, READING, INSIDE."""
        return {MODEL: self.weights + self.cache + self.work, **self.parts}

    def within(self, n_bytes: int, share: float) -> "Needs | None":
        """The same where the model fits into so many bytes, else with a cache that takes a `share` of what is left of
        them beside the rest; None where that is too little for a text."""
        if (left := n_bytes - self.weights - self.work) >= self.cache:
            return self
        cache = int(share * max(0, left))
        n_tokens = self.cache_tokens * cache // self.cache
        n_tokens -= n_tokens % LEAST_CACHE  # whole pages of each backend
        return replace(self, cache=cache, cache_tokens=n_tokens) if n_tokens else None


def needs_of(
    stored: StoredModel, path: Path, vocab_size: int, device: torch.device, n_sequences: int, n_ctx: int
) -> Needs:
    """What a model takes that is stored at `path` and is served on `device` to `n_sequences` samples of `n_ctx` tokens
    at a time."""
    config, n = stored.config, stored.config.n_parameters
    on_cpu = device.type == "cpu"
    native = on_cpu and chosen() is not None
    if stored.packed is not None and (native or not on_cpu):
        dtype, weights = torch.bfloat16, stored.n_bytes
    else:
        dtype = torch.bfloat16 if stored.packed else stored.dtype or torch.float32
        native = native and (native_takes(stored, device) if stored.dtype is None else dtype != torch.float16)
        module = n * dtype.itemsize
        # The native engine's form is a second copy. The file is a further one while its weights are converted.
        stays_mapped = on_cpu and is_plain_directory(path) and stored.dtype is not None and stored.packed is None
        converting = 0 if stays_mapped or not on_cpu else stored.n_bytes
        weights = module + (max(module, converting) if native else converting)

    def cache(lengths: list[int]) -> int:
        return cache_bytes(config, lengths, dtype, native and stored.packed is None, native, device)

    # float32 of the hidden states, of the MLP and of the logits in a step.
    step = 4 * (TOKENS_PER_STEP * (8 * config.d_model + 3 * config.d_hidden) + 2 * n_sequences * config.vocab_size)
    parts = {READING: cache([max(n_ctx, PAGES_PER_STEP * PAGE)]), INSIDE: inside_bytes(config)}
    work = FIXED_BYTES + TOKEN_BYTES * max(vocab_size, config.vocab_size) + step
    return Needs(weights, cache([n_ctx] * n_sequences), n_ctx * n_sequences, work, parts)


def is_plain_directory(path: Path) -> bool:
    """Whether weights can stay mapped from their files: those of a directory in the Hugging Face layout."""
    return path.is_dir() and is_hugging_face(path) and not (path / ADAPTER_CONFIG).is_file()


def cache_bytes(
    config: GPTConfig, lengths: list[int], dtype: torch.dtype, exact: bool, native: bool, device: torch.device
) -> int:
    """Bytes of a cache for sequences of these lengths, as `Model.backend` makes it. The native engine's is as `exact`
    as the weights: in float32 beside those in float32, else in bfloat16."""
    if native:
        kind: Cache = "f32" if exact and dtype == torch.float32 else "bf16"
        return pages_of_all(lengths, NativeBackend.page_size) * page_bytes(config, kind)
    n_slots = pages_of_all(lengths, PAGE_SIZE) * PAGE_SIZE + attention_block(device)
    return n_slots * token_bytes(config, dtype)


def inside_bytes(config: GPTConfig) -> int:
    """Bytes of looking inside: the weights in float32, and once more for a checkpoint of the run that is compared."""
    return 2 * 4 * config.n_parameters
