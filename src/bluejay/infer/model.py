"""A model that one can talk to: weights, tokenizer and the calls people make."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from bluejay.gpt.formats.layouts import open_model, read_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.model import GPT
from bluejay.infer.backends import Backend, StepBatch
from bluejay.infer.backends.native import NativeBackend, NativeModel, chosen, native_model
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.engine import Chunk, Engine
from bluejay.infer.sampling import SamplingParams
from bluejay.tokenizer import Tokenizer

PAGE = 32
"""Tokens in one page of torch's key-value cache."""
PIECE = 256
"""Tokens that are scored at a time, which bounds the memory for their logits."""


@dataclass(frozen=True)
class Score:
    """How likely a model finds a text."""

    tokens: list[int]
    logprobs: list[float]
    """Natural logarithm of each token's probability, given all before it (at least half a context)."""
    n_bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Bits that the text costs per byte of its UTF-8 form; lower is better, and tokenizers compare fairly."""
        return -sum(self.logprobs) / math.log(2) / self.n_bytes


class Model:
    """A model with its tokenizer. Made by `bluejay.load`."""

    licence: str | None = None
    """As its files state it."""
    card: str = ""
    """The README.md in its directory."""

    compiled: bool = False
    """Whether torch compiles its steps, where it does the work."""

    def __init__(self, weights: GPT | NativeModel, tokenizer: Tokenizer, name: str = "model") -> None:
        self.weights = weights
        self.config = weights.config
        self.tokenizer = tokenizer
        self.name = name

    @property
    def gpt(self) -> GPT:
        """The weights as torch has them; quantised ones in the native engine's form have no such thing."""
        assert isinstance(self.weights, GPT)
        return self.weights

    @cached_property
    def native(self) -> NativeModel | None:
        """The weights as the native engine has them; None where torch does the work."""
        if isinstance(self.weights, NativeModel):
            return self.weights
        weight = self.weights.embed.weight
        exact = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)
        return native_model(self.weights) if exact and chosen() else None

    def backend(self, n_sequences: int, n_tokens: int) -> Backend:
        """What runs the model, with a cache for so many sequences of so many tokens.

        Raises ValueError when there is no memory for it.
        """
        if self.native is None:
            return TorchBackend(self.gpt, n_sequences * -(-n_tokens // PAGE), PAGE, self.compiled)
        full = isinstance(self.weights, GPT) and self.gpt.embed.weight.dtype == torch.float32
        pages = n_sequences * -(-n_tokens // NativeBackend.page)
        return NativeBackend(self.native, pages, cache="f32" if full else "bf16")

    def generate(self, prompt: str, params: SamplingParams | None = None) -> list[str]:
        """Continue a prompt; the n completions, without the prompt. Raises ValueError when it is too long."""
        params = params or SamplingParams()
        texts = [""] * params.n
        for chunk in self.stream(prompt, params):
            texts[chunk.index] += chunk.text
        return texts

    def stream(self, prompt: str, params: SamplingParams | None = None) -> Iterator[Chunk]:
        """Continue a prompt, giving each piece as it comes; the n samples advance together."""
        params = params or SamplingParams()
        tokens = self.tokenizer.encode_prompt(prompt)
        n_sequences = min(params.n, 8)
        n_tokens = min(len(tokens) + params.max_tokens, self.config.n_ctx)
        engine = Engine(self.backend(n_sequences, n_tokens), self.tokenizer, n_sequences)
        engine.submit(tokens, params)
        while not engine.idle:
            for _, chunk in engine.step():
                yield chunk

    @torch.inference_mode()
    def score(self, text: str) -> Score:
        """Log-probability of every token of a text that begins a document.

        Texts longer than the context are read in windows that overlap by half, each token scored once, in the first
        window that holds it. Raises ValueError for an empty text.
        """
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise ValueError("an empty text has no score")
        prefix = self.tokenizer.begin or [self.tokenizer.eot]
        context = prefix + tokens
        n_ctx = self.config.n_ctx
        backend = self.backend(1, n_ctx)
        pages = np.arange(backend.n_pages, dtype=np.int32)[None]
        logprobs: list[float] = []
        while len(logprobs) < len(tokens):
            # The window starts so that what is scored next has half a context before it, or all there is.
            before = len(prefix) + len(logprobs) - 1
            start = max(0, before - n_ctx // 2) if logprobs else 0
            window = np.array(context[start : start + n_ctx + 1], np.int32)
            for at in range(0, len(window) - 1, PIECE):
                piece, targets = window[at : at + PIECE], window[at + 1 : at + 1 + PIECE]
                wanted = np.arange(max(0, before - start - at), len(targets), dtype=np.int32)
                before += len(wanted)
                starts, lengths = np.array([0, len(targets)], np.int32), np.array([at], np.int32)
                logits = backend.step(StepBatch(piece[: len(targets)], starts, lengths, pages, wanted))
                following = torch.from_numpy(targets[wanted].astype(np.int64))[:, None].to(logits.device)
                logprobs += logits.log_softmax(-1).gather(1, following)[:, 0].tolist()
        return Score(tokens, logprobs, len(text.encode()))


def device_named(name: str | torch.device) -> torch.device:
    """One of torch's devices; "auto" is a GPU of CUDA or ROCm where there is one, else the CPU.

    Raises ValueError for one that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError):  # the last two where torch was built without it
        raise ValueError(f"device is {name}, and torch has none of that name here; cpu is always there") from None
    return device


def load(
    name: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    compiled: bool = False,
) -> Model:
    """Open a model: a directory in the Hugging Face layout, a checkpoint of mesh-transformer-jax, a GGUF file, or the
    hub's name of a model that `bluejay pull` has brought.

    `device` is one of torch's, or "auto": a GPU where there is one. On a CPU the native engine does the work where it
    can, elsewhere torch, which with `compiled` compiles its steps: a minute before the first two. Weights keep the type
    they are stored in unless `dtype` is given; quantised ones become bfloat16 where torch does the work. Raises
    FileNotFoundError or ValueError, each with one sentence, where there is no such model or device.
    """
    device = device_named(device)
    path = locate(name).resolve()
    stored = open_model(path)
    # A run keeps its model as runs/NAME/model; the hub's cache names directories after commits.
    local = path.parent.name if path.name == "model" else path.name
    title = local if Path(name).exists() else str(name)
    tokenizer = stored.tokenizer()
    if tokenizer.vocab_size > stored.config.vocab_size:
        raise ValueError(
            f"{name}: the tokenizer has {tokenizer.vocab_size} tokens, the model {stored.config.vocab_size} rows; "
            "they do not belong together"
        )
    weights: GPT | NativeModel
    if stored.packed is not None and dtype is None and device.type == "cpu" and chosen():
        weights = native_model(stored)
    else:
        try:
            weights = read_model(
                stored, device, torch.bfloat16 if stored.packed is not None and dtype is None else dtype
            )
        except torch.OutOfMemoryError:
            raise ValueError(f"{name} does not fit into the memory of {device}; the device cpu may have more") from None
    model = Model(weights, tokenizer, title)
    model.compiled = compiled
    if compiled and model.native is not None:
        raise ValueError("the native engine has nothing to compile; BLUEJAY_ISA=torch has torch do its work")
    model.licence = stored.licence
    readme = path / "README.md"
    model.card = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    return model
