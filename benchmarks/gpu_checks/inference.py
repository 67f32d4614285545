"""Part b: a model of 1.3 billion weights in training; GPT-J-6B in decoding and in training of adapters."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bluejay import recipe as recipes
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import GPT, Linear, rotary_angles, weight_shapes
from bluejay.gpt.presets import PRESETS, sized
from bluejay.gpt.quantization.format import BLOCK
from bluejay.gpt.quantization.linear import PackedLinear
from bluejay.gpt.quantization.packing import FORMATS, Packed, pack
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.engine import Engine
from bluejay.infer.sampling import SamplingParams
from bluejay.plan import hardware
from bluejay.plan.plan import plan
from bluejay.tokenizer import Tokenizer
from bluejay.train.distributed.parallel import World
from bluejay.train.distributed.stage import Stage
from bluejay.train.initial import InitialModel
from bluejay.train.optimizer import make_optimizer
from bluejay.train.recipe import TrainRecipe
from bluejay.train.step import Step
from gpu_checks.rig import (
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
from gpu_checks.training import card, train

PROMPT = 64
"""Tokens of every prompt."""


def large(setting: Setting, layers: int = 24, **options: Any) -> Measure:
    """Training steps of GPT-J's shape at 1.3 billion weights, sequences of 2,048."""
    full = sized(PRESETS["gpt-j"], layers, 2048, 16, vocab_size=50304)
    tiny = sized(PRESETS["gpt-j"], 2, 64, 2, vocab_size=128, n_ctx=64)
    return train(setting, setting.pick(full, tiny), setting.pick(2, 1), setting.pick(4, 2), **options)


def gpt_j(setting: Setting) -> GPTConfig:
    """GPT-J-6B, or a rehearsal of it with its tokenizer's vocabulary."""
    return setting.pick(PRESETS["gpt-j-6b"], sized(PRESETS["gpt-j"], 2, 64, 2, n_ctx=256))


class Timed:
    """A backend that says how long its steps took."""

    def __init__(self, backend: TorchBackend) -> None:
        self.backend, self.seconds = backend, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def step(self, batch: Any) -> Tensor:
        """The backend's, with the device idle before and after."""
        synchronize(self.backend.device)
        began = time.perf_counter()
        logits = self.backend.step(batch)
        synchronize(self.backend.device)
        self.seconds += time.perf_counter() - began
        return logits


def engine_of(gpt: GPT, n: int, top_p: float | None, tokens: int, compiled: bool) -> Engine:
    """An engine with `n` sequences that have read their prompts."""
    backend = TorchBackend.for_tokens(gpt, [PROMPT + tokens] * n, compiled)
    engine = Engine(Timed(backend), Tokenizer.load("gpt2"), n, max_waiting=n, speculate=False)  # type: ignore[arg-type] - a backend in all but its class
    generator = torch.Generator().manual_seed(0)
    for number in range(n):
        prompt = torch.randint(0, 50000, (PROMPT,), generator=generator).tolist()
        temperature = 0.0 if top_p is None else 0.8
        engine.submit(
            prompt, SamplingParams(max_tokens=tokens, temperature=temperature, top_p=top_p or 1.0, seed=number)
        )
    while any(not running.n_generated for running in engine.running) or not engine.running:
        engine.step()
    return engine


