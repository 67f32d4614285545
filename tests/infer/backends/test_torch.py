"""The torch backend gives the model's own logits, with bits that do not depend on the rest of the batch."""

import dataclasses
import os
import resource
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.model import GPT, Linear
from bluejay.gpt.quantization.linear import PackedLinear
from bluejay.gpt.quantization.packing import FORMATS, pack
from bluejay.infer.backends import StepBatch, decoding
from bluejay.infer.backends.replay import Replayed
from bluejay.infer.backends.torch import TorchBackend, allocate

PAGE, N_PAGES = 8, 80
GPT_J = GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=50, n_ctx=160)
SHAPES = [
    GPT_J,
    dataclasses.replace(
        GPT_J, parallel=False, n_norm=2, rotary="rotate_half", rotary_scaling=None, qkv_bias=True, out_bias=True
    ),
    dataclasses.replace(GPT_J, parallel=False, n_norm=2, rotary="none", learned_positions=True, tied=True),
    dataclasses.replace(
        GPT_J, n_head=4, n_kv_head=2, norm="rmsnorm", gated=True, activation="silu", rotary="rotate_half"
    ),
    dataclasses.replace(GPT_J, window=20, local_layers=(1,), attention_scale=1.0),
]


def random_gpt(config: GPTConfig, seed: int, dtype: torch.dtype = torch.float32) -> GPT:
    generator = torch.Generator().manual_seed(seed)
    gpt = GPT(config)
    for parameter in gpt.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * config.d_model**-0.5
    return gpt.to(dtype).requires_grad_(False)


class Driver:
    """Feeds sequences to a backend in pieces, each sequence with its own pages."""

    def __init__(self, gpt: GPT, page_order: list[int]) -> None:
        self.backend = TorchBackend(gpt, N_PAGES, PAGE)
        self.free = page_order
        self.tables: dict[int, list[int]] = {}
        self.done: dict[int, int] = {}

    def step(self, pieces: dict[int, list[int]]) -> dict[int, torch.Tensor]:
        """New tokens by sequence; the logits of all of them by sequence."""
        for key, new in pieces.items():
            table = self.tables.setdefault(key, [])
            while len(table) * PAGE < self.done.setdefault(key, 0) + len(new):
                table.append(self.free.pop())
        sizes = [len(new) for new in pieces.values()]
        width = max(len(self.tables[key]) for key in pieces)
        logits = self.backend.step(
            StepBatch(
                tokens=np.concatenate([np.array(new, np.int32) for new in pieces.values()]),
                starts=np.cumsum([0, *sizes]).astype(np.int32),
                lengths=np.array([self.done[key] for key in pieces], np.int32),
                pages=np.array([t + [-1] * (width - len(t)) for t in map(self.tables.get, pieces)], np.int32),
                wanted=np.arange(sum(sizes), dtype=np.int32),
            )
        )
        for key, new in pieces.items():
            self.done[key] += len(new)
        return dict(zip(pieces, logits.split(sizes), strict=True))


@st.composite
def schedules(draw):
    """Sequences of tokens, and the steps in which they are computed: how many tokens of which."""
    tokens = draw(st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=150), min_size=1, max_size=4))
    left, steps = {i: len(one) for i, one in enumerate(tokens)}, []
    while left:
        chosen = draw(st.sets(st.sampled_from(sorted(left)), min_size=1))
        steps.append({i: min(left[i], draw(st.sampled_from([1, 1, 2, 5, 13, 70, 150]))) for i in sorted(chosen)})
        left = {i: n - steps[-1].get(i, 0) for i, n in left.items() if n > steps[-1].get(i, 0)}
    return tokens, steps


def follow(gpt: GPT, tokens, steps, page_order) -> dict[int, torch.Tensor]:
    driver, found = Driver(gpt, page_order), {i: [] for i in range(len(tokens))}
    for step in steps:
        pieces = {i: tokens[i][driver.done.get(i, 0) :][:n] for i, n in step.items()}
        for i, logits in driver.step(pieces).items():
            found[i].append(logits)
    return {i: torch.cat(rows) for i, rows in found.items()}


