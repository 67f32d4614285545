"""What of a model stays in memory between calls: one engine for all threads, and one backend that reads texts.

Threads that generate at the same time share the engine. None of them owns it: whoever waits for a token computes the
next step, which advances the samples of all of them.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager

from bluejay.infer.backends import Backend
from bluejay.infer.engine import Engine
from bluejay.infer.params import SamplingParams
from bluejay.infer.samples import Chunk, Request
from bluejay.tokenizer import Tokenizer

MAX_SEQUENCES = 64
"""The most samples that advance together."""


class SharedEngine:
    """An engine that several threads use."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failure: Exception | None = None
        """What ended the engine, if a step failed."""
        self._lock = threading.Lock()
        self._chunks: dict[Request, list[Chunk]] = {}
        """The chunks of each request that its thread has not taken yet."""

    def run(self, prompts: Sequence[list[int]], params: SamplingParams) -> Iterator[tuple[int, Chunk]]:
        """Continue prompts, as many at a time as there are places. Yields each chunk with the number of its prompt,
        those of a sample in order; what is not finished when the caller stops is dropped. Raises as `Engine.submit`
        and `Engine.step`."""
        left = deque(enumerate(prompts))
        mine: dict[Request, int] = {}
        """Request -> the number of its prompt."""
        ended: Counter[Request] = Counter()
        """Request -> the number of its samples that have ended."""
        try:
            while left or mine:
                with self._lock:
                    while left and len(self.engine.waiting) < self.engine.max_sequences:
                        number, prompt = left.popleft()
                        request = self.engine.submit(prompt, params)
                        mine[request], self._chunks[request] = number, []
                    if not any(self._chunks[request] for request in mine):
                        self._step()
                    ready = [(request, chunk) for request in mine for chunk in self._chunks[request]]
                    for request in mine:
                        self._chunks[request].clear()
                for request, chunk in ready:
                    yield mine[request], chunk
                    ended[request] += chunk.finish_reason is not None
                    if ended[request] == params.n:
                        self._drop([request])
                        del mine[request]
        finally:
            self._drop(mine)

    def _step(self) -> None:
        if self.failure is None:
            try:
                for request, chunk in self.engine.step():
                    self._chunks[request].append(chunk)
                return
            except Exception as failure:  # kept for the other threads, whose requests fail with it too
                self.failure = failure
        raise self.failure

    def _drop(self, requests: Iterable[Request]) -> None:
        with self._lock:
            for request in requests:
                del self._chunks[request]
                self.engine.cancel(request)


class Resident:
    """The engine and the reading backend of a model. Both are made at first use, by `new_backend` from the lengths of
    the sequences that the cache must hold, and made anew with a larger cache when a call needs one."""

    def __init__(self, new_backend: Callable[[list[int]], Backend], tokenizer: Tokenizer) -> None:
        self.new_backend = new_backend
        self.tokenizer = tokenizer
        self._lock, self._reading = threading.Lock(), threading.RLock()
        self._engine: SharedEngine | None = None
        self._reader: Backend | None = None

    def engine(self, lengths: list[int]) -> SharedEngine:
        """The engine, with a cache for sequences of these lengths; calls that run on an earlier one keep it."""
        with self._lock:
            if self._engine is None or self._engine.failure or not holds(self._engine.engine.backend, lengths):
                # Texts that grow from call to call, as conversations do, must not need a new cache for each.
                former = [self._engine.engine.pool.n_pages * self._engine.engine.pool.size] if self._engine else []
                backend = self.new_backend([*lengths, *former])
                self._engine = SharedEngine(Engine(backend, self.tokenizer, MAX_SEQUENCES, 2 * MAX_SEQUENCES))
            return self._engine

    @contextmanager
    def reader(self, lengths: list[int]) -> Generator[Backend]:
        """The backend that reads texts, for one thread at a time."""
        with self._reading:
            if self._reader is None or not holds(self._reader, lengths):
                self._reader = self.new_backend(lengths)
            yield self._reader


def holds(backend: Backend, lengths: Iterable[int]) -> bool:
    """Whether the cache of a backend holds sequences of these lengths at once."""
    return sum(-(-length // backend.page_size) for length in lengths) <= backend.n_pages
