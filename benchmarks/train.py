"""How fast does a training step run, against transformers' GPT-J and against a plain loop?

All train the same model (GPT-J's architecture) on batches of the same size in bfloat16 with float32 master weights,
torch's fused AdamW and gradient clipping. The plain loop is in the style of nanoGPT: scaled_dot_product_attention,
autocast, cross_entropy. Each contender has a process of its own; they take turns. The last figure is model FLOPs
utilisation: the model's FLOPs per second (6 per weight and token, and causal attention) as a share of the fastest
bfloat16 matrix product measured in this run.
"""

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from report import report, result
from torch import Tensor, nn

from bluejay.gpt.config import GPTConfig
from bluejay.train.data.batches import TrainBatch

VOCABULARY, LENGTH, ROWS, LAYERS, LR, ROUNDS = 8192, 512, 8, 6, 1e-4, 5


class PlainBlock(nn.Module):
    """A GPT-J block written plainly."""

    def __init__(self, width: int, heads: int, rotary: int) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(h).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(self.turn(q, cos, sin), self.turn(k, cos, sin), v, is_causal=True)
        return x + self.out(y.transpose(1, 2).flatten(-2)) + self.down(F.gelu(self.up(h), approximate="tanh"))

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary embedding of the leading dimensions of each head."""
        turned, rest = x.split((self.rotary, x.shape[-1] - self.rotary), dim=-1)
        even, odd = turned[..., ::2], turned[..., 1::2]
        pairs = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
        return torch.cat((pairs.flatten(-2).to(x.dtype), rest), dim=-1)


class Plain(nn.Module):
    """GPT-J in forty lines."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.d_model
        self.embed = nn.Embedding(config.vocab_size, width)
        self.blocks = nn.ModuleList(PlainBlock(width, config.n_head, config.n_rotary) for _ in range(config.n_layer))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, config.vocab_size)
        frequency = 10000 ** (-torch.arange(0, config.n_rotary, 2) / config.n_rotary)
        angle = torch.arange(LENGTH)[:, None] * frequency
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, batch: TrainBatch) -> Tensor:
        x = self.embed(batch.inputs)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), batch.targets.flatten())


def loop(model: nn.Module, loss_of: Callable[[TrainBatch], Tensor]) -> Callable[[TrainBatch], float]:
    """A function that takes one training step with a model in the usual way."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)

    def step(batch: TrainBatch) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def plain(config: GPTConfig) -> Callable[[TrainBatch], float]:
    model = Plain(config)
    return loop(model, model)


def transformers(config: GPTConfig) -> Callable[[TrainBatch], float]:
    from transformers import GPTJConfig, GPTJForCausalLM

    from bluejay.gpt.formats.families import to_hugging_face

    end = VOCABULARY - 1
    model = GPTJForCausalLM(GPTJConfig(**to_hugging_face(config, end, end, "float32")))
    return loop(model, lambda batch: model(batch.inputs, labels=batch.inputs).loss)


def ours(config: GPTConfig) -> Callable[[TrainBatch], float]:
    from bluejay.gpt.init import new_model
    from bluejay.train.distributed.parallel import World
    from bluejay.train.distributed.stage import Stage
    from bluejay.train.optimizer import make_optimizer
    from bluejay.train.recipe import Data, Mixture, Train, TrainRecipe
    from bluejay.train.step import Step

    data = Data(train=(Mixture("none"),), valid="none", sequence_length=LENGTH)
    recipe = TrainRecipe("benchmark", data, Train(tokens=LENGTH, batch_tokens=ROWS * LENGTH))
    model = new_model(config, seed=0)
    stage = Stage(model, VOCABULARY - 1, recipe.train)
    stepper = Step(recipe, World(torch.device("cpu")), stage, make_optimizer(model, recipe.train.optimizer), "bfloat16")

    def step(batch: TrainBatch) -> float:
        gradient = stepper.gradient(batch)
        stepper.update(LR)
        return gradient.loss

    return step


def shape(width: int) -> GPTConfig:
    return GPTConfig(n_layer=LAYERS, d_model=width, n_head=width // 64, vocab_size=VOCABULARY, n_ctx=LENGTH)


def run_contender(
    make_step: Callable[[GPTConfig], Callable[[TrainBatch], float]], width: int, turns: Connection
) -> None:
    """The process of a contender: takes a step and sends its seconds for every message received."""
    torch.manual_seed(0)
    step = make_step(shape(width))
    while turns.recv():
        tokens = torch.randint(0, VOCABULARY - 1, (ROWS, LENGTH + 1))
        batch = TrainBatch(tokens[:, :-1], tokens[:, 1:])
        began = time.perf_counter()
        loss = step(batch)
        turns.send(time.perf_counter() - began)
        assert abs(loss - math.log(VOCABULARY)) < 1.5, "this is not the loss of a new model"


def measure(width: int) -> dict[str, float]:
    """Tokens per second of each contender."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    for contender in (ours, transformers, plain):
        mine, theirs = context.Pipe()
        process = context.Process(target=run_contender, args=(contender, width, theirs), daemon=True)
        process.start()
        workers[contender.__name__] = process, mine
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(ROUNDS + 1):
        for name, (_, turns) in workers.items():
            turns.send(True)
            seconds[name].append(turns.recv())
    for process, turns in workers.values():
        turns.send(False)
        process.join()
    return {name: ROWS * LENGTH / statistics.median(taken[1:]) for name, taken in seconds.items()}


def matmul_rate(width: int) -> float:
    """FLOP/s of the fastest bfloat16 product, among large ones and those of the model."""
    shapes = [(2048, 2048, 2048), (4096, 4096, 4096)]
    shapes += [(LENGTH * ROWS, *sides) for sides in ((width, width), (width, 4 * width), (4 * width, width))]
    best = 0.0
    for m, k, n in shapes:
        x, y = torch.randn(m, k).bfloat16(), torch.randn(k, n).bfloat16()
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            torch.mm(x, y)
            best = max(best, 2 * m * k * n / (time.perf_counter() - began))
    return best


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    products, rates = [], {}
    for width in (384, 768):
        products.append(matmul_rate(width))
        rates[width] = measure(width)
        products.append(matmul_rate(width))
    results = []
    for width, rate in rates.items():
        for peer, goal in (("transformers", 2.0), ("plain", 1.25)):
            name = f"training, bfloat16, d={width}, vs {peer}"
            results.append(result(name, rate["ours"], rate[peer], "tokens/s", goal))
    config = shape(768)
    unseen = 6 * LAYERS * config.n_head * config.d_head * LENGTH
    speed = rates[768]["ours"] * (config.flops_per_token - unseen)
    results.append(result("share of matmul rate, d=768", speed / 1e9, max(products) / 1e9, "GFLOP/s", 0.7))
    report("train", results)


if __name__ == "__main__":
    main()
