"""Part a: equality with the CPU, attention, the loss head, and the speed and memory of training."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.presets import PRESETS, sized
from bluejay.train.data.batches import TrainBatch
from bluejay.train.distributed.parallel import World
from bluejay.train.distributed.stage import Stage
from bluejay.train.loss import head_loss
from bluejay.train.optimizer import make_optimizer
from bluejay.train.recipe import Data, Mixture, Optimizer, Train, TrainRecipe
from bluejay.train.step import Figures, Step
from gpu_checks import candidates
from gpu_checks.attention import cudnn, flex, probe
from gpu_checks.equality import decoding, equality
from gpu_checks.resumed import resumed
from gpu_checks.rig import (
    H100_PEAK,
    Check,
    Measure,
    Row,
    Setting,
    milliseconds,
    peak_memory,
    profiled,
    random_batch,
    random_model,
    synchronize,
)


def card(setting: Setting) -> Measure:
    """What the card is, and the two rates that nothing can beat: of a large product and of a large copy."""

    def measure() -> Iterator[Row]:
        versions: Row = {"torch": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
        name = "CPU"
        if setting.device.type == "cuda":
            properties = torch.cuda.get_device_properties(0)
            name = properties.name
            versions["memory_gb"] = round(properties.total_memory / 1e9, 1)
        yield {"card": name, **versions}
        n = setting.pick(8192, 64)
        a, b = (torch.randn(n, n, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
        peak = 2 * n**3 / milliseconds(lambda: a @ b, setting, 20) / 1e9
        x = torch.randn(setting.pick(1 << 30, 1 << 10), device=setting.device, dtype=torch.bfloat16)
        y = torch.empty_like(x)
        copy = 4 * len(x) / milliseconds(lambda: y.copy_(x), setting, 20) / 1e6
        m = setting.pick(16384, 64)
        rates = {}
        for width, columns in ((768, 768), (768, 3072), (768, 50304), (2048, 8192), (4096, 16384)):
            s, w = (torch.randn(k, width, device=setting.device, dtype=torch.bfloat16) for k in (m, columns))
            rates[f"{width}x{columns}"] = round(
                2 * m * width * columns / milliseconds(lambda s=s, w=w: s @ w.T, setting) / 1e9, 1
            )
        yield {
            "peak_tflops": max(round(peak, 1), 0.1),
            "copy_gb_s": round(copy, 1),
            "products_tflops_of_16384_rows": rates,
        }

    return measure


class Steps:
    """Training steps as the trainer takes them on a GPU: the figures of a step are read when the next is launched."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.launched: deque[Figures] = deque()
        self.losses: list[float] = []

    def take(self, batch: TrainBatch) -> None:
        """Launch a step with the batch, and read the one before."""
        figures = self.step.launch(batch)
        self.launched.append(figures)
        self.step.update(1e-4, figures.refused((math.inf, math.inf)))
        self.settle(but=1)

    def settle(self, but: int = 0) -> None:
        """Read the figures of all launched steps but the last ones."""
        while len(self.launched) > but:
            self.losses.append(self.launched.popleft().read().loss)


def train(
    setting: Setting,
    config: GPTConfig,
    rows: int,
    parts: int = 4,
    masks: bool = True,
    compile: bool = False,
    recompute: Literal["none", "selective", "full"] = "none",
    optimizer: Literal["adamw", "muon"] = "adamw",
    changes: Sequence[str] = (),
    profile: bool = False,
) -> Measure:
    """Whole training steps of `parts` micro-batches of `rows` sequences; `compile` compiles each block."""
    length = config.n_ctx
    if changes:
        candidates.apply(changes)
    train = Train(
        tokens=rows * parts * length,
        batch_tokens=rows * parts * length,
        micro_batch_tokens=rows * length,
        compile=compile,
        recompute=recompute,
        optimizer=Optimizer(kind=optimizer),
    )
    data = Data(train=(Mixture("none"),), valid="none", sequence_length=length)
    recipe = TrainRecipe("benchmark", data, train)
    model = random_model(config, setting)
    end = config.vocab_size - 1
    stage = Stage(model, end if masks else None, train)
    precision = "bfloat16"
    steps = Steps(Step(recipe, World(setting.device), stage, make_optimizer(model, train.optimizer), precision))
    batch = random_batch(rows * parts, length, end, setting.pick(512, 16))
    first = random_batch(rows, length, end, setting.pick(512, 16))

    for _ in range(3):
        steps.take(batch)
    steps.settle()

    def measure() -> Iterator[Row]:
        peak_memory(setting.device, restart=True)
        synchronize(setting.device)
        began, count = time.perf_counter(), setting.pick(6, 1)
        for _ in range(count):
            steps.take(batch)
        steps.settle()
        synchronize(setting.device)
        seconds = (time.perf_counter() - began) / count
        tokens = rows * parts * length
        achieved = 3 * config.forward_flops(length) * tokens / seconds
        yield {
            "tokens_per_s": round(tokens / seconds),
            "ms": round(1e3 * seconds, 2),
            "mfu": round(achieved / H100_PEAK, 4),
            "share_of_measured_peak": round(achieved / setting.peak, 4),
            "memory_gb": round(peak_memory(setting.device), 2),
            "losses": [round(loss, 5) for loss in steps.losses],
            "micro_batch": [rows, length],
            "masks": masks,
            "compile": compile,
            "recompute": recompute,
            "optimizer": optimizer,
            "changes": list(changes),
        }
        pieces = TrainBatch(first.inputs, first.targets).to(setting.device)
        if profile:
            with torch.autocast(setting.device.type, torch.bfloat16):
                yield from profiled(lambda: steps.step.backward(pieces, 1 / (rows * length)), setting)
            yield {"of": "a whole step", **next(profiled(lambda: steps.take(batch), setting))}
            yield {"update_ms": round(milliseconds(steps.step.optimizer.step, setting, 5), 3)}

    return measure


