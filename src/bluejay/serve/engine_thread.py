"""The one thread that runs the engine, and how it communicates with the event loop.

The loop queues jobs under a lock. The thread takes them between two steps, and returns all results of a step with one
`call_soon_threadsafe`. Neither side ever waits for the other.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from weakref import WeakSet

from bluejay.infer.backends import Backend, context_of
from bluejay.infer.engine import Engine, QueueFull
from bluejay.infer.model import Model
from bluejay.infer.params import SamplingParams
from bluejay.infer.samples import Chunk, Request
from bluejay.infer.sampling import LogitsProcessor
from bluejay.progress import say
from bluejay.serve.errors import too_many_at_once
from bluejay.serve.metrics import EngineMetrics
from bluejay.serve.middleware.access_log import RequestRecord, current_request
from bluejay.serve.settings import ServeSettings

logger = logging.getLogger(__name__)


class GenerationFailed(Exception):
    """A step of the engine failed; the log says why."""


class TimeLimitExceeded(Exception):
    """A job's time is over before all its prompts are read, and what is not read can have no answer."""


class ServerStopping(Exception):
    """The server shuts down before the text is complete."""


@dataclass(eq=False)
class Job:
    """The prompts of one HTTP request, each of them a request to the engine, and the results."""

    prompts: list[list[int]]
    params: SamplingParams
    processor: Callable[[], LogitsProcessor] | None
    """Creates the logits processor of each sample."""
    record: RequestRecord | None
    """The HTTP request that the job serves; None outside of one."""
    reserved: int
    """Tokens that the client was charged for in advance."""
    events: asyncio.Queue = field(default_factory=asyncio.Queue)
    """None once the engine has accepted every prompt, then (choice, Chunk) pairs. An exception may end it early."""
    requests: list[Request] = field(default_factory=list)
    """The engine's requests, one for each prompt; only the engine's thread changes them."""
    began: float = field(default_factory=time.monotonic)
    token_times: dict[int, float] = field(default_factory=dict)
    """Choice -> the monotonic time at which its last token was drawn."""
    n_generated: int = 0
    """Generated tokens that `chunks` has given so far, over all choices."""
    n_drawn: int = 0
    """Tokens that the engine has generated; a client that reads slowly has not received all of them."""

    @property
    def used(self) -> int:
        """Tokens of `reserved` that the engine has read or generated; a prompt that has begun to be read is used."""
        return self.n_drawn + sum(len(one.prompt) for one in self.requests if one.read or one.running)

    @property
    def n_waiting(self) -> int:
        """The prompts that are in the queue or on their way to it."""
        return len(self.prompts) - sum(not request.waiting for request in self.requests)

    async def accepted(self) -> None:
        """Wait until the engine has accepted every prompt. Raises ValueError when it rejects one."""
        if isinstance(event := await self.events.get(), Exception):
            raise event

    async def chunks(self) -> AsyncIterator[tuple[int, Chunk]]:
        """Each chunk as it is generated, with its choice (prompt * n + sample), until all choices have ended.

        Raises GenerationFailed or ServerStopping, QueueFull when no sample could start in time, and TimeLimitExceeded
        when a prompt could not be read in time.
        """
        async for part in self.parts(None):
            if part is not None:
                yield part

    async def parts(self, silence: float | None) -> AsyncIterator[tuple[int, Chunk] | None]:
        """As `chunks`, and None whenever no chunk has come for `silence` seconds. Raises as `chunks` does."""
        unfinished = len(self.prompts) * self.params.n
        while unfinished:
            try:
                async with asyncio.timeout(silence):
                    event = await self.events.get()
            except TimeoutError:
                yield None
                continue
            if isinstance(event, Exception):
                raise event
            choice, chunk = event
            if chunk.token is not None:
                self.n_generated += 1
                if self.record is not None:
                    self.record.receive_token()
            unfinished -= chunk.finish_reason is not None
            yield choice, chunk


