"""The native engine against the model in torch: equal logits for every family, instruction set, format and batch."""

import contextlib
import dataclasses
import multiprocessing
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import from_hugging_face
from bluejay.gpt.model import GPT, matrices_by_input
from bluejay.gpt.quantization.packing import FORMATS, QUANTISED, pack, unpack
from bluejay.infer.backends import StepBatch
from bluejay.infer.backends import native as backend
from bluejay.infer.backends.native import NativeBackend, NativeModel, available, chosen, native_model
from tests.gpt.random_models import CONFIGS, family_fields
from tests.waiting import PATIENCE

pytestmark = pytest.mark.skipif(not available(), reason="built without the native engine")
ISAS = [pytest.param(isa, marks=pytest.mark.slow if isa in available()[1:] else ()) for isa in available()]
"""The one that is used here, and the others, which take long."""
TOLERANCE = {"f32": 1e-5, "bf16": 1.5e-2, "int8": 4e-2, "q8": 0.1, "q4": 0.1}
"""Relative error. In float32 that is the order of sums; below, an input that lies between two steps of bfloat16 or int8
may take either. A step is 1/256 or 1/127 of the largest input of its group, and a group is a whole row here."""


class RoundingCache:
    """Attention over keys and values that are rounded as the engine's cache rounds them."""

    def __init__(self, config: GPTConfig, cache: str) -> None:
        self.config, self.cache = config, cache

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (rounded(x, {"int8": "q8"}.get(self.cache, self.cache), x.shape[-1]) for x in (k, v))
        behind = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
        window = self.config.window if layer in self.config.local_layers else q.shape[2]
        grouped = self.config.kv_heads != self.config.n_head
        mask = (behind >= 0) & (behind < (window or q.shape[2]))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.config.scale, enable_gqa=grouped)


def rounded(x: Tensor, format: str, group: int = 64) -> Tensor:
    """What the engine makes of numbers before it multiplies them: int8 in groups of 64 for both quantised formats."""
    if format == "f32":
        return x
    if format == "bf16":
        return x.bfloat16().float()
    padded = F.pad(x, (0, -x.shape[-1] % group)).unflatten(-1, (-1, group))
    largest = padded.abs().amax(-1, keepdim=True)
    steps = torch.where(largest > 0, padded * (127 / largest), 0.0).round()
    return (steps * (largest / 127)).flatten(-2)[..., : x.shape[-1]]


def random_gpt(config: GPTConfig, seed: int) -> GPT:
    """Weights of the size that training gives them, nothing at a neutral value."""
    torch.manual_seed(seed)
    gpt = GPT(config).requires_grad_(False)
    for name, weight in gpt.named_parameters():
        weight.normal_(
            1.0 if name.endswith("norm.weight") else 0.0, weight.shape[-1] ** -0.5 if weight.dim() == 2 else 0.2
        )
    return gpt


def both(config: GPTConfig, format: str, seed: int) -> tuple[GPT, NativeModel]:
    """A model whose matrices are what the format can hold: in torch, rounding inputs as the engine does, and packed. In
    every other one of the quantised ones inputs are smoothed."""
    gpt = random_gpt(config, seed)
    weights = gpt.state_dict()
    smoothed = format in QUANTISED and seed % 2 == 0
    packed, factors = {}, {}
    for source, names in matrices_by_input(config).items():
        columns = weights[names[0]].shape[1]
        factor = torch.randn(columns).div(4).exp() if smoothed else torch.ones(columns)
        factors |= dict.fromkeys([source, *names], factor)
        packed |= {name: pack(weights[name], FORMATS[format], factor if smoothed else None) for name in names}
    if format in QUANTISED and not config.tied and seed % 3:  # files of earlier versions have it in bfloat16
        packed["embed.weight"] = pack(weights["embed.weight"], QUANTISED["q8"])
    for name, matrix in packed.items():
        weights[name].copy_(unpack(matrix))

    def seen(x: Tensor, factor: Tensor) -> Tensor:
        return rounded(x * factor, format) / factor

    for name, module in gpt.named_modules():
        if isinstance(module, torch.nn.Linear):
            factor = factors[f"{name}.weight"]
            module.register_forward_pre_hook(lambda _, args, factor=factor: (seen(args[0], factor),))
        elif name == "norm":
            module.register_forward_hook(lambda _, __, out: seen(out, factors["norm"]))
    return gpt, NativeModel(config, packed.get, weights.__getitem__)