def small(setting: Setting) -> GPTConfig:
    """GPT-J at 124 M weights that multiply, or a rehearsal of it."""
    return setting.pick(PRESETS["bluejay-162m"], sized(PRESETS["gpt-j"], 2, 64, 2, vocab_size=128, n_ctx=64))


def step_of(setting: Setting, rows: int = 16, **options: object) -> Measure:
    """Steps of the small model."""
    return train(setting, small(setting), setting.pick(rows, 2), setting.pick(8, 2), **options)  # type: ignore[arg-type] - options of train


def head(setting: Setting) -> Measure:
    """The loss head alone, forward and backward, in several ways."""
    rows, vocabulary, width = setting.pick((8192, 50304, 768), (32, 128, 64))
    states = torch.randn(1, rows, width, device=setting.device, requires_grad=True)
    weight = nn.Parameter(0.02 * torch.randn(vocabulary, width, device=setting.device))
    bias = nn.Parameter(torch.zeros(vocabulary, device=setting.device))
    targets = torch.randint(0, vocabulary, (1, rows), device=setting.device)
    scale = 1 / rows

    def plain() -> torch.Tensor:
        logits = nn.functional.linear(states, weight, bias).float()
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") * scale

    def package(compiled: bool) -> torch.Tensor:
        return head_loss(states, weight, bias, targets, scale, compiled=compiled)

    ways = {
        "the package": partial(package, False),
        "the package, compiled": partial(package, True),
        "cross_entropy of all logits": plain,
        "cross_entropy of all logits, compiled": torch.compile(plain),
    }

    def both(way: Callable[[], torch.Tensor]) -> torch.Tensor:
        states.grad = weight.grad = bias.grad = None
        with torch.autocast(setting.device.type, torch.bfloat16):
            loss = way()
        loss.backward()
        return loss

    failed: dict[str, str] = {}
    for name, way in ways.items():
        try:
            both(way)
        except Exception as error:  # compilers share no class of errors; the row says what happened
            failed[name] = f"{type(error).__name__}: {str(error)[:200]}"

    def measure() -> Iterator[Row]:
        reference = None
        for name, way in ways.items():
            if name in failed:
                yield {"way": name, "error": failed[name]}
                continue
            peak_memory(setting.device, restart=True)
            ms = milliseconds(lambda way=way: both(way), setting)
            loss = float(both(way).detach())
            assert weight.grad is not None
            gradient = weight.grad.float().clone()
            reference = gradient if reference is None else reference
            yield {
                "way": name,
                "ms": round(ms, 3),
                "tflops": round(6 * rows * vocabulary * width / ms / 1e9, 1),
                "memory_gb": round(peak_memory(setting.device), 2),
                "loss": round(loss, 5),
                "gradient_difference": round(float((gradient - reference).norm() / reference.norm()), 6),
            }

    return measure


ROUNDS = [
    [Check("A0", "card", card)],
    [
        Check("A4", "124 M, compiled, masks", partial(step_of, compile=True, profile=True)),
        Check("A4", "124 M, compiled, masks, 32 rows", partial(step_of, rows=32, compile=True)),
        Check("A2", "equality with the CPU", equality),
        Check("A3", "decoding's equality with the CPU", decoding),
    ],
    [
        Check("A7", "a run that is resumed", resumed),
        Check("A6", "selective, compiled", partial(step_of, compile=True, recompute="selective")),
        Check("A6", "full, compiled", partial(step_of, compile=True, recompute="full")),
        Check("A4", "124 M, compiled, Muon", partial(step_of, compile=True, optimizer="muon")),
    ],
    [
        Check("A4", "124 M, eager, masks", partial(step_of, profile=True)),
        Check("A5", "loss head", head),
        Check("A4", "124 M, compiled, no masks", partial(step_of, compile=True, masks=False)),
    ],
    [
        Check("A1", "attention", probe),
        Check("A1", "flex attention", flex),
        Check("A1", "cuDNN by documents", cudnn),
    ],
    [
        Check("A4", "124 M, compiled, bf16 residual", partial(step_of, compile=True, changes=("bf16 residual",))),
        Check("A4", "124 M, compiled, stacked qkv", partial(step_of, compile=True, changes=("stacked qkv",))),
    ],
]
