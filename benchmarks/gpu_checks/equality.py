"""Whether the device computes what the CPU does: logits, gradients and the course of training."""

import contextlib
import copy
import itertools
from collections.abc import Iterator
from typing import Literal

import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.gpt.model import GPT, Linear
from bluejay.gpt.presets import PRESETS, sized
from bluejay.gpt.quantization.linear import PackedLinear
from bluejay.gpt.quantization.packing import FORMATS, pack
from bluejay.infer.backends import StepBatch
from bluejay.infer.backends.replay import Replayed
from bluejay.infer.backends.torch import TorchBackend
from bluejay.train.data.batches import TrainBatch, document_starts
from bluejay.train.distributed.parallel import World
from bluejay.train.distributed.stage import Stage
from bluejay.train.optimizer import make_optimizer
from bluejay.train.recipe import Data, Mixture, Optimizer, Train, TrainRecipe
from bluejay.train.step import Step
from gpu_checks.rig import Measure, Row, Setting, random_batch

LENGTH, ROWS, VOCABULARY = 256, 4, 1024


def families(setting: Setting) -> dict[str, GPTConfig]:
    """Four layers of every family."""
    fields = {"vocab_size": VOCABULARY, "n_ctx": LENGTH}
    width, heads = setting.pick((256, 4), (64, 4))
    found = {
        "gptj": sized(PRESETS["gpt-j"], 4, width, heads, **fields),
        "gpt_neox": sized(PRESETS["pythia-160m"], 4, width, heads, **fields),
        "gpt_neo": sized(PRESETS["gpt-neo-125m"], 4, width, heads, local_layers=(1, 3), window=64, **fields),
        "gpt2": sized(PRESETS["gpt2"], 4, width, heads, **fields),
    }
    fields |= {"n_kv_head": 2, "d_ff": 3 * width, "rotary_dim": width // heads, "head_dim": width // heads}
    windows = {"mistral": range(4), "qwen2": range(2, 4)}
    for family, preset in (
        ("llama", "smollm2-135m"),
        ("mistral", "mistral-7b-v0.3"),
        ("qwen2", "qwen2.5-0.5b"),
        ("qwen3", "qwen3-0.6b"),
    ):
        local = {"window": 64, "local_layers": tuple(windows[family])} if family in windows else {}
        found[family] = sized(PRESETS[preset], 4, width, heads, **fields, **local)
    return found


def passes(model: GPT, batch: TrainBatch, masks: bool, narrow: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and gradients of a model, on the device that it is on, given back on the CPU."""
    device = model.embed.weight.device
    here = batch.to(device)
    stage = Stage(model, VOCABULARY - 1 if masks else None, Train(tokens=LENGTH, batch_tokens=LENGTH))
    cast = torch.autocast(device.type, torch.bfloat16) if narrow else contextlib.nullcontext()
    with cast:
        starts = document_starts(here.inputs, VOCABULARY - 1) if masks else None
        with torch.no_grad():
            logits = model(here.inputs, document_start=starts).float().cpu()
        loss = stage(inputs=here.inputs, targets=here.targets, weights=None, scale=1 / here.inputs.numel())
    loss.backward()
    gradients = {name: w.grad.float().cpu() for name, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return logits, gradients


def compare(ours: tuple, reference: tuple) -> Row:
    """Largest differences of logits, and of gradients by their norm."""
    names = reference[1]
    least = 1e-3 * torch.stack([g.norm() for g in names.values()]).norm()  # keys' biases have none but for rounding
    apart = {name: float((ours[1][name] - g).norm() / g.norm().clamp(min=least)) for name, g in names.items()}
    worst = max(apart, key=lambda name: apart[name])
    return {
        "logits": float((ours[0] - reference[0]).abs().max()),
        "logits_size": float(reference[0].abs().max()),
        "gradients": apart[worst],
        "worst": worst,
    }


def packed(gpt: GPT, format: str) -> GPT:
    """The model with its matrices in a quantised format."""
    for name, linear in list(gpt.named_modules()):
        if isinstance(linear, Linear):
            gpt.set_submodule(name, PackedLinear(pack(linear.weight.detach(), FORMATS[format]), linear.bias))
    return gpt.requires_grad_(False)


def decoding(setting: Setting) -> Measure:
    """Prompts of several lengths and then single tokens of every family, with q8 and q4 of one, against the CPU's
    logits in float32. On a GPU single tokens are read in place and replayed; those of one family are compiled, too."""
    torch.set_num_threads(setting.pick(4, 1))
    torch.set_float32_matmul_precision("highest")
    rows: list[Row] = []
    for family, config in families(setting).items():
        for format in (None, "q8", "q4") if family == "mistral" else (None,):
            there = new_model(config, seed=0).requires_grad_(False)
            there = packed(there, format) if format else there
            for compiled in (False, True) if family == "mistral" else (False,):
                apart = decoding_apart(there, setting.device, compiled)
                rows.append({"family": family, "format": format, "compile": compiled, "logits": apart})

    def measure() -> Iterator[Row]:
        yield from rows

    return measure


def decoding_apart(reference: GPT, device: torch.device, compiled: bool) -> float:
    """The largest difference of a logit from that of a forward pass on the CPU."""
    backend = TorchBackend(copy.deepcopy(reference).to(device), 40, compiled=compiled)
    backend.replayed = backend.replayed or Replayed(backend._decoded, device)
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, VOCABULARY, (n,), generator=generator) for n in (3, 90, 150, 70)]
    pages, steps, furthest = [list(range(8 * i, 8 * i + 8)) for i in range(4)], 8, 0.0
    expected = [reference(text[None])[0] for text in texts]
    done = [len(text) - steps if len(text) > steps else 1 for text in texts]
    for number in range(steps + 1):
        mine = [i for i, text in enumerate(texts) if number == 0 or done[i] < len(text)]
        begin = [0 if number == 0 else done[i] for i in mine]
        ends = [done[i] if number == 0 else done[i] + 1 for i in mine]
        new = [texts[i][first:end] for i, first, end in zip(mine, begin, ends, strict=True)]
        starts = [0, *itertools.accumulate(map(len, new))]
        batch = StepBatch.of(
            torch.cat(new).tolist(), starts, begin, [pages[i] for i in mine], [end - 1 for end in starts[1:]]
        )
        for i, end, logits in zip(mine, ends, backend.step(batch).cpu(), strict=True):
            furthest = max(furthest, float((logits - expected[i][end - 1]).abs().max()))
            done[i] = end
    return furthest


def losses(config: GPTConfig, device: torch.device, kind: Literal["adamw", "muon"], steps: int) -> list[float]:
    """The losses of the first steps of a run in float32."""
    settings = Train(
        tokens=ROWS * LENGTH, batch_tokens=ROWS * LENGTH, precision="float32", optimizer=Optimizer(kind=kind)
    )
    recipe = TrainRecipe("benchmark", Data(train=(Mixture("none"),), valid="none", sequence_length=LENGTH), settings)
    model = new_model(config, seed=1, device=device)
    stage = Stage(model, VOCABULARY - 1, settings)
    step = Step(recipe, World(device), stage, make_optimizer(model, settings.optimizer), "float32")
    found = []
    for number in range(steps):
        batch = random_batch(ROWS, LENGTH, VOCABULARY - 1, 64, seed=number % 4)
        found.append(step.gradient(batch).loss)
        step.update(1e-3)
    return found


def equality(setting: Setting) -> Measure:
    """Every family against the CPU, masked and not, in float32 and in bfloat16; then twenty steps."""
    torch.set_num_threads(setting.pick(4, 1))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    batch = random_batch(ROWS, LENGTH, VOCABULARY - 1, 64)
    rows: list[Row] = []
    for family, config in families(setting).items():
        there, here = (new_model(config, seed=0, device=device) for device in ("cpu", setting.device))
        for masks in (True, False):
            reference = passes(there, batch, masks, False)
            for narrow in (False, True):
                found = compare(passes(here, batch, masks, narrow), reference)
                rows.append({"family": family, "masks": masks, "bfloat16": narrow, **found})
    config = families(setting)["gptj"]
    for kind in ("adamw", "muon"):
        pair = [losses(config, device, kind, setting.pick(20, 2)) for device in (torch.device("cpu"), setting.device)]
        apart = max(abs(a - b) / b for a, b in zip(*pair, strict=True))
        rows.append({"optimizer": kind, "losses_apart": apart, "first": pair[1][0], "last": pair[1][-1]})

    def measure() -> Iterator[Row]:
        yield from rows

    return measure