class EngineThread:
    """Runs the engine of a model in a thread, which sleeps while there is no work. Without a backend it makes one of
    the model."""

    def __init__(
        self,
        model: Model,
        settings: ServeSettings,
        metrics: EngineMetrics,
        backend: Backend | None = None,
        cache_tokens: int | None = None,
    ) -> None:
        """`cache_tokens` are those for which memory was set aside, if it was counted."""
        self.model = model
        self.settings = settings
        self.metrics = metrics
        self.backend = backend or self._backend(cache_tokens)
        self.engine = self._engine()
        self.jobs: set[Job] = set()
        """Those that are not released; only the event loop's thread changes it."""
        self.owners: dict[Request, tuple[Job, int]] = {}
        self.wake = threading.Condition()
        self.arriving: list[Job] = []
        self.leaving: list[Job] = []
        self.stopping = False
        self.others: WeakSet[EngineThread] = WeakSet()
        """Threads of answers that need an engine of their own; they stop with this one."""
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; it reports to the running event loop."""
        self.loop = asyncio.get_running_loop()
        self.thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; without it no request can be answered."""
        return self.thread.is_alive()

    def stop(self) -> None:
        """Tell the thread and the `others` to end after their current step; unfinished jobs get ServerStopping."""
        for other in [*self.others]:
            other.stop()
        with self.wake:
            self.stopping = True
            self.wake.notify()

    async def submit(
        self, prompts: list[list[int]], params: SamplingParams, processor: Callable[[], LogitsProcessor] | None
    ) -> Job:
        """Queue prompts as one job, which the caller must `release`.

        Raises QueueFull, ServerStopping, ValueError when the engine rejects a prompt or there are more than can ever
        wait, and APIError when the tokens exceed the client's budget or its prompts take too much of a public queue.
        """
        record = current_request.get()
        self._check_queue(len(prompts), record)
        n_tokens = sum(self._n_tokens(prompt, params) for prompt in prompts)
        if record is not None:
            record.reserve(n_tokens)
        job = Job(prompts, params, processor, record, n_tokens)
        with self.wake:
            if self.stopping:
                raise ServerStopping
            self.jobs.add(job)
            self.arriving.append(job)
            self.wake.notify()
        try:
            await job.accepted()
        except BaseException:
            self.release(job)
            raise
        if record is not None:
            record.prompts += prompts
        return job

    def release(self, job: Job) -> None:
        """Drop a job, finished or not. Its samples leave before the next step; unused tokens are refunded."""
        if job in self.jobs:
            self.jobs.remove(job)
            if job.record is not None:
                job.record.refund(job.reserved - job.used)
        with self.wake:
            self.leaving.append(job)
            self.wake.notify()

    def _check_queue(self, n_prompts: int, record: RequestRecord | None) -> None:
        """Raise ValueError for more prompts than can ever wait, and APIError where, with those of the client that wait
        already, they would fill more than half of a public queue."""
        most, public = self.settings.max_waiting, self.settings.public is not None
        most = max(1, most // 2) if public else most
        if n_prompts > most:
            whose = " of each client" if public else ""
            raise ValueError(f"the request holds {n_prompts} prompts; this server queues {most}{whose}, so send fewer")
        if public and record is not None:
            clients = [job for job in self.jobs if job.record is not None and job.record.client == record.client]
            if (waiting := sum(job.n_waiting for job in clients)) + n_prompts > most:
                raise too_many_at_once(f"{waiting} prompts of yours wait, and {most} may; wait for one to start")

    def _n_tokens(self, prompt: list[int], params: SamplingParams) -> int:
        """The most tokens that a prompt and its answers can have."""
        return len(prompt) + params.n * max(0, min(params.max_tokens, self.engine.n_ctx - len(prompt)))

    def _backend(self, cache_tokens: int | None) -> Backend:
        """The backend of the model, with a cache for all samples that run at a time, if there is memory for it."""
        n, n_ctx = self.settings.max_sequences, self.settings.context(self.model.config.n_ctx)
        if cache_tokens is None or cache_tokens >= n * n_ctx:
            backend = self.model.backend(n, n_ctx)
        else:
            backend = self.model.backend(1, cache_tokens)
        if (held := backend.n_pages * backend.page_size) < n * n_ctx:
            short = f"there is no memory for {n} samples of {n_ctx:,} tokens"
            say(f"{self.model.name}: {short}, so the cache holds {held:,} in all, and requests wait for room")
        return backend

    def _engine(self) -> Engine:
        settings, speculate, n_ctx = self.settings, not self.model.compiled, context_of(self.backend)
        n_ctx = settings.context(n_ctx)
        return Engine(
            self.backend, self.model.tokenizer, settings.max_sequences, settings.max_waiting, speculate, n_ctx
        )

    def _run(self) -> None:
        self.metrics.observe(self.engine)
        while True:
            with self.wake:
                self.wake.wait_for(lambda: self.stopping or self.arriving or self.leaving or not self.engine.idle)
                arriving, self.arriving = self.arriving, []
                leaving, self.leaving = self.leaving, []
                stopping = self.stopping
            for job in arriving:
                self._admit(job)
            for job in leaving:
                self._dismiss(job)
            if stopping:
                return self._fail(ServerStopping())
            self._end_late()
            if not self.engine.idle:
                self._step()
            self.metrics.observe(self.engine)

    def _post(self, events: list[tuple[Job, tuple[int, Chunk] | Exception | None]]) -> None:
        """Deliver events to the loop, all at once because waking it costs more than delivering one more event."""

        def deliver() -> None:
            for job, event in events:
                job.events.put_nowait(event)

        self.loop.call_soon_threadsafe(deliver)

    def _admit(self, job: Job) -> None:
        try:
            for prompt in job.prompts:
                job.requests.append(self.engine.submit(prompt, job.params, job.processor))
        except (ValueError, QueueFull) as error:
            self._dismiss(job)
            return self._post([(job, error)])
        for position, request in enumerate(job.requests):
            self.owners[request] = job, position * job.params.n
        self._post([(job, None)])

    def _dismiss(self, job: Job) -> None:
        for request in job.requests:
            self.engine.cancel(request)
            self.owners.pop(request, None)

    def _end_late(self) -> None:
        """End jobs that exceed the time limit: with the text they have if all prompts are read, with QueueFull if no
        sample has started, else with TimeLimitExceeded."""
        earliest = time.monotonic() - self.settings.time_limit
        for job in {job for job, _ in self.owners.values() if job.began < earliest}:
            if all(request.read for request in job.requests):
                chunks = [(request, chunk) for request in job.requests for chunk in self.engine.end(request)]
                self._post([self._event(request, chunk) for request, chunk in chunks])
            elif any(request.running or request.read for request in job.requests):
                self._post([(job, TimeLimitExceeded())])
            else:
                self._post([(job, QueueFull("no place became free in time"))])
            self._dismiss(job)

    def _step(self) -> None:
        try:
            chunks = self.engine.step()
        except Exception:  # a bug: it is logged, the requests in flight fail, later ones get a new engine
            logger.exception("a step of the engine failed; the requests in flight are lost")
            self.engine = self._engine()
            return self._fail(GenerationFailed())
        self._measure(chunks)
        self._post([self._event(request, chunk) for request, chunk in chunks])

    def _event(self, request: Request, chunk: Chunk) -> tuple[Job, tuple[int, Chunk]]:
        job, first_choice = self.owners[request]
        return job, (first_choice + chunk.index, chunk)

    def _measure(self, chunks: list[tuple[Request, Chunk]]) -> None:
        now = time.monotonic()
        for request, chunk in chunks:
            job, (choice, _) = self._event(request, chunk)
            job.n_drawn += chunk.token is not None
            last = job.token_times.get(choice)
            if last is not None:
                self.metrics.inter_token.observe(now - last)
            elif not job.token_times:
                self.metrics.first_token.observe(now - job.began)
            job.token_times[choice] = now

    def _fail(self, reason: Exception) -> None:
        self._post([(job, reason) for job in {job for job, _ in self.owners.values()}])
        self.owners.clear()
