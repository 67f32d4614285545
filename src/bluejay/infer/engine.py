"""The scheduler: many requests share one model, and each step advances every running sample.

A sample joins the batch as soon as there is a slot and there are pages for its greatest possible length, and leaves as
soon as it ends (continuous batching; Orca, section 3.1). Its pages are reserved when it joins, so that no running
sample is ever preempted for lack of memory. A step computes the next token of every generating sample, together with a
draft of the tokens after it (`bluejay.infer.speculation`), and a limited number of prompt tokens (chunked prefill;
Sarathi-Serve, section 4), so that a long prompt slows the other samples down by a bounded factor.

The result of a request does not depend on other requests: token i of a sample is drawn with the i-th number of the
sample's own generator, from logits that depend only on its own text. Equal logits give equal tokens; each backend
states how the rest of the batch may affect the rounding of logits. The engine is not thread-safe: one thread calls it.
"""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.infer.backends import Backend, StepBatch, checked
from bluejay.infer.cache import PagePool
from bluejay.infer.exceptions import CacheError, LogitsError
from bluejay.infer.params import SamplingParams
from bluejay.infer.prompts import check_bias, check_prompt, most_tokens
from bluejay.infer.samples import Chunk, Request, Sample
from bluejay.infer.sampling import (
    GREEDY,
    LogitsProcessor,
    adjusts,
    apply_penalties,
    draw,
    filters_of,
    logprobs_of,
    uniform,
)
from bluejay.infer.text import TextStream
from bluejay.tokenizer import Tokenizer

PROMPT_TOKENS_PER_STEP = 256
"""The most prompt tokens that one step computes on a CPU, over all samples."""


class QueueFull(Exception):
    """As many prompts are waiting as the engine allows."""


@dataclass
class Counters:
    """Totals of an engine since it was created."""

    requests: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    """Prompt tokens that were computed."""
    reused_tokens: int = 0
    """Prompt tokens that were found in the cache."""
    generated_tokens: int = 0
    drafted_tokens: int = 0
    """Tokens that were computed speculatively."""
    accepted_tokens: int = 0
    """Speculative tokens that were then drawn."""


