"""How much memory and time does a training step of adapters for GPT-J-6B take on this machine?

The recipe is recipes/train/gpt-j-6b-lora.toml with one sequence in a step. Memory is compared with 20 GB and with
`bluejay plan`, time with `bluejay plan`. The weights are random, which does not change the cost.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from report import report, result

from bluejay import recipe as recipes
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import weight_shapes
from bluejay.gpt.presets import PRESETS
from bluejay.plan.hardware import measure
from bluejay.plan.plan import plan, shape_of
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.batches import Batches, open_sources
from bluejay.train.distributed.parallel import World
from bluejay.train.distributed.stage import Stage
from bluejay.train.initial import InitialModel
from bluejay.train.optimizer import make_optimizer
from bluejay.train.recipe import TrainRecipe
from bluejay.train.step import Step

MEMORY_LIMIT = 20.0
"""Goal for the peak memory, in GB."""


def random_model() -> StoredModel:
    """GPT-J-6B in bfloat16, its matrices filled from one vector of random numbers."""
    config = PRESETS["gpt-j-6b"]
    shapes = weight_shapes(config)
    noise = 0.02 * torch.randn(1 << 24, dtype=torch.bfloat16)

    def read(name: str) -> torch.Tensor:
        if len(shapes[name]) == 1:
            return torch.full(shapes[name], float("norm.weight" in name), dtype=torch.bfloat16)
        return torch.cat([noise] * -(-shapes[name].numel() // len(noise)))[: shapes[name].numel()].view(shapes[name])

    return StoredModel(config, read, torch.bfloat16, lambda: Tokenizer.load("gpt2"), 0)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    steps = 2
    one = ["--train.batch_tokens=128", f"--train.tokens={128 * steps}", "--train.schedule.warmup=0.5"]
    recipe = recipes.load(TrainRecipe, Path("recipes/train/gpt-j-6b-lora.toml"), one)
    planned = plan(recipe, measure(*shape_of(recipe)))
    world = World(torch.device("cpu"))
    stored = random_model()
    model = InitialModel(recipe, stored.config, stored.tokenizer(), stored).model(world.device, "bfloat16")
    stage = Stage(model, stored.tokenizer().eot, recipe.train)
    stepper = Step(recipe, world, stage, make_optimizer(model, recipe.train.optimizer), "bfloat16")
    batches = Batches(open_sources(recipe.data, stored.tokenizer()), recipe.data.train, 1, recipe.seed, steps)
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        gradient = stepper.gradient(batches.batch(step))
        stepper.update(recipe.train.lr)
        seconds.append(time.perf_counter() - began)
        assert gradient.loss < 20, gradient
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    rows = [
        result(
            "GPT-J-6B LoRA, 128 tokens: peak memory, against a limit",
            peak,
            MEMORY_LIMIT,
            "GB",
            1.0,
            lower_is_better=True,
        ),
        result("peak memory, against bluejay plan's", peak, planned.memory.total / 1e9, "GB", 0.9),
        result("seconds a step, against bluejay plan's", min(seconds), planned.seconds.total, "s", 0.8, True),
    ]
    report("lora_6b", rows)


if __name__ == "__main__":
    main()
