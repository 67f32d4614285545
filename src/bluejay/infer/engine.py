"""The scheduler: many requests share one model, and each step brings every running sample forward.

A sample joins as soon as there is a place and pages for all it may ever need, and leaves the moment it ends, whatever
the others do (continuous batching; Orca, section 3.1). Its pages are reserved when it joins, so that nothing that runs
is ever interrupted for want of memory. A step computes the next token of every sample that generates, together with
what else may be certain by then (`bluejay.infer.speculation`), and of the prompts still to be read as much as fits the
step (chunked prefill; Sarathi-Serve, section 4): a long prompt slows the others down by a bounded factor.

What a request gets does not depend on the others: token i of a sample is drawn with the i-th number of the sample's own
generator from logits that depend on its own text. Equal logits give equal tokens; how far logits may differ in rounding
with the company they are computed in is the backend's to say. The engine is not thread-safe: one thread calls it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.infer.backends import Backend, StepBatch
from bluejay.infer.cache import Lease, PagePool
from bluejay.infer.sampling import LogitsProcessor, Logprob, SamplingParams, apply_penalties, logprobs_of, sample
from bluejay.infer.speculation import PromptLookup
from bluejay.infer.text import TextStream
from bluejay.tokenizer import Tokenizer

PROMPT_TOKENS_PER_STEP = 256
"""Prompt tokens read in one step, at most, over all samples."""


class QueueFull(Exception):
    """More prompts wait than the engine is ready to keep."""


@dataclass(eq=False)
class Request:
    """One prompt being continued `params.n` times."""

    prompt: list[int]
    params: SamplingParams
    seed: int
    """The seed in use: the caller's, or the one that was drawn."""
    processor: Callable[[], LogitsProcessor] | None
    waiting: deque[int] = field(default_factory=deque)
    """Samples that do not run yet."""
    running: int = 0
    """Samples that do."""
    read: bool = False
    """Whether a sample has read the prompt, so that the others find its pages."""
    prompt_logprobs: list[Logprob] = field(default_factory=list)
    """Of every token of the prompt but the first, where the parameters ask for them; there before the first chunk."""


@dataclass(frozen=True)
class Chunk:
    """One new token of one sample."""

    index: int
    """Which of the request's n samples."""
    text: str
    """New text; it may be empty while a character or a possible stop sequence is incomplete."""
    token: int | None
    """The new token; None where no token was asked for, or where the request was ended before its time."""
    finish_reason: str | None = None
    """None while it goes on; "stop" after a stop sequence or the end of text, "length" at the limit."""
    logprob: Logprob | None = None
    """How likely the model found the token, where the parameters ask for it."""


@dataclass(eq=False)
class Sample:
    """One running continuation of a prompt."""

    request: Request
    index: int
    tokens: list[int]
    """The prompt and what was generated; the cache may lack some at the end."""
    lease: Lease
    stream: TextStream
    generator: torch.Generator
    processor: LogitsProcessor | None
    lookup: PromptLookup = field(default_factory=PromptLookup)
    draft: list[int] = field(default_factory=list)
    """Tokens that this step computes in the hope that they will be drawn."""

    @property
    def n_pending(self) -> int:
        """Tokens whose keys and values are still to be computed; 1 while it generates."""
        return len(self.tokens) - self.lease.n_cached

    @property
    def n_generated(self) -> int:
        """Tokens drawn so far."""
        return len(self.tokens) - len(self.request.prompt)


@dataclass
class Counters:
    """What an engine has done since it was made."""

    requests: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    """Tokens of prompts that were computed,"""
    reused_tokens: int = 0
    """and that another sample had left in the cache."""
    generated_tokens: int = 0
    drafted_tokens: int = 0
    """Tokens computed ahead,"""
    accepted_tokens: int = 0
    """and those of them that were drawn."""