@pytest.mark.parametrize("config", SHAPES)
@settings(max_examples=8, deadline=None)
@given(schedules(), st.permutations(range(N_PAGES)), st.integers(0, 9))
def test_logits_equal_the_models_however_the_work_is_divided(config, schedule, page_order, seed):
    gpt = random_gpt(config, seed)
    tokens, steps = schedule
    for i, logits in follow(gpt, tokens, steps, list(page_order)).items():
        torch.testing.assert_close(logits, gpt(torch.tensor([tokens[i]]))[0], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d_model", [64, 320])
@settings(max_examples=10, deadline=None)
@given(schedules(), st.permutations(range(N_PAGES)))
def test_bits_depend_neither_on_the_batch_nor_on_the_steps(dtype, d_model, schedule, page_order):
    gpt = random_gpt(dataclasses.replace(GPT_J, d_model=d_model, d_ff=2 * d_model), 0, dtype)
    tokens, steps = schedule
    for i, logits in follow(gpt, tokens, steps, list(page_order)).items():
        [alone] = follow(gpt, [tokens[i]], [{0: len(tokens[i])}], list(range(N_PAGES))).values()
        assert torch.equal(logits, alone)


def test_a_copied_page_holds_the_same():
    gpt = random_gpt(GPT_J, 0)
    tokens = list(range(PAGE + 3))
    driver = Driver(gpt, list(range(N_PAGES)))
    driver.step({0: tokens[:-1]})
    driver.tables[1] = [driver.tables[0][0], 0]
    driver.backend.copy_page(driver.tables[0][1], 0)
    driver.done[1] = driver.done[0]
    both = driver.step({0: tokens[-1:], 1: tokens[-1:]})
    assert torch.equal(both[0], both[1])


def test_a_cache_larger_than_memory_is_refused_with_its_size():
    with pytest.raises(ValueError, match=r"cache needs 4000000000\.0 GB, which is more than is available"):
        allocate((10**9, 10**9), torch.float32, torch.device("cpu"))


def check_compiled_steps(config: GPTConfig, format: str | None) -> None:
    gpt = random_gpt(dataclasses.replace(config, n_ctx=400), 0)
    for name, linear in list(gpt.named_modules()) if format else ():
        if isinstance(linear, Linear):
            gpt.set_submodule(name, PackedLinear(pack(linear.weight, FORMATS[format]), linear.bias))
    tokens = [[(7 * i + j) % 50 for j in range(60 + 110 * i)] for i in range(3)]
    driver = Driver(gpt, list(range(N_PAGES)))
    driver.backend = TorchBackend(gpt, N_PAGES, PAGE, compiled=True)
    driver.step({i: one[:-5] for i, one in enumerate(tokens)})
    for at in range(-5, 0):  # one sequence, then three, then two: some with one span of keys, some with two
        rows = ([1], [0, 1, 2], [0, 2], [1, 2], [0])[at + 5]
        for i, logits in driver.step({i: [tokens[i][driver.done[i]]] for i in rows}).items():
            expected = gpt(torch.tensor([tokens[i][: driver.done[i]]]))[0, -1:]
            torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
    # One token, or any number of them, in a layer with a window or without, but not each layer and size by itself.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= (4 if config.window else 2)
    # A step touches what it reads of the cache, and never copies the rest. Memory that is not touched takes no room.
    one = TorchBackend(gpt, 200_000, PAGE, compiled=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    one.step(StepBatch.of([1], [0, 1], [0], [[0]], [0]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < one.keys_values.nbytes / 4


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "format"), [(0, None), (3, "q8"), (4, "q4")])
def test_compiled_steps_give_the_same_logits(shape, format):
    # A process of its own: torch.compile cannot see through the checks of annotations that the tests add.
    program = f"from tests.infer.backends import test_torch as t; t.check_compiled_steps(t.SHAPES[{shape}], {format!r})"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True)


@pytest.mark.slow
def test_compiled_steps_give_the_same_tokens(tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "model")
    program = "import sys; from bluejay.cli import main; main(sys.argv[1:])"
    asked = ["generate", str(tmp_path / "model"), "To be", "--max-tokens", "24", "--temperature", "0", "-n", "2"]
    eager, compiled = (
        subprocess.run(
            [sys.executable, "-c", program, *asked, *more],
            env=os.environ | {"BLUEJAY_ISA": "torch"},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        for more in ([], ["--compile"])
    )
    assert eager == compiled


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_steps_whose_inputs_stay_in_place_give_the_same_logits(shape):
    """What a GPU records, run without recording: sequences come and go, and grow past a multiple of the keys."""
    gpt, generator = random_gpt(SHAPES[shape], 0), np.random.default_rng(0)
    plain, placed = (Driver(gpt, list(range(N_PAGES))) for _ in range(2))
    placed.backend.replayed = Replayed(placed.backend._decoded, placed.backend.device)
    texts = {key: generator.integers(0, 50, n).tolist() for key, n in enumerate((3, 90, 40))}
    first, second = plain.step(texts), placed.step(texts)
    for step in range(12):
        some = {key: [step + key] for key in texts if step % 4 != key}
        first, second = plain.step(some), placed.step(some)
        for key in some:
            torch.testing.assert_close(second[key], first[key], rtol=1e-4, atol=1e-5)
    assert len(placed.backend.replayed.places) == 2  # for 2 and for 3 or 4 rows


def attend_in_torch(q, keys_values, pages, positions, page_size, scale, window):
    """What the kernel for GPUs computes."""
    rows = []
    for row, position in enumerate(positions.tolist()):
        seen = torch.arange(max(0, position + 1 - window) if window else 0, position + 1)
        keys, values = keys_values[:, None, :, pages[row, seen // page_size] * page_size + seen % page_size]
        one = F.scaled_dot_product_attention(q[row][None, :, None], keys, values, scale=scale, enable_gqa=True)
        rows.append(one[0, :, 0])
    return torch.stack(rows)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_steps_that_read_pages_in_place_have_one_shape_for_each_number_of_rows(shape, monkeypatch):
    monkeypatch.setattr(decoding, "attention_in_place", lambda: attend_in_torch)
    check_pages_in_place(SHAPES[shape])


def check_pages_in_place(config: GPTConfig) -> None:
    gpt, generator = random_gpt(dataclasses.replace(config, n_ctx=400), 0), np.random.default_rng(0)
    plain, placed = (Driver(gpt, generator.permutation(N_PAGES).tolist()) for _ in range(2))
    placed.backend.replayed = Replayed(placed.backend._decoded, placed.backend.device)
    placed.backend.in_place = True
    texts = {key: generator.integers(0, 50, n).tolist() for key, n in enumerate((3, 250, PAGE))}
    plain.step(texts), placed.step(texts)
    for step in range(10):  # past the end of a page, and past a multiple of keys
        some = {key: [step + key] for key in texts if step % 4 != key}
        first, second = plain.step(some), placed.step(some)
        for key in some:
            torch.testing.assert_close(second[key], first[key], rtol=1e-4, atol=1e-5)
    assert len(placed.backend.replayed.places) == 2  # for 2 and for 3 or 4 rows


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_any_gpu_records_while_other_threads_use_it_and_calls_what_it_cannot_record():
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    ended = threading.Event()

    def allocate_and_free() -> None:
        while not ended.is_set():
            torch.zeros(1 << 24, device=device)
            torch.cuda.empty_cache()

    thread = threading.Thread(target=allocate_and_free)
    thread.start()
    try:
        for function, recorded in ((lambda x: x * 2 + 1, True), (lambda x: x * x.shape[0] + x.sum().item(), False)):
            replayed, stream = Replayed(function, device), torch.cuda.current_stream()
            for size in (3, 5, 3):
                x = torch.arange(size, device=device)
                assert torch.equal(replayed(x), function(x))
            assert all((place.graph is not None) == recorded for place in replayed.places.values())
            assert torch.cuda.current_stream() == stream
    finally:
        ended.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("parts", [1, 16])
def test_pages_read_in_place_give_the_same_logits(shape, parts):
    """The kernel for GPUs in Triton's interpreter, which has to be asked for before Triton is imported."""
    program = f"""
from bluejay.infer.backends import paged
from tests.infer.backends import test_torch
paged.MOST_PARTS = {parts}
test_torch.check_pages_in_place(test_torch.SHAPES[{shape}])
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], env=environment, check=True)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("target", [("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx942", 64)])
def test_the_kernels_that_read_pages_in_place_are_compiled_for_gpus(target):
    """Triton's compilers need no GPU. A process of its own, whose warnings are not ours."""
    program = f"from tests.infer.backends import test_torch as t; t.compile_kernels(*{target})"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True)


def compile_kernels(backend: str, architecture: int | str, warp: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bluejay.infer.backends.paged import attend_head, join_parts

    for d_head, kind, parts in ((256, "bf16", 1), (256, "bf16", 16), (80, "fp32", 4)):
        of_type = {"scale": "fp32", "window": "i32"} | dict.fromkeys(("pages", "positions"), "*i64")
        of_type |= dict.fromkeys(("q", "keys", "values", "out"), f"*{kind}")
        of_type |= {"totals": f"*{kind}" if parts == 1 else "*fp32", "weights": "*fp32"}
        sizes = {"D_HEAD": d_head, "WIDTH": triton.next_power_of_2(d_head), "GROUP": 1, "PAGE": 32, "PARTS": parts}
        for kernel in (attend_head, join_parts):
            constants = {name: sizes[name] for name in kernel.arg_names if name in sizes}
            types = {name: "constexpr" if name in sizes else of_type.get(name, "i64") for name in kernel.arg_names}
            made = triton.compile(ASTSource(kernel, types, constants), target=GPUTarget(backend, architecture, warp))
            assert made.asm.keys() & {"cubin", "hsaco"}


@pytest.mark.parametrize("block", [32, 128])
def test_blocks_of_another_size_give_the_same_logits(block):
    gpt = random_gpt(SHAPES[4], 0)
    wide = Driver(gpt, list(range(N_PAGES)))
    wide.backend = TorchBackend(gpt, N_PAGES, PAGE, block=block)
    text = np.random.default_rng(0).integers(0, 50, 150).tolist()
    found = torch.cat([wide.step({0: text[:140]})[0], wide.step({0: text[140:]})[0]])
    torch.testing.assert_close(found, Driver(gpt, list(range(N_PAGES))).step({0: text})[0], rtol=1e-4, atol=1e-5)
