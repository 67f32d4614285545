"""The scheduler: many requests share one model, each step adds one token to every running sequence.

A request joins as soon as a row of the cache is free and leaves the moment it ends, whatever the others do
(continuous batching; Orca, section 3.1). The engine is not thread-safe: one thread calls `step`.
"""

from collections import deque
from dataclasses import dataclass, field

import torch

from bluejay.gpt.model import GPT
from bluejay.infer.cache import KVCache
from bluejay.infer.sampling import SamplingParams, sample
from bluejay.infer.text import TextStream
from bluejay.tokenizer import Tokenizer


@dataclass(eq=False)
class Request:
    """One prompt being continued `params.n` times."""

    prompt: list[int]
    params: SamplingParams
    seed: int
    """The seed in use: the caller's, or the one that was drawn."""
    waiting: deque[int] = field(default_factory=deque)
    """Samples that do not run yet."""


@dataclass(frozen=True)
class Chunk:
    """What one step added to one sample."""

    index: int
    """Which of the request's n samples."""
    text: str
    """New text; it may be empty while a character or a possible stop sequence is incomplete."""
    token: int | None
    """The new token; None where only held-back text is released."""
    finish_reason: str | None = None
    """None while it goes on; "stop" after a stop sequence or the end of text, "length" at the limit."""


@dataclass(eq=False)
class Sequence:
    """A running sample: one row of the cache."""

    request: Request
    index: int
    length: int
    """Tokens whose keys and values the cache holds."""
    next: int
    """The token to feed next."""
    stream: TextStream
    generator: torch.Generator
    generated: int = 0


class Engine:
    """Runs requests on a model, at most `max_sequences` samples at a time."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, max_sequences: int = 8) -> None:
        parameter = next(model.parameters())
        self.model = model
        self.tokenizer = tokenizer
        self.max_sequences = max_sequences
        self.n_ctx = model.config.n_ctx
        self.device = parameter.device
        self.cache = KVCache(model.config, max_sequences, parameter.dtype, parameter.device)
        self.waiting: deque[Request] = deque()
        self.running: list[Sequence] = []

    def submit(self, prompt: list[int], params: SamplingParams) -> Request:
        """Queue a prompt of token ids; an empty one becomes the end-of-text token, which begins a new document.

        Raises ValueError when the prompt leaves no room in the context or holds an id outside the vocabulary.
        """
        prompt = prompt or [self.tokenizer.eot]
        if len(prompt) >= self.n_ctx:
            raise ValueError(
                f"the prompt has {len(prompt)} tokens; this model reads {self.n_ctx} in all, answer included, "
                f"so a prompt may have at most {self.n_ctx - 1}"
            )
        if not all(0 <= token < self.tokenizer.vocab_size for token in prompt):
            raise ValueError(f"the prompt holds a token id outside 0..{self.tokenizer.vocab_size - 1}")
        seed = torch.seed() if params.seed is None else params.seed
        request = Request(prompt, params, seed % 2**63, deque(range(params.n)))
        self.waiting.append(request)
        return request

    @torch.inference_mode()
    def cancel(self, request: Request) -> None:
        """Forget a request; its rows are free at once. Cancelling what has ended does nothing."""
        if request in self.waiting:
            self.waiting.remove(request)
        for sequence in [running for running in self.running if running.request is request]:
            self._leave(sequence)

    @property
    def idle(self) -> bool:
        """Whether `step` has nothing to do."""
        return not (self.waiting or self.running)

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, Chunk]]:
        """Let waiting samples join, then add one token to every running one."""
        chunks = self._join()
        if self.running:
            tokens = torch.tensor([[sequence.next] for sequence in self.running], device=self.device)
            positions = torch.tensor([[sequence.length] for sequence in self.running], device=self.device)
            view = self.cache.view(0, positions)
            logits = self.model(tokens, positions=positions, mask=view.mask, cache=view)[:, -1]
            for sequence, row in zip(list(self.running), logits, strict=True):
                sequence.length += 1
                chunks.append((sequence.request, self._append(sequence, row)))
        return chunks

    def _join(self) -> list[tuple[Request, Chunk]]:
        """Start waiting samples while rows are free: one prefill for all that start together."""
        chunks = []
        while self.waiting and len(self.running) < self.max_sequences:
            request = self.waiting[0]
            first = len(self.running)
            free = self.max_sequences - first
            indices = [request.waiting.popleft() for _ in range(min(free, len(request.waiting)))]
            if not request.waiting:
                self.waiting.popleft()
            logits = self._prefill(request.prompt, first)
            new = [self._sequence(request, index) for index in indices]
            for row, sequence in enumerate(new, first):
                if row > first:
                    self.cache.copy_row(first, row)
                self.running.append(sequence)
            chunks += [(request, self._append(sequence, logits)) for sequence in new]
        return chunks

    def _prefill(self, prompt: list[int], row: int) -> torch.Tensor:
        """Fill a row of the cache with a prompt; the logits (V) after its last token come back."""
        tokens = torch.tensor([prompt], device=self.device)
        view = self.cache.view(row, torch.arange(len(prompt), device=self.device)[None])
        hidden = self.model.hidden(tokens, cache=view)
        return self.model.logits(hidden[0, -1])

    def _sequence(self, request: Request, index: int) -> Sequence:
        stream = TextStream(self.tokenizer.token_bytes(), request.params.stop)
        generator = torch.Generator().manual_seed(request.seed + index)
        return Sequence(request, index, len(request.prompt), 0, stream, generator)

    def _append(self, sequence: Sequence, logits: torch.Tensor) -> Chunk:
        """Sample a sequence's next token; the sequence leaves when that ends it."""
        params = sequence.request.params
        token = sample(logits[: self.tokenizer.vocab_size], params, sequence.generator)
        sequence.next = token
        sequence.generated += 1
        ended = token == self.tokenizer.eot
        text = "" if ended else sequence.stream.push(token)
        ended = ended or sequence.stream.stopped
        full = sequence.generated == params.max_tokens or sequence.length + 1 >= self.n_ctx
        if not (ended or full):
            return Chunk(sequence.index, text, token)
        self._leave(sequence)
        return Chunk(sequence.index, text + sequence.stream.finish(), token, "stop" if ended else "length")

    def _leave(self, sequence: Sequence) -> None:
        """Free a sequence's row: the last row moves into its place, so that the running rows stay together."""
        row, last = self.running.index(sequence), len(self.running) - 1
        if row < last:
            self.cache.copy_row(last, row)
            self.running[row] = self.running[last]
        self.running.pop()
