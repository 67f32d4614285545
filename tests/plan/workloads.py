"""Small workloads whose plans are compared with what torch does."""

import dataclasses

import torch

from bluejay import recipe as recipes
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.plan.hardware import Hardware, Link
from bluejay.plan.workload import Workload
from bluejay.train.recipe import TrainRecipe

LINK = Link(100.0)
ONES = {"replicate": 1, "shard": 1, "tensor": 1, "pipeline": 1}
SHAPES = {
    "gpt-j": {"preset": "gpt-j"},
    "gpt-2": {"preset": "gpt2"},
    "llama": {"preset": "llama-2-7b", "n_kv_head": 2, "d_ff": 192},
    "qwen3": {"preset": "qwen3-0.6b", "n_kv_head": 2, "d_ff": 192, "head_dim": 32},
}


def machine(**fields: object) -> Hardware:
    base = Hardware("a machine", 1, 8, 80.0, 1000.0, 100.0, 50.0, LINK, LINK, reserved=0.0)
    return dataclasses.replace(base, **fields)


def workload(
    model: dict[str, object], mesh: dict[str, int] = ONES, hardware: Hardware | None = None, **train: object
) -> Workload:
    size = {"n_layer": 2, "d_model": 64, "n_head": 4, "vocab_size": 128}
    values = {
        "name": "a workload",
        "data": {"train": [{"shards": "none"}], "valid": "none", "sequence_length": 256, "tokenizer": "gpt2"},
        "model": size | model,
        "train": {"tokens": 32768, "batch_tokens": 32768, "precision": "float32"} | train,
    }
    recipe = recipes.check(TrainRecipe, values, "the test")
    return Workload(recipe, recipe.gpt_config(128), hardware or machine(), mesh, 1024)


def per_token(count, config: GPTConfig) -> float:
    """What one block adds to a count for each token, without embedding, head and weights."""

    def of(layers: int, length: int) -> float:
        model = new_model(dataclasses.replace(config, n_layer=layers), 0)
        return count(model, torch.zeros(1, length, dtype=torch.int64))

    return ((of(2, 256) - of(1, 256)) - (of(2, 128) - of(1, 128))) / 128
