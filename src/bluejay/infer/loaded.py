"""The weights of a model that is in memory, in torch or in the native engine's form, and what computes with them."""

import threading
from collections.abc import Sequence
from functools import cached_property

import torch

from bluejay.gpt.model import GPT
from bluejay.infer.backends import Backend
from bluejay.infer.backends.native import NativeBackend, NativeModel, chosen, native_model
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.cache import pages_of_all
from bluejay.infer.exceptions import ModelClosedError
from bluejay.infer.weights import cache_lengths


class LoadedWeights:
    """Weights, until `close`. With `compiled`, torch compiles its steps; raises ValueError if the native engine runs
    the model."""

    def __init__(self, weights: GPT | NativeModel, name: str, compiled: bool) -> None:
        self._weights: GPT | NativeModel | None = weights
        self.config = weights.config
        self.name = name
        self.compiled = compiled
        self._packing = threading.Lock()
        if compiled and self.is_native:
            raise ValueError("the native engine has nothing to compile; BLUEJAY_ISA=torch has torch run the model")

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._weights is None

    @property
    def weights(self) -> GPT | NativeModel:
        """The weights, in torch or in the native engine's form. Raises ModelClosedError."""
        if (weights := self._weights) is None:  # another thread may close the model at any moment
            raise ModelClosedError(f"the model {self.name} is closed; load it again")
        return weights

    def close(self) -> None:
        """Free the weights, which cannot be used afterwards."""
        self._weights = None
        self.__dict__.pop("native", None)

    @property
    def gpt(self) -> GPT:
        """The weights as a torch module, which quantised weights in the native engine's form do not have."""
        weights = self.weights
        assert isinstance(weights, GPT)
        return weights

    @cached_property
    def native(self) -> NativeModel | None:
        """The weights in the native engine's form; None if torch runs the model. Raises ModelClosedError."""
        weights = self.weights
        return weights if isinstance(weights, NativeModel) else native_model(weights) if self.is_native else None

    @property
    def is_native(self) -> bool:
        """Whether the native engine runs the model."""
        weights = self.weights
        if isinstance(weights, NativeModel):
            return True
        weight = weights.embed.weight
        return chosen() is not None and weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)

    def backend(self, n_sequences: int, n_tokens: int) -> Backend:
        """A backend that runs the model, with a cache for `n_sequences` sequences of `n_tokens` tokens, or for fewer
        tokens where the free memory does not hold these. Raises CacheError and ModelClosedError."""
        return self._new_backend(cache_lengths(self.weights, [n_tokens] * n_sequences))

    def _new_backend(self, lengths: Sequence[int]) -> Backend:
        """A backend with a cache for sequences of these lengths."""
        with self._packing:  # by one thread; functools.cached_property has no lock from Python 3.12 on
            native = self.native
        if native is None:
            return TorchBackend.for_tokens(self.gpt, lengths, self.compiled)
        full = isinstance(self.weights, GPT) and self.gpt.embed.weight.dtype == torch.float32
        n_pages = pages_of_all(lengths, NativeBackend.page_size)
        return NativeBackend(native, n_pages, cache="f32" if full else "bf16")
