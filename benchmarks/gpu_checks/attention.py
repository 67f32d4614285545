"""Attention alone, forward and backward, in every way that torch offers."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from bluejay.gpt.attention import VisibleRange, attend_documents, document_bounds
from bluejay.train.data.batches import document_starts
from gpu_checks.rig import Measure, Row, Setting, milliseconds, random_batch

TOKENS, WIDTH = 16384, 2048
"""Of every call; the width is that of all heads together."""


def documents(setting: Setting, rows: int, length: int) -> Tensor:
    """Where the document of each token starts, for documents of 512 tokens on average."""
    inputs = random_batch(rows, length, 100, setting.pick(512, 16)).inputs.to(setting.device)
    return document_starts(inputs, 100)


class Problem:
    """Queries, keys and values in the layout of the products (B T N H), and the documents they belong to."""

    def __init__(self, setting: Setting, length: int, width: int, grouped: bool) -> None:
        self.setting, self.length, self.width = setting, length, width
        rows, heads = setting.pick((TOKENS // length, WIDTH // width), (2, 4))
        self.rows, self.heads, self.grouped = rows, heads, grouped
        shapes = [(rows, length, n, width) for n in (heads, heads // 4 if grouped else heads)]
        q, k, v = (torch.randn(shapes[i], device=setting.device, dtype=torch.bfloat16) for i in (0, 1, 1))
        self.inputs = tuple(x.requires_grad_() for x in (q, k, v))
        self.d_y = torch.randn(shapes[0], device=setting.device, dtype=torch.bfloat16)
        self.starts = documents(setting, rows, length)

    @property
    def flops(self) -> float:
        """FLOPs of forward and backward over whole sequences, looking back only; backward counts 2.5 times forward."""
        return 3.5 * 4 * self.rows * self.heads * self.width * self.length**2 / 2

    def mask(self) -> Tensor:
        """The table of who sees whom (B 1 T T)."""
        order = torch.arange(self.length, device=self.starts.device)
        return ((order <= order[:, None]) & (order >= self.starts[..., None]))[:, None]

    def time(self, attend: Callable[..., Tensor]) -> Row:
        """Milliseconds of forward alone and of both."""
        with torch.no_grad():
            forward = milliseconds(lambda: attend(*self.inputs), self.setting)

        def both() -> None:
            torch.autograd.grad(attend(*self.inputs), self.inputs, self.d_y)

        ms = milliseconds(both, self.setting)
        return {"forward_ms": round(forward, 3), "ms": round(ms, 3), "tflops": round(self.flops / ms / 1e9, 1)}

    @property
    def shape(self) -> Row:
        """What tells it from others."""
        return {"T": self.length, "head": self.width, "heads": [self.heads, self.inputs[1].shape[2]]}


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, backend: SDPBackend | None, grouped: bool) -> Tensor:
    """torch's attention, by one backend or by the one that it chooses."""
    rows = [x.transpose(1, 2) for x in (q, k, v)]
    if grouped and backend == SDPBackend.EFFICIENT_ATTENTION:
        rows = [x if x.shape[1] == q.shape[2] else x.repeat_interleave(4, dim=1) for x in rows]
    options = {"attn_mask": mask, "is_causal": mask is None, "enable_gqa": rows[0].shape[1] != rows[1].shape[1]}
    if backend is None:
        return F.scaled_dot_product_attention(*rows, **options).transpose(1, 2)
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(*rows, **options).transpose(1, 2)


def chosen(problem: Problem, mask: Tensor | None) -> str:
    """The backend that torch chooses."""
    rows = [x.transpose(1, 2) for x in problem.inputs]
    choice = torch._fused_sdp_choice(*rows, attn_mask=mask, is_causal=mask is None, enable_gqa=problem.grouped)
    return {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}.get(choice, str(choice))


def probe(setting: Setting) -> Measure:
    """All ways but flex; each is tried once beforehand, for some are compiled then."""
    shapes = [(2048, width, grouped) for width in (64, 128, 256) for grouped in (False, True)]
    problems = [Problem(setting, *shape) for shape in setting.pick([(1024, 64, False), *shapes], [(32, 16, True)])]
    refused: dict[tuple[int, str], str] = {}
    for number, problem in enumerate(problems):
        for way, attend in ways(problem).items():
            try:
                torch.autograd.grad(attend(*problem.inputs), problem.inputs, problem.d_y)
            except Exception as error:  # what a kernel refuses, it refuses in its own way; the row says how
                refused[number, way] = str(error).splitlines()[0][:120]

    def measure() -> Iterator[Row]:
        for number, problem in enumerate(problems):
            order = torch.arange(problem.length, device=setting.device)
            choices = {"causal": chosen(problem, None), "table": chosen(problem, problem.mask())}
            yield {**problem.shape, "torch_chooses": choices, "documents": int((problem.starts == order).sum())}
            for way, attend in ways(problem).items():
                if (number, way) in refused:
                    yield {"way": way, **problem.shape, "refused": refused[number, way]}
                else:
                    yield {"way": way, **problem.shape, **problem.time(attend)}

    return measure


