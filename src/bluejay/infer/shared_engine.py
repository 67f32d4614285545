"""What of a model stays in memory between calls: one engine for all threads, and one backend that reads texts.

Threads that generate at the same time share the engine. None of them owns it: whoever waits for a token computes the
next step, which advances the samples of all of them.
"""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from bluejay.infer.backends import Backend
from bluejay.infer.cache import pages_of_all
from bluejay.infer.engine import Engine
from bluejay.infer.exceptions import InferenceError
from bluejay.infer.params import SamplingParams
from bluejay.infer.samples import Chunk, Request
from bluejay.tokenizer import Tokenizer

R = TypeVar("R")
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
        self._dropped: deque[Request] = deque()
        """Requests that nobody waits for; whoever holds the lock next cancels them."""

    def run(self, prompts: Sequence[list[int]], params: Sequence[SamplingParams]) -> Iterator[tuple[int, Chunk]]:
        """Continue prompts, each by its own parameters, as many at a time as there are places. Yields each chunk with
        the number of its prompt, those of a sample in order; what is not finished when the caller stops is dropped.
        Raises as `Engine.submit` and `Engine.step`."""
        left = deque(enumerate(prompts))
        mine: dict[Request, int] = {}
        """Request -> the number of its prompt."""
        ended: Counter[Request] = Counter()
        """Request -> the number of its samples that have ended."""
        try:
            while left or mine:
                with self._lock:
                    self._cancel_dropped()
                    while left and len(self.engine.waiting) < self.engine.max_sequences:
                        number, prompt = left.popleft()
                        request = self.engine.submit(prompt, params[number])
                        mine[request], self._chunks[request] = number, []
                    if not any(self._chunks[request] for request in mine):
                        self._step()
                    ready = [(request, chunk) for request in mine for chunk in self._chunks[request]]
                    for request in mine:
                        self._chunks[request].clear()
                for request, chunk in ready:
                    yield mine[request], chunk
                    ended[request] += chunk.finish_reason is not None
                    if ended[request] == request.params.n:
                        self._drop([request])
                        del mine[request]
        finally:
            self._drop(mine)

    def _step(self) -> None:
        """Compute a step, which gives chunks to the requests of all threads. Raises as `Engine.step`, and what ended
        the engine in an earlier step."""
        if self.failure is not None:
            raise self.failure
        try:
            for request, chunk in self.engine.step():
                self._chunks[request].append(chunk)
        except BaseException as failure:  # kept for the other threads, whose requests fail too
            ended = isinstance(failure, Exception)
            self.failure = failure if ended else InferenceError("a step was interrupted; call again")
            raise

    def _drop(self, requests: Iterable[Request]) -> None:
        """Cancel requests, now or when the lock is free: Python's garbage collector closes streams at any place, even
        within a step of their own thread."""
        self._dropped.extend(requests)
        while self._dropped and self._lock.acquire(blocking=False):
            try:
                self._cancel_dropped()
            finally:
                self._lock.release()

    def _cancel_dropped(self) -> None:
        """Cancel the requests that nobody waits for; the caller holds the lock."""
        while self._dropped:
            request = self._dropped.popleft()
            self.engine.cancel(request)
            self._chunks.pop(request, None)


class Resident:
    """The engine and the reading backend of a model. Both are made at first use, by `new_backend` from the lengths of
    the sequences that the cache must hold, and made anew with a larger cache when a call needs one. Of lengths for
    which memory may be too short, `fitting` returns the first ones for which it is enough. A compiled model does not
    `speculate`, because only its steps of one token for each sequence are compiled. Raises InferenceError in a process
    that was forked from its own, where neither the threads that compute are nor those that hold locks."""

    def __init__(
        self,
        new_backend: Callable[[list[int]], Backend],
        tokenizer: Tokenizer,
        fitting: Callable[[list[int]], list[int]] = list,
        speculate: bool = True,
    ) -> None:
        self.new_backend = new_backend
        self.tokenizer = tokenizer
        self.fitting = fitting
        self.speculate = speculate
        self._process = os.getpid()
        self._lock, self._reading = threading.Lock(), threading.RLock()
        self._engine: SharedEngine | None = None
        self._reader: Backend | None = None

    def engine(self, lengths: list[int]) -> SharedEngine:
        """The engine, with a cache for sequences of these lengths; calls that run on an earlier one keep it."""
        self._require_own_process()
        with self._lock:
            if self._engine is None or self._engine.failure or not holds(self._engine.engine.backend, lengths):
                if self._engine is not None:
                    backend = self._engine.engine.backend
                    former = backend.n_pages * backend.page_size
                    # Texts that grow from call to call, as conversations do, must not need a new cache for each.
                    lengths = [former] if holds(backend, lengths) else self.fitting([*lengths, former])
                backend = self.new_backend(lengths)
                engine = Engine(backend, self.tokenizer, MAX_SEQUENCES, 2 * MAX_SEQUENCES, self.speculate)
                self._engine = SharedEngine(engine)
            return self._engine

    @contextmanager
    def reader(self, lengths: list[int]) -> Generator[Backend]:
        """The backend that reads texts, for one thread at a time."""
        with self.turn(), self.lent(lengths) as backend:
            yield backend

    @contextmanager
    def turn(self) -> Generator[None]:
        """The turn of a thread to read texts, because several that compute at once are slower."""
        self._require_own_process()
        with self._reading:
            yield

    @contextmanager
    def lent(self, lengths: list[int]) -> Generator[Backend]:
        """As `reader`, for a caller that pauses within the block, and opens it and computes within its turns: others
        get another backend meanwhile."""
        backend, self._reader = self._reader, None
        if backend is None or not holds(backend, lengths):
            backend = self.new_backend(lengths)
        try:
            yield backend
        finally:
            self._reader = backend

    def in_turn(self, items: Iterator[R]) -> Iterator[R]:
        """The items, each of which is computed in a turn of its own."""
        while True:
            with self.turn():
                item = next(items, None)
            if item is None:
                return
            yield item

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise InferenceError("the model was loaded in another process; call bluejay.load in this one")


def holds(backend: Backend, lengths: Iterable[int]) -> bool:
    """Whether the cache of a backend holds sequences of these lengths at once."""
    return pages_of_all(lengths, backend.page_size) <= backend.n_pages