class Engine:
    """Runs requests on a backend, at most `max_sequences` samples at a time; `max_waiting` prompts may wait."""

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        max_sequences: int = 8,
        max_waiting: int = 64,
        speculate: bool = True,
        n_ctx: int | None = None,
    ) -> None:
        """Without `n_ctx`, samples are as long as the model's context, for which the cache may be too small."""
        self.backend = backend
        self.tokenizer = tokenizer
        self.max_sequences = max_sequences
        self.max_waiting = max_waiting
        self.speculate = speculate
        self.n_ctx = n_ctx or backend.config.n_ctx
        self.vocab_size = min(tokenizer.vocab_size, backend.config.vocab_size)
        """The number of tokens that prompts may hold and that are drawn. Further rows only pad the embedding."""
        self.pool = PagePool(backend.n_pages, backend.page_size)
        self.counters = Counters()
        self.waiting: deque[Request] = deque()
        self.running: list[Sample] = []

    def submit(
        self, prompt: list[int], params: SamplingParams, processor: Callable[[], LogitsProcessor] | None = None
    ) -> Request:
        """Queue a prompt of token ids; an empty one becomes the end-of-text token, which begins a new document.

        `processor` creates the logits processor of each sample. Raises QueueFull; CacheError if prompt and answer may
        not fit into the cache; and what `check_prompt` and `check_bias` raise.
        """
        prompt = prompt or [self.tokenizer.eot]
        check_prompt(prompt, params, self.n_ctx, self.vocab_size)
        check_bias(params, self.vocab_size)
        seed = secrets.randbits(63) if params.seed is None else params.seed
        request = Request(prompt, params, seed % 2**63, processor, deque(range(params.n)))
        need, capacity = self._most_tokens(request), self.pool.n_pages * self.pool.size
        if need > capacity:
            raise CacheError(
                f"prompt and answer may take {need} tokens, but the cache holds {capacity}; ask for a shorter answer"
            )
        if len(self.waiting) >= self.max_waiting:
            raise QueueFull(f"{self.max_waiting} prompts are waiting already")
        self.waiting.append(request)
        self.counters.requests += 1
        return request

    def cancel(self, request: Request) -> None:
        """Drop a request and free its pages at once; no effect on a request that has ended."""
        if request in self.waiting:
            self.waiting.remove(request)
        for sample in [sample for sample in self.running if sample.request is request]:
            self._remove(sample)

    def end(self, request: Request) -> list[Chunk]:
        """End a request early, as if at its limit of tokens, and return the last chunk of every unfinished sample.

        Samples that have not started end without a token.
        """
        chunks = [Chunk(index, "", None, "length") for index in request.waiting]
        cut = [sample for sample in self.running if sample.request is request]
        chunks += [Chunk(sample.index, sample.stream.finish(), None, "length") for sample in cut]
        self.cancel(request)
        return chunks

    @property
    def idle(self) -> bool:
        """Whether there is no request to work on."""
        return not (self.waiting or self.running)

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, Chunk]]:
        """Let waiting samples join, then advance the running ones; returns new tokens, those of a sample in order.

        Raises LogitsError if the model computes logits that are not numbers; no sample then runs any more.
        """
        while self._join():
            pass
        work = self._plan()
        if not work:
            return []
        batch, n_rows = self._build_batch(work)
        logits = self.backend.step(batch)
        self.counters.steps += 1
        try:
            drawn = self._draw_rows(work, n_rows, logits)
        except LogitsError:  # the backend was cleared
            for sample in [*self.running]:
                self._remove(sample)
            self.pool = PagePool(self.backend.n_pages, self.backend.page_size)
            raise
        chunks, at = [], 0
        for (sample, n_new), n in zip(work, n_rows, strict=True):
            if sample.generates and not sample.draft:
                self.pool.record_next(sample.lease, sample.tokens)
                advanced = [self._append(sample, drawn[at], logits, at)]
            else:
                advanced = self._advance(sample, n_new, logits, range(at, at + n), drawn[at : at + n])
            for chunk in advanced:
                chunks.append((sample.request, chunk))
                if chunk.finish_reason:
                    self._remove(sample)
            at += n
        return chunks

    def _draw_rows(self, work: list[tuple[Sample, int]], n_rows: list[int], logits: Float[Tensor, "R V"]) -> list[int]:
        """A token for each row of a step, as if all drafted tokens before it were drawn; unused where a sample adjusts
        its logits. Raises LogitsError if logits are not numbers."""
        filters, numbers = [], []
        for (sample, _), n in zip(work, n_rows, strict=True):
            scored = n - 1 - len(sample.draft)  # rows of a prompt whose tokens are scored; nothing is drawn from them
            for row in range(n):
                draws = row >= scored and sample.filters is not GREEDY
                filters.append(sample.filters if draws else GREEDY)
                numbers.append(uniform(sample.seed, sample.n_generated + row - scored) if draws else 0.0)
        if not filters:
            return []
        drawn = self.backend.draw(logits[:, : self.vocab_size], np.array(filters), np.array(numbers))
        if min(drawn) < 0 or self.vocab_size < logits.shape[1]:
            checked(self.backend, logits)
        return drawn

    def _most_tokens(self, request: Request) -> int:
        """The most tokens that a sample of a request can have, prompt included."""
        return most_tokens(request.prompt, request.params, self.n_ctx)

    def _join(self) -> bool:
        """Start one waiting sample, if there is a slot and there are pages; whether one was started.

        The next sample is from the request with the fewest running samples, the oldest of these. If there are too few
        pages for it, it waits and so do all others, so that small requests cannot starve a large one. The other samples
        of a prompt join once the first has computed it, and share its pages.
        """
        if len(self.running) == self.max_sequences:
            return False
        ready = [request for request in self.waiting if request.read or not request.running]
        if not ready:
            return False
        request = min(ready, key=lambda request: request.running)
        reuse = request.read or not request.params.prompt_logprobs
        lease = self.pool.lease(request.prompt, self._most_tokens(request), reuse)
        if lease is None:
            return False
        if lease.copy_on_write is not None:
            self.backend.copy_page(*lease.copy_on_write)
        index = request.waiting.popleft()
        if not request.waiting:
            self.waiting.remove(request)
        request.running += 1
        self.counters.reused_tokens += lease.n_cached
        stream = TextStream(self.tokenizer.token_bytes(), tuple(request.params.stop or ()))
        processor = None if request.processor is None else request.processor()
        adjusted = adjusts(request.params) or processor is not None
        sample = Sample(
            request=request,
            index=index,
            tokens=list(request.prompt),
            lease=lease,
            stream=stream,
            seed=(request.seed + index) % 2**63,
            processor=processor,
            filters=GREEDY if adjusted else filters_of(request.params),
            adjusts=adjusted,
            limit=self._most_tokens(request),
        )
        self.running.append(sample)
        return True

    def _plan(self) -> list[tuple[Sample, int]]:
        """The samples that the next step computes, each with a number of pending tokens; also sets their drafts.

        Each prompt gets an equal share of the step's prompt tokens; what short prompts leave goes to longer ones.
        """
        work, reading = [], []
        for sample in self.running:
            sample.draft = []
            if not sample.generates:
                reading.append(sample)
                continue
            left = sample.limit - len(sample.tokens) - 1
            if self.speculate and left > 0:
                sample.draft = sample.lookup.draft(sample.tokens, left, len(self.running))
            work.append((sample, 1))
        budget = PROMPT_TOKENS_PER_STEP * self.backend.prompt_factor
        for i, sample in enumerate(sorted(reading, key=lambda sample: sample.n_pending)):
            n_new = min(sample.n_pending, budget // (len(reading) - i))
            budget -= n_new
            work.append((sample, n_new))
        return [(sample, n_new) for sample, n_new in work if n_new]

    def _build_batch(self, work: list[tuple[Sample, int]]) -> tuple[StepBatch, list[int]]:
        """The batch for the planned work, and the number of rows of logits that each sample needs, its last ones."""
        tokens, starts, wanted, n_rows = [], [0], [], []
        for sample, n_new in work:
            cached = sample.lease.n_cached
            tokens += sample.tokens[cached : cached + n_new]
            tokens += sample.draft
            n_tokens = len(tokens) - starts[-1]
            scoring = not sample.generates and sample.index == 0 and sample.request.params.prompt_logprobs
            complete = cached + n_new == len(sample.tokens)
            n_rows.append(n_tokens if scoring else 1 + len(sample.draft) if complete else 0)
            starts.append(len(tokens))
            wanted += range(len(tokens) - n_rows[-1], len(tokens))
        leases = [sample.lease for sample, _ in work]
        lengths, pages = [lease.n_cached for lease in leases], [lease.numbers for lease in leases]
        return StepBatch.of(tokens, starts, lengths, pages, wanted), n_rows

    def _advance(
        self, sample: Sample, n_new: int, logits: Float[Tensor, "R V"], rows: range, drawn: list[int]
    ) -> list[Chunk]:
        """Process a sample's rows of a step's logits: take the token that was drawn, and further ones as long as they
        are those of the draft."""
        request, cached = sample.request, sample.lease.n_cached + n_new
        if not sample.generates:
            self.counters.prompt_tokens += n_new
        if request.params.prompt_logprobs and not sample.generates and sample.index == 0:
            targets = request.prompt[cached - n_new + 1 : cached + 1]
            scored, n_top = logits[rows.start : rows.start + len(targets)], request.params.logprobs or 0
            request.prompt_logprobs += logprobs_of(scored, targets, n_top, self.vocab_size)
            rows, drawn = rows[-1:], drawn[-1:]
        chunks: list[Chunk] = []
        if cached == len(sample.tokens):
            request.read = True
            if request.params.max_tokens == 0:
                chunks.append(Chunk(sample.index, "", None, "length"))
            for row, token, drafted in zip(rows, drawn, [*sample.draft, None], strict=False) if not chunks else ():
                chunks.append(self._append(sample, token, logits, row))
                if chunks[-1].finish_reason or chunks[-1].token != drafted:
                    break
            accepted = max(0, len(chunks) - 1)
            cached += accepted
            self.counters.drafted_tokens += len(sample.draft)
            self.counters.accepted_tokens += accepted
        self.pool.record(sample.lease, sample.tokens[:cached])
        return chunks

    def _draw(self, sample: Sample, logits: Float[Tensor, " V"]) -> int:
        """Draw the next token of a sample from its logits, without those of rows that have no token."""
        request, params, prompt = sample.request, sample.request.params, sample.request.prompt
        adjusted = apply_penalties(logits[: self.vocab_size], params, request.bias, sample.tokens, len(prompt))
        if sample.processor is not None:
            adjusted = sample.processor(sample.tokens[len(prompt) :], adjusted)
        number = uniform(sample.seed, sample.n_generated)
        return draw(adjusted[None], np.array([filters_of(params)]), np.array([number]), masked=True)[0]

    def _append(self, sample: Sample, token: int, logits: Float[Tensor, "R V"], row: int) -> Chunk:
        """Add a token to a sample: the one that was drawn from a row of logits, unless the sample adjusts them before.
        Rows of the embedding that have no token count in its log-probability, too."""
        if sample.adjusts:
            token = self._draw(sample, logits[row])
        params = sample.request.params
        sample.tokens.append(token)
        sample.generates = True
        self.counters.generated_tokens += 1
        logprob = None
        if params.logprobs is not None:
            [logprob] = logprobs_of(logits[row : row + 1], [token], params.logprobs, self.vocab_size)
        ended = token in self.tokenizer.ends
        text = "" if ended else sample.stream.push(token)
        ended = ended or sample.stream.stopped
        if not ended and len(sample.tokens) < sample.limit:
            return Chunk(sample.index, text, token, None, logprob)
        return Chunk(sample.index, text + sample.stream.finish(), token, "stop" if ended else "length", logprob)

    def _remove(self, sample: Sample) -> None:
        """Remove a sample from the batch and return its pages."""
        self.running.remove(sample)
        sample.request.running -= 1
        self.pool.record(sample.lease, sample.tokens[: sample.lease.n_cached])
        self.pool.release(sample.lease)
