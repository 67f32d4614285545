"""The backend of the native engine (`native/`): a step is one call and uses the processor's vector instructions."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.extras import compile_again
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import GPT, input_of, rotary_frequencies, weight_shapes
from bluejay.gpt.quantization.packing import FORMATS, Packed, pack
from bluejay.gpt.quantization.q8 import ZERO
from bluejay.infer.backends import StepBatch
from bluejay.infer.exceptions import CacheError
from bluejay.machine import free_memory, n_processors
from bluejay.native import absent, native
from bluejay.progress import say

Cache = Literal["f32", "bf16", "int8"]
"""Type of the cached keys and values; int8 has one scale for each head of each token."""
TORCH = "torch"
"""The value of BLUEJAY_ISA that selects the torch backend instead of the native engine."""


def available() -> list[str]:
    """Instruction sets that the engine can use on this machine, best first; none if it is absent."""
    return [] if native is None else native.isas()


@cache
def say_absent() -> None:
    """Say once that the engine is absent, and why, if that is so and nobody chose torch."""
    if native is not None or os.environ.get("BLUEJAY_ISA"):
        return
    say(f"torch does the work here, more slowly than the native engine, which {absent}; {compile_again()} compiles it")


def chosen() -> str | None:
    """The instruction set to use: BLUEJAY_ISA or the best available one; None for the torch backend. Raises ValueError
    if BLUEJAY_ISA names one that this machine does not have."""
    say_absent()
    names = available()
    isa = os.environ.get("BLUEJAY_ISA") or (names[0] if names else TORCH)
    if isa not in (*names, TORCH):
        raise ValueError(f"BLUEJAY_ISA is {isa}; this machine has {', '.join((*names, TORCH))}")
    return None if isa == TORCH else isa


class NativeModel:
    """The weights in the engine's form, shared by all backends of the model. `matrix` returns the packed form of a
    weight by its name, and None for a weight that is not packed, which `read` returns."""

    def __init__(
        self, config: GPTConfig, matrix: Callable[[str], Packed | None], read: Callable[[str], Tensor]
    ) -> None:
        self.config = config
        self.read = read
        self.store = native.Store()
        inputs = input_of(config)
        for name, shape in weight_shapes(config).items():
            if len(shape) == 1:
                self.store.vector(name, read(name).float().contiguous().numpy())
            elif (packed := matrix(name)) is None:
                table = read(name)
                table = table if table.dtype in (torch.float32, torch.bfloat16) else table.float()
                self.store.lookup(name, "f32" if table.dtype == torch.float32 else "bf16", *shape, flat(table))
            else:
                self._add("head.weight" if name == "embed.weight" and config.tied else name, packed)
                if packed.smoothing is not None:
                    self.store.vector(f"{inputs[name]}.smoothing", packed.smoothing.numpy())

    def _add(self, name: str, packed: Packed) -> None:
        scales = None if packed.scales is None else flat(packed.scales)
        values = packed.format.codebook
        codebook = None if values is None else np.array([value + ZERO for value in values], np.uint8)
        self.store.matrix(name, packed.format.name, *packed.shape, flat(packed.data), scales, codebook)


def native_model(model: GPT | StoredModel) -> NativeModel:
    """The engine's form of a model. Quantised weights stay mapped from their file; others are packed in their type."""
    if isinstance(model, StoredModel):
        assert model.packed is not None
        return NativeModel(model.config, model.packed, model.read)
    weights, multiplied = model.state_dict(), input_of(model.config)

    def matrix(name: str) -> Packed | None:
        if name not in multiplied:
            return None
        return pack(weights[name], FORMATS["bf16" if weights[name].dtype == torch.bfloat16 else "f32"])

    return NativeModel(model.config, matrix, weights.__getitem__)


