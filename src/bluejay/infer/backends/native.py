"""The native engine: a step is one call, on the processor's own vector instructions (`native/`)."""

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import weight_shapes
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import GPT, rotary_frequencies
from bluejay.gpt.quantization.calibrate import inputs_of
from bluejay.gpt.quantization.packing import CODE, Packed, pack
from bluejay.infer.backends import StepBatch
from bluejay.machine import free_memory, n_processors
from bluejay.native import native

Cache = Literal["f32", "bf16", "int8"]
"""How keys and values are kept; int8 with a scale for each head of each token."""
TORCH = "torch"
"""What BLUEJAY_ISA says to have torch do the work."""


def available() -> list[str]:
    """Instruction sets that the engine can use on this machine, best first; none where it was not built."""
    return [] if native is None else native.isas()


def chosen() -> str | None:
    """The instruction set in use, BLUEJAY_ISA or the best there is; None where torch does the work.

    Raises ValueError where BLUEJAY_ISA names one that is not there.
    """
    names = available()
    isa = os.environ.get("BLUEJAY_ISA") or (names[0] if names else TORCH)
    if isa not in (*names, TORCH):
        raise ValueError(f"BLUEJAY_ISA is {isa}; this machine has {', '.join((*names, TORCH))}")
    return None if isa == TORCH else isa


class NativeModel:
    """Weights as the engine reads them, shared by all backends that run the model.

    `matrix` gives the packed form of a weight matrix by its name, `read` any other weight.
    """

    def __init__(self, config: GPTConfig, matrix: Callable[[str], Packed], read: Callable[[str], Tensor]) -> None:
        self.config = config
        self.store = native.Store()
        inputs = inputs_of(config)
        for name, shape in weight_shapes(config).items():
            if len(shape) == 1:
                self.store.vector(name, read(name).float().contiguous().numpy())
            elif name == "position.weight" or (name == "embed.weight" and not config.tied):
                table = read(name)
                table = table if table.dtype in (torch.float32, torch.bfloat16) else table.float()
                self.store.lookup(name, "f32" if table.dtype == torch.float32 else "bf16", *shape, flat(table))
            else:
                packed = matrix(name)
                self._add("head.weight" if name == "embed.weight" else name, packed)
                if packed.smoothing is not None:
                    self.store.vector(f"{inputs[name]}.smoothing", packed.smoothing.numpy())

    def _add(self, name: str, packed: Packed) -> None:
        scales = None if packed.scales is None else flat(packed.scales)
        code = np.array([value + 128 for value in CODE], np.uint8) if packed.format == "q4" else None
        self.store.matrix(name, packed.format, *packed.shape, flat(packed.data), scales, code)


def native_model(model: GPT | StoredModel) -> NativeModel:
    """The engine's form of a model: a quantised directory as it is mapped, other weights packed in their own type."""
    if isinstance(model, StoredModel):
        assert model.packed is not None
        return NativeModel(model.config, model.packed, model.read)
    weights = model.state_dict()

    def matrix(name: str) -> Packed:
        return pack(weights[name], "bf16" if weights[name].dtype == torch.bfloat16 else "f32")

    return NativeModel(model.config, matrix, weights.__getitem__)


class NativeBackend:
    """A model with a cache of `n_pages` pages. Satisfies `bluejay.infer.backends.Backend`.

    Raises ValueError when there is no memory for the cache.
    """

    page_size: int = 16
    """Tokens whose keys stand side by side, one in each of 16 lanes (`native/kernels.h`)."""

    def __init__(
        self,
        model: NativeModel,
        n_pages: int,
        *,
        cache: Cache = "bf16",
        isa: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.config = model.config
        self.n_pages = n_pages
        n_bytes, free = n_pages * page_bytes(model.config, cache), free_memory()
        if n_bytes > free:
            raise ValueError(
                f"the key-value cache needs {n_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; ask for less"
            )
        self._decoder = native.Decoder(
            native_config(model.config), model.store, isa or chosen(), threads or n_processors(), n_pages, cache
        )

    def step(self, batch: StepBatch) -> Float[Tensor, "R V"]:
        """Store the keys and values of the new tokens; the float32 logits of those wanted come back, in order."""
        return torch.from_numpy(
            self._decoder.step(batch.tokens, batch.starts, batch.lengths, batch.pages, batch.wanted)
        )

    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` hold what `source` holds."""
        self._decoder.copy_page(source, target)


def page_bytes(config: GPTConfig, cache: Cache) -> int:
    """Memory of one page: keys and values of its tokens in all layers."""
    width = {"f32": 4, "bf16": 2, "int8": 1}[cache] * -(-config.d_head // 16) * 16 + 4
    return 2 * config.n_layer * config.kv_heads * width * NativeBackend.page_size


def native_config(config: GPTConfig) -> Any:
    """What the engine asks of a configuration."""
    found = native.Config()
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
        "halves": config.rotary == "half",
        "norm_eps": config.norm_eps,
        "scale": config.scale,
        "window": config.window or 0,
        "local_layers": list(config.local_layers),
        "activation": config.activation,
        "frequencies": [] if config.rotary == "none" else rotary_frequencies(config).tolist(),
    }
    for name, value in values.items():
        setattr(found, name, value)
    return found


def flat(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor, not copied where they stand end to end."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy()