def steps_of(prompts: list[np.ndarray], cuts: list[list[int]], n_pages: int, page: int, seed: int):
    """Batches that read some prompts piece by piece, all of them side by side, on pages in no order."""
    table = np.random.default_rng(seed).permutation(n_pages).astype(np.int32)
    width = n_pages // len(prompts)
    read = [0] * len(prompts)
    while any(done < len(prompt) for done, prompt in zip(read, prompts, strict=True)):
        rows = [i for i, prompt in enumerate(prompts) if read[i] < len(prompt)]
        new = [prompts[i][read[i] : read[i] + cuts[i][0]] for i in rows]
        lengths = np.array([read[i] for i in rows], np.int32)
        for i, tokens in zip(rows, new, strict=True):
            read[i] += len(tokens)
            cuts[i] = cuts[i][1:] or [1]
        pages = np.full((len(rows), width + 1), -1, np.int32)
        for at, i in enumerate(rows):
            used = -(-read[i] // page)
            pages[at, :used] = table[i * width : i * width + used]
        tokens = np.concatenate(new).astype(np.int32)
        starts = np.cumsum([0, *map(len, new)]).astype(np.int32)
        yield rows, StepBatch(tokens, starts, lengths, pages, np.arange(len(tokens), dtype=np.int32))


def logits_of(backend: NativeBackend, prompts: list[np.ndarray], cuts: list[list[int]], seed: int) -> list[Tensor]:
    """The logits after every token of some prompts, read in pieces."""
    found: list[list[Tensor]] = [[] for _ in prompts]
    for rows, batch in steps_of(prompts, cuts, backend.n_pages, backend.page_size, seed):
        for i, part in zip(rows, backend.step(batch).tensor_split(batch.starts[1:-1].tolist()), strict=True):
            found[i].append(part)
    return [torch.cat(parts) for parts in found]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("family", CONFIGS)
@settings(max_examples=4, deadline=None)
@given(
    data=st.data(),
    seed=st.integers(0, 99),
    format=st.sampled_from(list(FORMATS)),
    cache=st.sampled_from(["f32", "bf16", "int8"]),
    threads=st.integers(1, 3),
)
def test_logits_are_those_of_torch_whatever_the_batch(family, isa, data, seed, format, cache, threads):
    config = from_hugging_face(CONFIGS[family](**data.draw(family_fields(family))).to_dict())
    gpt, model = both(config, format, seed)
    backend = NativeBackend(model, 24, cache=cache, isa=isa, threads=threads)
    rng = np.random.default_rng(seed)
    sizes = data.draw(st.lists(st.integers(1, 70), min_size=1, max_size=3))
    prompts = [rng.integers(0, config.vocab_size, size) for size in sizes]
    cuts = [data.draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 13, 30]), min_size=1, max_size=6)) for _ in sizes]
    tolerance = max(TOLERANCE[format], TOLERANCE[cache])
    for prompt, logits in zip(prompts, logits_of(backend, prompts, cuts, seed), strict=True):
        with torch.no_grad():
            expected = gpt(torch.from_numpy(prompt)[None], cache=RoundingCache(config, cache))[0]
        assert (logits - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("isa", available())
@pytest.mark.parametrize("format", FORMATS)
def test_a_row_has_the_same_bits_in_every_batch(isa, format):
    config = GPTConfig(n_layer=2, d_model=96, n_head=3, vocab_size=270, n_ctx=64)
    _, model = both(config, format, 0)
    backend = NativeBackend(model, 24, isa=isa, threads=2)
    prompts = [np.random.default_rng(i).integers(0, 270, size) for i, size in enumerate((40, 25, 33))]
    together = logits_of(backend, prompts, [[13, 1, 9], [1, 1, 20], [30, 2]], 1)
    for prompt, logits in zip(prompts, together, strict=True):
        assert torch.equal(logits, logits_of(backend, [prompt], [[len(prompt)]], 2)[0])


@pytest.mark.parametrize("isa", available())
@pytest.mark.parametrize(("vocab_size", "format"), [(16, "f32"), (5003, "bf16"), (270, "q8"), (5003, "q4")])
def test_scores_are_those_of_its_logits_and_hidden_states_are_the_heads_input(isa, vocab_size, format):
    config = GPTConfig(n_layer=2, d_model=96, n_head=3, vocab_size=vocab_size, n_ctx=64)
    gpt, model = both(config, format, 1)  # an odd seed: without smoothing, which the head would expect in its input
    backend = NativeBackend(model, 8, isa=isa, threads=2)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, vocab_size, size) for size in (40, 9)]
    for _, batch in steps_of(prompts, [[30], [9]], 8, backend.page_size, 0):
        batch = dataclasses.replace(batch, wanted=batch.wanted[::2].copy())
        logits = backend.step(batch)
        targets = rng.integers(0, vocab_size, len(logits)).astype(np.int32)
        targets[0] = int(logits[0].argmax())
        scores = backend.score(batch, targets)
        of_target = logits.gather(1, torch.from_numpy(targets).long()[:, None])[:, 0]
        assert torch.allclose(scores[:, 0], of_target - logits.double().logsumexp(-1).float(), atol=1e-5, rtol=1e-6)
        assert torch.equal(scores[:, 1], logits.amax(-1) - of_target) and scores[0, 1] == 0
        repeated = dataclasses.replace(batch, wanted=np.repeat(batch.wanted, 3))
        several = backend.score(repeated, np.stack((targets[::-1], targets, targets), 1).reshape(-1))
        assert torch.equal(several[1::3], scores) and torch.equal(several[2::3], scores)
        assert backend.score(dataclasses.replace(batch, wanted=batch.wanted[:0]), targets[:0]).shape == (0, 2)
        weight, bias = gpt.unembedding
        hidden = rounded(backend.hidden(batch), format)
        assert hidden.shape == (len(logits), 96)
        expected = F.linear(hidden, weight, bias)
        assert (logits - expected).norm() < TOLERANCE[format] * expected.norm()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_no_number_shows_in_the_score(value):
    config = GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=270, n_ctx=64)
    for row in (0, 100, 269):
        gpt = random_gpt(config, 0)
        gpt.head.bias[row] = value
        prompt = np.arange(3, dtype=np.int32)
        batch = StepBatch(prompt, np.array([0, 3], np.int32), np.zeros(1, np.int32), np.zeros((1, 1), np.int32), prompt)
        assert not NativeBackend(native_model(gpt), 1).score(batch, prompt + 5).isfinite().all()