def ways(problem: Problem) -> dict[str, Callable[..., Tensor]]:
    """The ways to attend, by name."""
    found: dict[str, Callable[..., Tensor]] = {}
    for name, table in (("causal", None), ("table", problem.mask())):
        found[f"{name}, torch's choice"] = partial(sdpa, mask=table, backend=None, grouped=problem.grouped)
        for short, backend in (
            ("flash", SDPBackend.FLASH_ATTENTION),
            ("cudnn", SDPBackend.CUDNN_ATTENTION),
            ("efficient", SDPBackend.EFFICIENT_ATTENTION),
        ):
            found[f"{name}, {short}"] = partial(sdpa, mask=table, backend=backend, grouped=problem.grouped)
    documents = VisibleRange(problem.starts, document_bounds(problem.starts))
    found["varlen"] = partial(attend_documents, visible=documents, scale=problem.width**-0.5)
    return found


def blocks_of(starts: Tensor) -> BlockMask:
    """Which blocks of keys each block of queries sees, for flex attention."""
    B, T = starts.shape

    def sees(b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (k >= starts[b, q])

    return create_block_mask(sees, B, None, T, T, device=str(starts.device), _compile=starts.is_cuda)


def flex(setting: Setting) -> Measure:
    """Flex attention with a mask of documents."""
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    cases = setting.pick(
        ((1024, 64, False), (2048, 128, False), (2048, 128, True), (2048, 256, False)), ((32, 16, False),)
    )
    problems, failed = [Problem(setting, *case) for case in cases], {}

    def attend(q: Tensor, k: Tensor, v: Tensor, *, blocks: object, grouped: bool) -> Tensor:
        rows = [x.transpose(1, 2) for x in (q, k, v)]
        return compiled(*rows, block_mask=blocks, enable_gqa=grouped).transpose(1, 2)

    ways = []
    for problem in problems:
        way = partial(attend, blocks=blocks_of(problem.starts), grouped=problem.grouped)
        ways.append(way)
        try:
            problem.time(way)
        except Exception as error:  # compilers share no class of errors; the row says what happened
            failed[len(ways) - 1] = f"{type(error).__name__}: {str(error)[:150]}"

    def measure() -> Iterator[Row]:
        for number, (problem, way) in enumerate(zip(problems, ways, strict=True)):
            if number in failed:
                yield {"way": "flex", **problem.shape, "refused": failed[number]}
            else:
                yield {"way": "flex", **problem.shape, **problem.time(way)}

    return measure


def nested(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """cuDNN's attention of documents end to end, as nested tensors."""
    shape = q.shape
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(x.flatten(0, 1), bounds, min_seqlen=1, max_seqlen=longest)
        for x in (q, k, v)
    )
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if q.is_cuda else nullcontext():
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
    return y.transpose(1, 2).values().view(shape)


def cudnn(setting: Setting) -> Measure:
    """cuDNN by documents, where it can."""

    def measure() -> Iterator[Row]:
        for length, width in setting.pick(((1024, 64), (2048, 128), (2048, 256)), ((32, 16),)):
            problem = Problem(setting, length, width, False)
            bounds = document_bounds(problem.starts)
            attend = partial(nested, bounds=bounds, longest=int(bounds.diff().max()))
            try:
                y = attend(*problem.inputs)
                documents = VisibleRange(problem.starts, bounds)
                flash = partial(attend_documents, visible=documents, scale=width**-0.5)
                peer = flash(*problem.inputs) if y.is_cuda else y
                apart = float((y - peer).detach().abs().max())
                yield {"way": "cudnn by documents", **problem.shape, "apart": apart, **problem.time(attend)}
            except Exception as error:  # likewise for cuDNN, whose tensors refuse in many classes
                yield {"way": "cudnn by documents", **problem.shape, "refused": str(error).splitlines()[0][:200]}

    return measure
