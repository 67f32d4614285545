"""A model with its tokenizer, ready to generate and to score text."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from bluejay.gpt.formats.layouts import open_model, read_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.formats.tensors import StoredModel, tokenizer_of
from bluejay.gpt.model import GPT
from bluejay.infer.backends import Backend, StepBatch, checked_logits
from bluejay.infer.backends.native import NativeBackend, NativeModel, chosen, native_model
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.engine import Chunk, Engine
from bluejay.infer.params import SamplingParams
from bluejay.tokenizer import Tokenizer, well_formed

TOKENS_PER_STEP = 256
"""Tokens that one step of `Model.score` computes, which bounds the memory for their logits."""


@dataclass(frozen=True)
class Score:
    """The log-probabilities that a model assigns to the tokens of a text."""

    tokens: list[int]
    logprobs: list[float]
    """Natural logarithm of each token's probability, given at least half a context of text or all before it."""
    n_bytes: int
    """Length of the text in UTF-8."""

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8; lower is better. Models with different tokenizers can be compared."""
        return -sum(self.logprobs) / math.log(2) / self.n_bytes


class Model:
    """A model with its tokenizer, made by `bluejay.load`.

    `licence` is the licence that its files state, `card` the README.md in its directory. With `compiled`, torch
    compiles its steps; raises ValueError if the native engine runs the model.
    """

    def __init__(
        self,
        weights: GPT | NativeModel,
        tokenizer: Tokenizer,
        name: str = "model",
        *,
        licence: str | None = None,
        card: str = "",
        compiled: bool = False,
    ) -> None:
        self.weights = weights
        self.config = weights.config
        self.tokenizer = tokenizer
        self.name = name
        self.licence = licence
        self.card = card
        self.compiled = compiled
        if compiled and self.native is not None:
            raise ValueError("the native engine has nothing to compile; BLUEJAY_ISA=torch has torch run the model")

    @property
    def gpt(self) -> GPT:
        """The weights as a torch module, which quantised weights in the native engine's form do not have."""
        assert isinstance(self.weights, GPT)
        return self.weights

    @cached_property
    def native(self) -> NativeModel | None:
        """The weights in the native engine's form; None if torch runs the model."""
        if isinstance(self.weights, NativeModel):
            return self.weights
        weight = self.weights.embed.weight
        exact = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)
        return native_model(self.weights) if exact and chosen() else None

    def backend(self, n_sequences: int, n_tokens: int) -> Backend:
        """A backend that runs the model, with a cache for `n_sequences` sequences of `n_tokens` tokens.

        Raises ValueError if there is no memory for the cache.
        """
        if self.native is None:
            return TorchBackend.for_tokens(self.gpt, [n_tokens] * n_sequences, self.compiled)
        full = isinstance(self.weights, GPT) and self.gpt.embed.weight.dtype == torch.float32
        pages = n_sequences * -(-n_tokens // NativeBackend.page_size)
        return NativeBackend(self.native, pages, cache="f32" if full else "bf16")

    def generate(self, prompt: str, params: SamplingParams | None = None) -> list[str]:
        """Continue a prompt and return the n completions, without the prompt. Raises ValueError if it is too long."""
        params = params or SamplingParams()
        texts = [""] * params.n
        for chunk in self.stream(prompt, params):
            texts[chunk.index] += chunk.text
        return texts

    def stream(self, prompt: str, params: SamplingParams | None = None) -> Iterator[Chunk]:
        """Continue a prompt and yield each token as it is generated; the n samples advance together."""
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
        """The log-probability of every token of a text that begins a document.

        A text longer than the context is read in windows that overlap by half; each token is scored once, in the first
        window that contains it. Raises ValueError for an empty text, one with a token that the model has no row for,
        or logits that are not numbers.
        """
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise ValueError("an empty text has no score")
        if max(tokens) >= self.config.vocab_size:
            raise ValueError(f"the text holds the token {max(tokens)}; the model has {self.config.vocab_size} rows")
        prefix = self.tokenizer.begin or [self.tokenizer.eot]
        context = prefix + tokens
        n_ctx = self.config.n_ctx
        backend = self.backend(1, min(n_ctx, len(context)))
        pages = np.arange(backend.n_pages, dtype=np.int32)[None]
        logprobs: list[float] = []
        while len(logprobs) < len(tokens):
            # The window starts so that the next token to score has half a context before it, or the whole text so far.
            before = len(prefix) + len(logprobs) - 1
            start = max(0, before - n_ctx // 2) if logprobs else 0
            window = np.array(context[start : start + n_ctx + 1], np.int32)
            for at in range(0, len(window) - 1, TOKENS_PER_STEP):
                piece, targets = window[at : at + TOKENS_PER_STEP], window[at + 1 : at + 1 + TOKENS_PER_STEP]
                wanted = np.arange(max(0, before - start - at), len(targets), dtype=np.int32)
                before += len(wanted)
                starts, lengths = np.array([0, len(targets)], np.int32), np.array([at], np.int32)
                logits = checked_logits(backend, StepBatch(piece[: len(targets)], starts, lengths, pages, wanted))
                following = torch.from_numpy(targets[wanted].astype(np.int64))[:, None].to(logits.device)
                logprobs += logits.log_softmax(-1).gather(1, following)[:, 0].tolist()
        return Score(tokens, logprobs, len(well_formed(text).encode()))


def device_named(name: str | torch.device) -> torch.device:
    """The torch device of a name; "auto" is a GPU of CUDA or ROCm if there is one, else the CPU.

    Raises ValueError if it does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError):  # the last two if torch was built without it
        raise ValueError(f"device is {name}, and torch has none of that name here; cpu is always there") from None
    return device


def native_takes(stored: StoredModel, device: torch.device) -> bool:
    """Whether the native engine runs a model whose weights have several types."""
    exact = stored.read("embed.weight").dtype in (torch.float32, torch.bfloat16)
    return device.type == "cpu" and exact and chosen() is not None


def load(
    name: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    compiled: bool = False,
) -> Model:
    """Open a model: a directory in the Hugging Face layout, a checkpoint of mesh-transformer-jax, a GGUF file, or the
    hub's name of a model that `bluejay pull` has downloaded.

    `device` is one of torch's, or "auto" for a GPU if there is one. On a CPU the native engine runs the model if it
    can, otherwise torch does; with `compiled`, torch compiles its steps, which takes a minute at first. Weights keep
    the type in which they are stored unless `dtype` is given; in torch quantised weights become bfloat16, and those of
    several types float32. Raises
    FileNotFoundError or ValueError, each with one sentence, if there is no such model or device.
    """
    device = device_named(device)
    path = locate(name).resolve()
    stored = open_model(path)
    # A training run stores its model as runs/NAME/model; the hub's cache names directories after commits.
    local = path.parent.name if path.name == "model" else path.name
    title = local if Path(name).exists() else str(name)
    tokenizer = tokenizer_of(stored, name)
    weights: GPT | NativeModel
    if stored.packed is not None and dtype is None and device.type == "cpu" and chosen():
        weights = native_model(stored)
    else:
        if stored.packed is not None and dtype is None:
            dtype = torch.bfloat16
        elif stored.dtype is None and dtype is None and not native_takes(stored, device):
            dtype = torch.float32  # torch multiplies no matrices of different types
        try:
            weights = read_model(stored, device, dtype)
        except torch.OutOfMemoryError:
            raise ValueError(f"{name} does not fit into the memory of {device}; the device cpu may have more") from None
    readme = path / "README.md"
    card = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    return Model(weights, tokenizer, title, licence=stored.licence, card=card, compiled=compiled)