@pytest.mark.parametrize("isa", available())
@pytest.mark.parametrize(("size", "step"), [(1, 1e-6), (15, 1e-6), (300, 0.5), (5003, 1e-6), (9000, 0.25)])
def test_draws_are_of_the_likeliest_tokens_and_of_equal_ones_the_first(isa, size, step):
    _, model = both(GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=270, n_ctx=64), "f32", 0)
    backend = NativeBackend(model, 1, isa=isa, threads=2)
    generator = np.random.default_rng(size)
    logits = ((2 * generator.standard_normal(size) / step).round() * step).astype(np.float32)
    weights = np.exp(logits.astype(np.float64))
    likeliest = np.argsort(-weights, kind="stable")
    until = weights[likeliest].cumsum() / weights.sum()
    for n in sorted({1, (size + 1) // 2, size}):
        top_p = (until[n - 1] + (until[n - 2] if n > 1 else 0)) / 2
        kept = np.sort(likeliest[:n])
        share = weights[kept] / weights[kept].sum()
        some = generator.permutation(n)[:50]
        # Numbers of a quarter and of three quarters of the share of each token.
        for numbers in (share.cumsum()[some] - 0.75 * share[some], share.cumsum()[some] - 0.25 * share[some]):
            filters = np.tile([1.0, 0.0, top_p, 0.0, 1.0], (len(some), 1))
            rows = torch.from_numpy(logits).expand(len(some), -1)
            assert backend.draw(rows, filters, numbers) == kept[some].tolist()


@pytest.mark.parametrize("isa", available())
def test_a_batch_that_wants_no_row_gives_none(isa):
    """Also before anything was scored; the tokens are in the cache afterwards."""
    _, model = both(GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=270, n_ctx=64), "f32", 0)
    tokens, none = np.arange(5, dtype=np.int32), np.zeros(0, np.int32)
    starts, lengths, pages = np.array([0, 5], np.int32), np.zeros(1, np.int32), np.zeros((1, 1), np.int32)
    batch = StepBatch(tokens, starts, lengths, pages, none)
    six = StepBatch(np.append(tokens, 7).astype(np.int32), np.array([0, 6], np.int32), lengths, pages, tokens[:1] + 5)
    one = StepBatch(tokens[:1] + 7, np.array([0, 1], np.int32), lengths + 5, pages, tokens[:1])
    whole = NativeBackend(model, 1, isa=isa).step(six)
    for after in (False, True):
        backend = NativeBackend(model, 1, isa=isa)
        if after:
            backend.score(dataclasses.replace(batch, wanted=tokens), tokens)
        assert backend.score(batch, none).shape == (0, 2)
        assert backend.step(batch).shape == (0, 270) and backend.hidden(batch).shape == (0, 64)
        assert torch.allclose(backend.step(one), whole, atol=1e-5)


def test_a_target_outside_the_vocabulary_is_refused():
    _, model = both(GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=270, n_ctx=64), "f32", 0)
    one = np.zeros(1, np.int32)
    batch = StepBatch(one, np.array([0, 1], np.int32), one, one[None], one)
    for target in (-1, 270):
        with pytest.raises(ValueError, match="a target is outside the vocabulary"):
            NativeBackend(model, 1).score(batch, np.array([target], np.int32))
    with pytest.raises(ValueError, match="each wanted token has one target"):
        NativeBackend(model, 1).score(batch, np.array([1, 2], np.int32))