class Engine:
    """Runs requests on a backend, at most `max_sequences` samples at a time, while `max_waiting` prompts may wait."""

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        max_sequences: int = 8,
        max_waiting: int = 64,
        speculate: bool = True,
    ) -> None:
        self.backend = backend
        self.tokenizer = tokenizer
        self.max_sequences = max_sequences
        self.max_waiting = max_waiting
        self.speculate = speculate
        self.n_ctx = backend.config.n_ctx
        self.pool = PagePool(backend.n_pages, backend.page)
        self.counters = Counters()
        self.waiting: deque[Request] = deque()
        self.running: list[Sample] = []

    def submit(
        self, prompt: list[int], params: SamplingParams, processor: Callable[[], LogitsProcessor] | None = None
    ) -> Request:
        """Queue a prompt of token ids; an empty one becomes the end-of-text token, which begins a new document.

        `processor` makes, for each sample, what may change its logits before each token is drawn. Raises ValueError
        when the prompt leaves no room in the context or the cache, or when it or the logit_bias holds an id outside the
        vocabulary; QueueFull.
        """
        prompt = prompt or [self.tokenizer.eot]
        if len(prompt) + min(1, params.max_tokens) > self.n_ctx:
            raise ValueError(
                f"the prompt has {len(prompt)} tokens; this model reads {self.n_ctx} in all, answer included, "
                f"so a prompt may have at most {self.n_ctx - 1}"
            )
        if not all(0 <= token < self.tokenizer.vocab_size for token in prompt):
            raise ValueError(f"the prompt holds a token id outside 0..{self.tokenizer.vocab_size - 1}")
        if not all(0 <= token < self.tokenizer.vocab_size for token in params.logit_bias):
            raise ValueError(f"logit_bias holds a token id outside 0..{self.tokenizer.vocab_size - 1}")
        seed = torch.seed() if params.seed is None else params.seed
        request = Request(prompt, params, seed % 2**63, processor, deque(range(params.n)))
        need, capacity = self._n_tokens(request), self.pool.n_pages * self.pool.size
        if need > capacity:
            raise ValueError(
                f"prompt and answer may take {need} tokens, and the cache holds {capacity}; ask for a shorter answer"
            )
        if len(self.waiting) >= self.max_waiting:
            raise QueueFull(f"{self.max_waiting} prompts are waiting already")
        self.waiting.append(request)
        self.counters.requests += 1
        return request

    def cancel(self, request: Request) -> None:
        """Forget a request; its pages are free at once. Cancelling what has ended does nothing."""
        if request in self.waiting:
            self.waiting.remove(request)
        for running in [running for running in self.running if running.request is request]:
            self._remove(running)

    def end(self, request: Request) -> list[Chunk]:
        """End a request before its time, as at its limit of tokens; the last chunk of every sample that has not ended.

        Samples that have not begun end without a token.
        """
        chunks = [Chunk(index, "", None, "length") for index in request.waiting]
        cut = [running for running in self.running if running.request is request]
        chunks += [Chunk(running.index, running.stream.finish(), None, "length") for running in cut]
        self.cancel(request)
        return chunks

    @property
    def idle(self) -> bool:
        """Whether `step` has nothing to do."""
        return not (self.waiting or self.running)

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, Chunk]]:
        """Let waiting samples join, then bring the running ones forward; the new tokens, each sample's in order."""
        while self._join():
            pass
        work = self._plan()
        if not work:
            return []
        batch, n_rows = self._batch(work)
        logits = self.backend.step(batch)[:, : self.tokenizer.vocab_size]
        self.counters.steps += 1
        chunks = []
        for (running, n_new), rows in zip(work, logits.split(n_rows), strict=True):
            chunks += [(running.request, chunk) for chunk in self._advance(running, n_new, rows)]
        return chunks

    def _n_tokens(self, request: Request) -> int:
        """Tokens that a sample of a request may have in the end."""
        return min(len(request.prompt) + request.params.max_tokens, self.n_ctx)

    def _join(self) -> bool:
        """Start one waiting sample, if there is a place and there are pages.

        The turn is with the request that has the fewest samples running, the oldest of them. It waits until there are
        pages for it, and so do those behind it, lest small ones overtake a large one for ever. The other samples of
        a prompt join when the first has read it, and share its pages.
        """
        if len(self.running) == self.max_sequences:
            return False
        ready = [request for request in self.waiting if request.read or not request.running]
        if not ready:
            return False
        request = min(ready, key=lambda request: request.running)
        reuse = request.read or not request.params.prompt_logprobs
        lease = self.pool.lease(request.prompt, self._n_tokens(request), reuse)
        if lease is None:
            return False
        if lease.copy_on_write is not None:
            self.backend.copy_page(*lease.copy_on_write)
        index = request.waiting.popleft()
        if not request.waiting:
            self.waiting.remove(request)
        request.running += 1
        self.counters.reused_tokens += lease.n_cached
        stream = TextStream(self.tokenizer.token_bytes(), request.params.stop)
        generator = torch.Generator().manual_seed((request.seed + index) % 2**63)
        processor = None if request.processor is None else request.processor()
        self.running.append(Sample(request, index, list(request.prompt), lease, stream, generator, processor))
        return True

    def _plan(self) -> list[tuple[Sample, int]]:
        """Which samples compute how many of their pending tokens; guesses are noted with the sample.

        Of the tokens that a step may read of prompts, each prompt gets an equal share, what short ones leave over going
        to the longer ones.
        """
        work, reading = [], []
        for running in self.running:
            running.draft = []
            if running.n_pending > 1 or not running.n_generated:
                reading.append(running)
                continue
            left = self._n_tokens(running.request) - len(running.tokens) - 1
            if self.speculate and left > 0:
                running.draft = running.lookup.draft(running.tokens, left)
            work.append((running, 1))
        budget = PROMPT_TOKENS_PER_STEP
        for i, running in enumerate(sorted(reading, key=lambda running: running.n_pending)):
            n_new = min(running.n_pending, budget // (len(reading) - i))
            budget -= n_new
            work.append((running, n_new))
        return [(running, n_new) for running, n_new in work if n_new]

    def _batch(self, work: list[tuple[Sample, int]]) -> tuple[StepBatch, list[int]]:
        """The step for some work, and how many rows of logits each sample wants: its last ones."""
        news, n_rows = [], []
        for running, n_new in work:
            cached = running.lease.n_cached
            news.append(running.tokens[cached : cached + n_new] + running.draft)
            scoring = running.request.params.prompt_logprobs and not running.n_generated and running.index == 0
            complete = n_new == running.n_pending
            n_rows.append(len(news[-1]) if scoring else 1 + len(running.draft) if complete else 0)
        ends = np.cumsum([len(new) for new in news])
        tables = [running.lease.numbers for running, _ in work]
        width = max(map(len, tables))
        batch = StepBatch(
            tokens=np.array([token for new in news for token in new], np.int32),
            starts=np.concatenate([[0], ends]).astype(np.int32),
            lengths=np.array([running.lease.n_cached for running, _ in work], np.int32),
            pages=np.array([table + [-1] * (width - len(table)) for table in tables], np.int32),
            wanted=np.concatenate([np.arange(end - n, end) for end, n in zip(ends, n_rows, strict=True)]).astype(
                np.int32
            ),
        )
        return batch, n_rows

    def _advance(self, running: Sample, n_new: int, logits: Float[Tensor, "R V"]) -> list[Chunk]:
        """Take in what a step computed: draw a token, and go on through the draft as long as it is what is drawn."""
        request, cached = running.request, running.lease.n_cached + n_new
        if not running.n_generated:
            self.counters.prompt_tokens += n_new
        if request.params.prompt_logprobs and not running.n_generated and running.index == 0:
            targets = request.prompt[cached - n_new + 1 : cached + 1]
            request.prompt_logprobs += logprobs_of(logits[: len(targets)], targets, request.params.logprobs or 0)
            logits = logits[-1:]
        chunks: list[Chunk] = []
        if cached == len(running.tokens):
            request.read = True
            if request.params.max_tokens == 0:
                chunks.append(Chunk(running.index, "", None, "length"))
            for row, guessed in zip(logits if not chunks else [], [*running.draft, None], strict=False):
                chunks.append(self._draw(running, row))
                if chunks[-1].finish_reason or chunks[-1].token != guessed:
                    break
            accepted = max(0, len(chunks) - 1)
            cached += accepted
            self.counters.drafted_tokens += len(running.draft)
            self.counters.accepted_tokens += accepted
        self.pool.record(running.lease, running.tokens[:cached])
        if chunks and chunks[-1].finish_reason:
            self._remove(running)
        return chunks

    def _draw(self, running: Sample, logits: Float[Tensor, " V"]) -> Chunk:
        """Draw a sample's next token from its logits."""
        params, prompt = running.request.params, running.request.prompt
        adjusted = apply_penalties(logits, params, running.tokens, len(prompt))
        if running.processor is not None:
            adjusted = running.processor(running.tokens[len(prompt) :], adjusted)
        token = sample(adjusted, params, running.generator)
        running.tokens.append(token)
        self.counters.generated_tokens += 1
        logprob = None if params.logprobs is None else logprobs_of(logits[None], [token], params.logprobs)[0]
        ended = token in self.tokenizer.ends
        text = "" if ended else running.stream.push(token)
        ended = ended or running.stream.stopped
        if not ended and len(running.tokens) < self._n_tokens(running.request):
            return Chunk(running.index, text, token, None, logprob)
        return Chunk(running.index, text + running.stream.finish(), token, "stop" if ended else "length", logprob)

    def _remove(self, running: Sample) -> None:
        """Give a sample's place and pages back."""
        self.running.remove(running)
        running.request.running -= 1
        self.pool.release(running.lease)