def random_packed(gpt: GPT, format: str) -> GPT:
    """The model with matrices of a quantised format, each of them 16 packed rows over and over."""
    rows: dict[int, Packed] = {}
    for name, linear in list(gpt.named_modules()):
        if isinstance(linear, Linear):
            (n_rows, columns), device = linear.weight.shape, linear.weight.device
            if columns not in rows:
                rows[columns] = pack(0.02 * torch.randn(BLOCK, columns), FORMATS[format])
            one = rows[columns]
            assert one.scales is not None
            data, scales = (part.to(device).repeat(-(-n_rows // BLOCK), 1, 1) for part in (one.data, one.scales))
            whole = Packed(one.format, (n_rows, columns), data, scales)
            gpt.set_submodule(name, PackedLinear(whole, linear.bias))
    return gpt.requires_grad_(False)


def decode(
    setting: Setting, compiled: bool, cases: Sequence[tuple[int, float | None]], format: str | None = None
) -> Measure:
    """Tokens a second of the package's engine, and the share of the time that the model itself takes."""
    gpt = random_model(gpt_j(setting), setting, torch.bfloat16).requires_grad_(False)
    assert gpt.head.weight is not None
    gpt.head.weight.mul_(3)  # or the nucleus would be most of the vocabulary
    gpt = random_packed(gpt, format) if format else gpt
    steps = setting.pick(24, 4)
    cases = setting.pick(cases, [(1, None), (2, 0.9)])
    if compiled:
        for n, top_p in cases:
            engine = engine_of(gpt, n, top_p, steps, True)
            for _ in range(4):
                engine.step()
            del engine
            peak_memory(setting.device, restart=True)

    def measure() -> Iterator[Row]:
        for n, top_p in cases:
            engine = engine_of(gpt, n, top_p, 2 * steps, compiled)
            backend: Any = engine.backend
            for _ in range(3):
                engine.step()
            backend.seconds, began = 0.0, time.perf_counter()
            made = sum(len(engine.step()) for _ in range(steps))
            synchronize(setting.device)
            seconds = time.perf_counter() - began
            yield {
                "n": n,
                "sampling": "greedy" if top_p is None else f"top-p {top_p}",
                "compile": compiled,
                "format": format or "bf16",
                "tokens_per_s": round(made / seconds, 1),
                "step_ms": round(1e3 * seconds / steps, 2),
                "model_ms": round(1e3 * backend.seconds / steps, 2),
                "memory_gb": round(peak_memory(setting.device), 2),
            }
            if top_p is None and n in (1, 64):
                yield {"n": n, **next(profiled(lambda engine=engine: engine.step(), setting))}
            del engine, backend
            peak_memory(setting.device, restart=True)
        if not compiled:
            yield from prefill(gpt, setting)

    return measure


def prefill(gpt: GPT, setting: Setting) -> Iterator[Row]:
    """Reading one long prompt."""
    length = setting.pick(2000, 100)
    for _ in range(2):
        engine = Engine(TorchBackend.for_tokens(gpt, [length + 8]), Tokenizer.load("gpt2"), 1, speculate=False)
        engine.submit(torch.randint(0, 50000, (length,)).tolist(), SamplingParams(max_tokens=1))
        synchronize(setting.device)
        began = time.perf_counter()
        while not engine.idle:
            engine.step()
        synchronize(setting.device)
        seconds = time.perf_counter() - began
    yield {"prefill_tokens": length, "tokens_per_s": round(length / seconds), "seconds": round(seconds, 4)}


class StaticCache:
    """Keys and values of one layer, all slots in place; every sequence is at the same position."""

    def __init__(self, keys: Tensor, values: Tensor, position: Tensor, mask: Tensor, scale: float) -> None:
        self.keys, self.values, self.position, self.mask, self.scale = keys, values, position, mask, scale

    def attend(self, _layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of one query (B N 1 H) to all slots (B K S H) that the mask lets it see."""
        self.keys.index_copy_(2, self.position, k)
        self.values.index_copy_(2, self.position, v)
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q, self.keys, self.values, attn_mask=self.mask, scale=self.scale, enable_gqa=grouped
        )


class MaskedProducts(StaticCache):
    """The same by two plain products, which the compiler can fuse with their neighbours."""

    def attend(self, _layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `StaticCache.attend`."""
        self.keys.index_copy_(2, self.position, k)
        self.values.index_copy_(2, self.position, v)
        scores = (q * self.scale) @ self.keys.transpose(2, 3)
        weights = scores.float().masked_fill(~self.mask, -torch.inf).softmax(-1).to(q.dtype)
        return weights @ self.values


def draw(logits: Tensor, top_p: float | None, temperature: float = 0.8) -> Tensor:
    """One token for each row (B V), all on the device."""
    if top_p is None:
        return logits.argmax(-1)
    values, ids = (logits / temperature).topk(min(1024, logits.shape[1]))
    logs = values - (logits / temperature).logsumexp(-1, keepdim=True)
    shares = logs.exp()
    logs = logs.masked_fill(shares.cumsum(-1) - shares >= top_p, -torch.inf)
    noise = -torch.rand_like(logs).clamp(min=1e-20).log()
    return ids.gather(1, (logs - noise.log()).argmax(-1, keepdim=True))[:, 0]


def static_step(
    gpt: GPT, setting: Setting, n: int, slots: int, top_p: float | None, kind: type[StaticCache]
) -> tuple[Callable[[], None], dict[str, Tensor]]:
    """A decoding step over fixed memory: it reads `tokens` and `position`, and leaves the next ones there."""
    config = gpt.config
    device = setting.device
    state = {"tokens": torch.zeros(n, 1, dtype=torch.long, device=device)}
    state["position"] = torch.full((1,), PROMPT, dtype=torch.long, device=device)
    shape = (n, config.kv_heads, slots, config.d_head)
    memory = [[torch.zeros(shape, dtype=torch.bfloat16, device=device) for _ in range(2)] for _ in gpt.blocks]
    order = torch.arange(slots, device=device)
    angles: Any = rotary_angles(order[None], config)

    @torch.inference_mode()
    def step() -> None:
        position = state["position"]
        x = gpt.embed(state["tokens"])
        rotation = tuple(part.index_select(1, position) for part in angles)
        mask = (order <= position)[None, None, None]
        for block, (keys, values) in zip(gpt.blocks, memory, strict=True):
            x = block(x, rotation, None, kind(keys, values, position, mask, config.scale))
        logits = gpt.logits(gpt.norm(x))[:, 0].float()
        state["tokens"].copy_(draw(logits, top_p)[:, None])
        position.add_(1)

    return step, state


def graphs(setting: Setting, compiled: bool, slots: int, cases: Sequence[tuple[int, float | None]]) -> Measure:
    """What decoding would be with fixed slots, drawing on the device, and one CUDA graph a step."""
    gpt = random_model(gpt_j(setting), setting, torch.bfloat16).requires_grad_(False)
    blocks: Any = gpt.blocks
    for block in blocks:
        block.attention.layer = 0  # or each layer would be compiled for itself
        if compiled:
            block.compile(dynamic=False)
    slots, cases = setting.pick((slots, cases), (128, [(1, None), (2, 0.9)]))
    if compiled:
        torch._dynamo.config.cache_size_limit = 64
        for n in dict.fromkeys(n for n, _ in cases):
            for kind in (StaticCache, MaskedProducts):
                step, _ = static_step(gpt, setting, n, slots, None, kind)
                step()
                step()
                del step
                peak_memory(setting.device, restart=True)

    def measure() -> Iterator[Row]:
        for n, top_p in cases:
            for kind in (StaticCache, MaskedProducts):
                step, _ = static_step(gpt, setting, n, slots, top_p, kind)
                for _ in range(3):
                    step()
                replay = captured(step) if setting.device.type == "cuda" else step
                ms = milliseconds(replay, setting, 20)
                yield {
                    "n": n,
                    "slots": slots,
                    "sampling": "greedy" if top_p is None else f"top-p {top_p}",
                    "compile": compiled,
                    "attention": "sdpa" if kind is StaticCache else "products",
                    "tokens_per_s": round(1e3 * n / ms, 1),
                    "step_ms": round(ms, 3),
                }
                if top_p is None and n in (1, 64) and setting.device.type == "cuda":
                    yield {"n": n, **next(profiled(replay, setting))}
                del step, replay
                peak_memory(setting.device, restart=True)

    return measure


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as one CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def stored(config: GPTConfig) -> StoredModel:
    """A model in bfloat16 whose matrices are cut from one string of random numbers."""
    shapes = weight_shapes(config)
    noise = 0.02 * torch.randn(1 << 24, dtype=torch.bfloat16)

    def read(name: str) -> Tensor:
        if len(shapes[name]) == 1:
            return torch.full(shapes[name], float("norm.weight" in name), dtype=torch.bfloat16)
        return torch.cat([noise] * -(-shapes[name].numel() // len(noise)))[: shapes[name].numel()].view(shapes[name])

    return StoredModel(config, read, torch.bfloat16, lambda: Tokenizer.load("gpt2"), 0)


def adapters(setting: Setting) -> Measure:
    """Steps of adapters for GPT-J-6B after the recipe, and their memory beside `bluejay plan`'s."""
    folder = Path(__file__).parents[2] / "recipes"
    rows = setting.pick(8, 2)
    options = [f"--train.batch_tokens={128 * rows}", f"--train.tokens={1280 * rows}"]
    recipe = recipes.load(TrainRecipe, folder / "train/gpt-j-6b-lora.toml", options)
    model = stored(gpt_j(setting))
    world = World(setting.device)
    gpt = InitialModel(recipe, model.config, model.tokenizer(), model).model(world.device, "bfloat16")
    stage = Stage(gpt, model.tokenizer().eot, recipe.train)
    step = Step(recipe, world, stage, make_optimizer(gpt, recipe.train.optimizer), "bfloat16")
    batch = random_batch(rows, 128, 50256, 64)

    def once() -> float:
        loss = step.gradient(batch).loss
        step.update(1e-4)
        return loss

    once()

    def measure() -> Iterator[Row]:
        peak_memory(setting.device, restart=True)
        ms = milliseconds(once, setting, 4, 1)
        named = torch.cuda.get_device_name() if setting.device.type == "cuda" else ""
        card = hardware.load(folder / f"hardware/{'h200' if 'H200' in named else 'h100'}.toml", ["--devices", "1"])
        try:
            planned = plan(recipe, card)
            expected: Row = {
                "planned_gb": round(planned.memory.total / 1e9, 2),
                "planned_ms": round(1e3 * planned.seconds.total, 1),
            }
        except (ValueError, FileNotFoundError) as error:
            expected = {"planned": str(error)[:200]}
        yield {
            "ms": round(ms, 1),
            "tokens_per_s": round(1e3 * 128 * rows / ms),
            "memory_gb": round(peak_memory(setting.device), 2),
            **expected,
        }

    return measure


BOTH = [(n, top_p) for n in (1, 64, 8) for top_p in (None, 0.9)]
GREEDY = [(1, None), (64, None)]
ROUNDS = [
    [Check("A0", "card", card)],
    [
        Check("B2", "GPT-J-6B, --compile", partial(decode, compiled=True, cases=BOTH)),
        Check("B1", "1.3 B, compiled, masks", partial(large, compile=True, profile=True)),
        Check("B4", "GPT-J-6B, adapters", adapters),
    ],
    [
        Check("B2", "GPT-J-6B in q4, --compile", partial(decode, compiled=True, cases=GREEDY, format="q4")),
        Check("B2", "GPT-J-6B in q8, --compile", partial(decode, compiled=True, cases=GREEDY, format="q8")),
        Check("B2", "GPT-J-6B, eager", partial(decode, compiled=False, cases=[(1, None), (64, 0.9)])),
    ],
    [
        Check("B3", "CUDA graph, compiled blocks", partial(graphs, compiled=True, slots=512, cases=GREEDY)),
        Check("B1", "1.3 B, compiled, no masks", partial(large, compile=True, masks=False)),
    ],
]