def test_of_the_first_step_nothing_may_be_wanted_and_of_none_more_than_its_tokens():
    _, model = both(GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=270, n_ctx=64), "f32", 0)
    one, none = np.zeros(1, np.int32), np.zeros(0, np.int32)
    batch = StepBatch(one, np.array([0, 1], np.int32), one, one[None], none)
    assert NativeBackend(model, 1).score(batch, none).shape == (0, 2)
    with pytest.raises(ValueError, match="more rows are wanted than tokens are given"):
        NativeBackend(model, 1).step(dataclasses.replace(batch, wanted=np.zeros(2, np.int32)))


def test_a_copied_page_holds_what_its_source_held():
    config = GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=270, n_ctx=64)
    _, model = both(config, "q8", 0)
    backend = NativeBackend(model, 4, cache="int8")
    prompt = np.arange(12, dtype=np.int32)
    read = StepBatch(prompt, np.array([0, 12], np.int32), np.zeros(1, np.int32), np.array([[1]], np.int32), prompt[-1:])
    backend.step(read)
    backend.copy_page(1, 3)
    token, starts = np.array([5], np.int32), np.array([0, 1], np.int32)
    first, second = (
        backend.step(StepBatch(token, starts, np.array([12], np.int32), np.array([[page]], np.int32), starts[:1]))
        for page in (1, 3)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("tokens", [270, 1], "vocabulary"),
        ("tokens", [-1, 1], "vocabulary"),
        ("starts", [0, 3], "starts"),
        ("starts", [1, 2], "starts"),
        ("lengths", [-1], "negative"),
        ("lengths", [40], "too few pages"),
        ("pages", [[-1, -1]], "page"),
        ("pages", [[4, 0]], "page"),
        ("wanted", [2], "wanted"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_before_memory_is_touched(field, value, says):
    _, model = both(GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=270, n_ctx=64), "f32", 0)
    backend = NativeBackend(model, 4)
    fields = {"tokens": [1, 2], "starts": [0, 2], "lengths": [0], "pages": [[0, 1]], "wanted": [1]} | {field: value}
    with pytest.raises(ValueError, match=says):
        backend.step(StepBatch(**{name: np.array(number, np.int32) for name, number in fields.items()}))


def test_a_cache_that_memory_cannot_hold_is_refused_with_the_figure():
    config = GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=270, n_ctx=64)
    _, model = both(config, "f32", 0)
    with pytest.raises(ValueError, match=r"needs [0-9.]+ GB and [0-9.]+ GB are free"):
        NativeBackend(model, 1 << 30)