class NativeBackend:
    """A model with a cache of `n_pages` pages. Implements `bluejay.infer.backends.Backend`. Raises CacheError if memory
    is too short for the cache."""

    page_size: int = 16
    """Tokens of a page, one for each of the 16 lanes of the kernels (`native/kernels.h`)."""
    prompt_factor: int = 1

    def __init__(
        self,
        model: NativeModel,
        n_pages: int,
        *,
        cache: Cache = "bf16",
        isa: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.config = model.config
        self.n_pages = n_pages
        n_bytes, free = n_pages * page_bytes(model.config, cache), free_memory()
        if n_bytes > free:
            raise CacheError(
                f"the key-value cache needs {n_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; ask for less"
            )
        self._decoder = native.Decoder(
            native_config(model.config), model.store, isa or chosen(), threads or n_processors(), n_pages, cache
        )

    @property
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The weights with our names; a quantised one is decoded when its turn comes."""
        return ((name, self.model.read(name)) for name in weight_shapes(self.config))

    def step(self, batch: StepBatch) -> Float[Tensor, "R V"]:
        """Store the keys and values of the new tokens and return the float32 logits of the wanted ones, in order."""
        return torch.from_numpy(
            self._decoder.step(batch.tokens, batch.starts, batch.lengths, batch.pages, batch.wanted)
        )

    def draw(
        self, logits: Float[Tensor, "R V"], filters: Float[np.ndarray, "R 5"], uniforms: Float[np.ndarray, " R"]
    ) -> list[int]:
        """A token for each row of logits, as `bluejay.infer.sampling.draw` draws it, on the threads of a step."""
        return self._decoder.draw(logits.numpy(), filters, uniforms)

    def hidden(self, batch: StepBatch) -> Float[Tensor, "R D"]:
        """As `step`, but return the float32 hidden states of the wanted tokens, which are the input of the head."""
        return torch.from_numpy(
            self._decoder.hidden(batch.tokens, batch.starts, batch.lengths, batch.pages, batch.wanted)
        )

    def score(self, batch: StepBatch, targets: Int[np.ndarray, " R"]) -> Float[Tensor, "R 2"]:
        """As `step`, but return for each wanted token the log-probability that the token in `targets` follows, and by
        how much its logit falls short of the largest one. Here a token may be wanted several times in succession, with
        a target each."""
        return torch.from_numpy(
            self._decoder.score(batch.tokens, batch.starts, batch.lengths, batch.pages, batch.wanted, targets)
        )

    def copy_page(self, source: int, target: int) -> None:
        """Copy the contents of page `source` to page `target`."""
        self._decoder.copy_page(source, target)

    def clear(self) -> None:
        """Do nothing, because the kernels multiply nothing by keys and values that a token does not see."""


def page_bytes(config: GPTConfig, cache: Cache) -> int:
    """Size of one page: keys and values of its tokens in all layers."""
    width = {"f32": 4, "bf16": 2, "int8": 1}[cache] * -(-config.d_head // 16) * 16 + 4
    return 2 * config.n_layer * config.kv_heads * width * NativeBackend.page_size


def native_config(config: GPTConfig) -> Any:
    """The fields of a configuration that the engine uses."""
    fields = native.Config()
    values = {
        "n_layer": config.n_layer,
        "d_model": config.d_model,
        "n_head": config.n_head,
        "n_kv_head": config.kv_heads,
        "d_head": config.d_head,
        "d_hidden": config.d_hidden,
        "vocab_size": config.vocab_size,
        "n_ctx": config.n_ctx,
        "parallel": config.parallel,
        "rotate_half": config.rotary == "rotate_half",
        "norm_eps": config.norm_eps,
        "scale": config.scale,
        "window": config.window or 0,
        "local_layers": list(config.local_layers),
        "activation": config.activation,
        "frequencies": [] if config.rotary == "none" else rotary_frequencies(config).tolist(),
        "rotary_factor": config.rotary_factor,
    }
    for name, value in values.items():
        setattr(fields, name, value)
    return fields


def flat(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor, without a copy if it is contiguous."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy()
