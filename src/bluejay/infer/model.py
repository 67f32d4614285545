"""A model that one can talk to: weights, tokenizer and the calls people make."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bluejay.gpt.checkpoint import open_model, place
from bluejay.gpt.hub import resolve
from bluejay.gpt.model import GPT
from bluejay.infer.engine import Chunk, Engine
from bluejay.infer.sampling import SamplingParams
from bluejay.tokenizer import Tokenizer


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
    """A GPT with its tokenizer. Made by `bluejay.load`."""

    def __init__(self, gpt: GPT, tokenizer: Tokenizer, name: str = "model") -> None:
        self.gpt = gpt
        self.tokenizer = tokenizer
        self.name = name

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
        engine = Engine(self.gpt, self.tokenizer, max_sequences=min(params.n, 8))
        engine.submit(self.tokenizer.encode(prompt), params)
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
        context = [self.tokenizer.eot, *tokens]
        n_ctx = self.gpt.config.n_ctx
        device = next(self.gpt.parameters()).device
        logprobs: list[float] = []
        while len(logprobs) < len(tokens):
            # The window starts so that what is scored next has half a context before it, or all there is.
            start = max(0, len(logprobs) - n_ctx // 2) if len(logprobs) else 0
            window = torch.tensor(context[start : start + n_ctx + 1], device=device)
            logits = self.gpt(window[None, :-1])[0, len(logprobs) - start :].float()
            targets = window[1 + len(logprobs) - start :, None]
            logprobs += logits.log_softmax(-1).gather(1, targets)[:, 0].tolist()
        return Score(tokens, logprobs, len(text.encode()))


def load(name: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Model:
    """Open a model: a directory in the Hugging Face layout, a checkpoint of mesh-transformer-jax, a GGUF file, or the
    hub's name of a model that `bluejay pull` has brought.

    Weights keep the type they are stored in unless `dtype` is given. Raises FileNotFoundError or ValueError, each with
    one sentence, where there is none.
    """
    path = resolve(name).resolve()
    stored = open_model(path)
    # A run keeps its model as runs/NAME/model.
    title = path.parent.name if path.name == "model" else path.name
    return Model(place(stored, device, dtype), stored.tokenizer(), title)
