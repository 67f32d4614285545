"""The one thread that runs the engine, and how the event loop talks to it.

The loop leaves work under a lock; the thread takes it between two steps and sends what a step made back with one
`call_soon_threadsafe`. Neither side ever waits for the other.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from bluejay.infer.engine import Chunk, Engine, QueueFull, Request
from bluejay.infer.model import Model
from bluejay.infer.params import SamplingParams
from bluejay.infer.sampling import LogitsProcessor
from bluejay.serve.metrics import Metrics
from bluejay.serve.middleware.access_log import RequestRecord, current_request
from bluejay.serve.settings import ServeSettings

logger = logging.getLogger(__name__)


class GenerationFailed(Exception):
    """The engine could not go on; the log says why."""


class ServerStopping(Exception):
    """The server goes down before the text is complete."""


@dataclass(eq=False)
class Job:
    """One call: its prompts, each a request to the engine, and what comes back."""

    prompts: list[list[int]]
    params: SamplingParams
    processor: Callable[[], LogitsProcessor] | None
    """Makes, for each sample, what may change its logits."""
    record: RequestRecord | None
    """The HTTP request behind it, where there is one."""
    reserved: int
    """Tokens that its client was charged for when it came."""
    events: asyncio.Queue = field(default_factory=asyncio.Queue)
    """None once the engine took every prompt, then (choice, Chunk) pairs; an exception ends it at any point."""
    requests: list[Request] = field(default_factory=list)
    """Touched by the engine's thread only."""
    began: float = field(default_factory=time.monotonic)
    token_times: dict[int, float] = field(default_factory=dict)
    """When the last token of each choice was drawn."""
    n_generated: int = 0
    """Tokens that have come so far, over all choices."""
    used: int = 0
    """Tokens of `reserved` that the engine has read or written."""

    async def accepted(self) -> None:
        """Wait until the engine has taken every prompt. Raises ValueError when it refuses one."""
        if isinstance(event := await self.events.get(), Exception):
            raise event

    async def chunks(self) -> AsyncIterator[tuple[int, Chunk]]:
        """Each chunk as it comes, with its choice (prompt * n + sample), until all choices have ended.

        Raises GenerationFailed or ServerStopping, and QueueFull when no sample got a place in time.
        """
        unfinished = len(self.prompts) * self.params.n
        while unfinished:
            event = await self.events.get()
            if isinstance(event, Exception):
                raise event
            choice, chunk = event
            if chunk.token is not None:
                self.n_generated += 1
                self.used += 1
                if self.record is not None:
                    self.record.receive_token()
            unfinished -= chunk.finish_reason is not None
            yield choice, chunk


class EngineThread:
    """Runs a model's engine in a thread of its own, which sleeps while there is nothing to do."""

    def __init__(self, model: Model, settings: ServeSettings, metrics: Metrics) -> None:
        self.model = model
        self.settings = settings
        self.metrics = metrics
        self.backend = model.backend(settings.max_sequences, model.config.n_ctx)
        self.engine = self._engine()
        self.owners: dict[Request, tuple[Job, int]] = {}
        self.wake = threading.Condition()
        self.arriving: list[Job] = []
        self.leaving: list[Job] = []
        self.draining = False
        """Whether balancers are to send nothing more; what comes is still served."""
        self.stopping = False
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work, for the event loop that runs."""
        self.loop = asyncio.get_running_loop()
        self.thread.start()

    @property
    def alive(self) -> bool:
        """Whether calls are answered at all."""
        return self.thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether it is a good place to send a call to."""
        return self.alive and not self.draining

    def stop(self) -> None:
        """Have the thread end after the step it is in; whoever still waits gets ServerStopping."""
        with self.wake:
            self.stopping = True
            self.wake.notify()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self.thread.join()

    async def submit(
        self,
        prompts: list[list[int]],
        params: SamplingParams,
        processor: Callable[[], LogitsProcessor] | None = None,
    ) -> Job:
        """Queue the prompts of one call. Whoever calls this must `release` what comes back.

        Raises QueueFull, ServerStopping, ValueError when the engine refuses a prompt, and APIError when the client's
        budget does not have the tokens.
        """
        record = current_request.get()
        n_tokens = sum(self._n_tokens(prompt, params) for prompt in prompts)
        if record is not None:
            record.reserve(n_tokens)
        job = Job(prompts, params, processor, record, n_tokens)
        with self.wake:
            if self.stopping:
                raise ServerStopping
            self.arriving.append(job)
            self.wake.notify()
        try:
            await job.accepted()
        except BaseException:
            self.release(job)
            raise
        job.used = sum(map(len, prompts))
        if record is not None:
            record.prompts += prompts
        return job

    def release(self, job: Job) -> None:
        """Forget a call, finished or not: its places are free before the next step, unused tokens given back."""
        if job.record is not None:
            job.record.give_back(job.reserved - job.used)
        job.reserved = job.used
        with self.wake:
            self.leaving.append(job)
            self.wake.notify()

    def _n_tokens(self, prompt: list[int], params: SamplingParams) -> int:
        """What a prompt and its answers may come to."""
        return len(prompt) + params.n * max(0, min(params.max_tokens, self.engine.n_ctx - len(prompt)))

    def _engine(self) -> Engine:
        return Engine(self.backend, self.model.tokenizer, self.settings.max_sequences, self.settings.max_waiting)

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
        """Hand events to the loop, all at once: to wake it takes longer than to tell it one thing more."""

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
        """End calls that are over their time: with what they have, or, where nothing has begun, as too many."""
        earliest = time.monotonic() - self.settings.time_limit
        for job in {job for job, _ in self.owners.values() if job.began < earliest}:
            if any(request.running or request.read for request in job.requests):
                chunks = [(request, chunk) for request in job.requests for chunk in self.engine.end(request)]
                self._post([self._event(request, chunk) for request, chunk in chunks])
            else:
                self._post([(job, QueueFull("no place became free in time"))])
            self._dismiss(job)

    def _step(self) -> None:
        try:
            chunks = self.engine.step()
        except Exception:  # a bug of ours: it is logged, its requests fail, later ones get a new engine
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
            last = job.token_times.get(choice)
            if last is not None:
                self.metrics.inter_token.observe(now - last)
            elif not job.token_times:
                self.metrics.first_token.observe(now - job.began)
            job.token_times[choice] = now

    def _fail(self, reason: Exception) -> None:
        self._post([(job, reason) for job in {job for job, _ in self.owners.values()}])
        self.owners.clear()
