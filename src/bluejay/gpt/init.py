"""Random initialisation of a new model.

| weight                      | distribution                              | source                              |
| --------------------------- | ----------------------------------------- | ----------------------------------- |
| q, k, v, MLP up, gate, head | normal, 1 / sqrt(D), cut at two sigma     | mesh-transformer-jax, `layers.py`   |
| attention out, MLP down     | normal, 2 / (L sqrt(D)), cut at two sigma | `layers.py` ("wang init", GPT-NeoX) |
| embedding, positions        | normal, 0.02                              | GPT-2; GPT-J used 1 / sqrt(V)       |
| biases 0, norm weights 1    |                                           |                                     |
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import GPT


def new_model(config: GPTConfig, seed: int, device: str | torch.device = "cpu") -> GPT:
    """A GPT with random float32 weights, which depend only on the configuration and the seed, not on the device."""
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device=device)
    parameters = dict(model.named_parameters())
    for name, values in draw(config, seed):
        parameters[name].data.copy_(values)
    return model


def draw(config: GPTConfig, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Name and float32 values of each weight of a new model, in order."""
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in GPT(config).named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        values = torch.empty(shape)
        if name.endswith("bias"):
            values.zero_()
        elif "norm" in name:
            values.fill_(1.0)
        elif name in ("embed.weight", "position.weight"):
            values.normal_(0.0, 0.02, generator=generator)
        else:
            residual = name.endswith(("out.weight", "down.weight"))
            std = (2 / config.n_layer if residual else 1.0) / math.sqrt(config.d_model)
            nn.init.trunc_normal_(values, 0.0, std, -2 * std, 2 * std, generator=generator)
        yield name, values