SMALL = GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=270, n_ctx=64)


def batch_of(n_tokens: int) -> StepBatch:
    """One sequence on the pages from 0 on, of which the last logits are wanted."""
    tokens, pages = np.arange(n_tokens, dtype=np.int32) % 270, np.arange(-(-n_tokens // 16), dtype=np.int32)[None]
    return StepBatch(tokens, np.array([0, n_tokens], np.int32), np.zeros(1, np.int32), pages, tokens[:1] + n_tokens - 1)


@contextlib.contextmanager
def memory_left(n_bytes: int) -> Iterator[None]:
    """The process gets no more memory than so much."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_that_memory_cannot_hold_and_threads_that_do_not_start_fail_alone():
    model = native_model(random_gpt(SMALL, 0))
    backend = NativeBackend(model, 2000)
    with memory_left(1 << 25), pytest.raises(MemoryError):
        backend.step(batch_of(30_000))
    with memory_left(1 << 26), pytest.raises(RuntimeError, match="the system does not start 500 threads"):
        NativeBackend(model, 2, threads=500)
    assert torch.equal(backend.step(batch_of(30)), NativeBackend(model, 2, threads=2).step(batch_of(30)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_to_load_the_model_itself():
    model = native_model(random_gpt(SMALL, 0))
    backends = [NativeBackend(model, 2, threads=2)]
    expected = backends[0].step(batch_of(30)).tolist()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def use() -> None:
        with pytest.raises(RuntimeError) as refused:
            backends[0].step(batch_of(30))
        message = str(refused.value)
        del refused
        backends.clear()  # which ends without its threads
        theirs.send((message, NativeBackend(model, 2, threads=2).step(batch_of(30)).tolist()))

    process = context.Process(target=use)
    process.start()
    try:
        assert ours.poll(PATIENCE)
        message, found = ours.recv()
    finally:
        process.kill()
        process.join()
    assert message == "the model was loaded in another process; call bluejay.load in this one" and found == expected


def test_an_instruction_set_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("BLUEJAY_ISA", "mmx")
    with pytest.raises(ValueError, match=r"BLUEJAY_ISA is mmx; this machine has .*portable"):
        chosen()


def test_weights_that_do_not_fit_the_configuration_are_refused():
    config = GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=270, n_ctx=64)
    _, model = both(config, "f32", 0)
    model.config = dataclasses.replace(config, d_ff=128)
    with pytest.raises(ValueError, match=r"mlp\.up\.weight does not have the shape"):
        NativeBackend(model, 4)


def test_a_package_without_the_engine_says_so_once(monkeypatch, capfd):
    monkeypatch.setattr(backend, "native", None)
    monkeypatch.delenv("BLUEJAY_ISA", raising=False)
    backend.say_absent.cache_clear()
    assert [chosen(), chosen()] == [None, None]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("torch does the work here") and "`apt install g++ python3-dev`" in line
    backend.say_absent.cache_clear()
    monkeypatch.setenv("BLUEJAY_ISA", "torch")  # then torch is meant
    assert chosen() is None and capfd.readouterr().err == ""
