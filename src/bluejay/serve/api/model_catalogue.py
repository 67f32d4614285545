"""The models of a server: each is loaded when it is first asked for, within a limit of memory, and those that were used
least recently are let go when another needs the room. A model that answers requests is never let go."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from fastapi import Request

from bluejay.gpt.info import size
from bluejay.infer.model import Model
from bluejay.infer.needs import INSIDE, MODEL, READING
from bluejay.mistakes import sentence
from bluejay.serve.api.offered import Offered, collect, purpose
from bluejay.serve.api.respond import RETRY_AFTER_SECONDS, Service, to_api_error, unless_gone
from bluejay.serve.engine_thread import EngineThread, ServerStopping
from bluejay.serve.errors import APIError
from bluejay.serve.fingerprint import fingerprint
from bluejay.serve.metrics import EngineMetrics, Metrics
from bluejay.serve.middleware.access_log import current_request
from bluejay.serve.settings import ServeSettings

DOING = {MODEL: "answering", READING: "embedding texts", INSIDE: "looking inside"}

logger = logging.getLogger(__name__)


class Catalogue:
    """The models that a server offers, the first of which answers requests that name none. `room` is the memory for
    all that are loaded, in bytes; None does not limit it. `may_grow` says whether models are added later."""

    def __init__(
        self, offered: Sequence[Offered], settings: ServeSettings, room: int | None = None, may_grow: bool = False
    ) -> None:
        self.offered = {one.name: one for one in offered}
        self.first = offered[0]
        self.settings = settings
        self.room = room
        self.metrics = Metrics(self.several or may_grow)
        self.after_first_completion: Callable[[], None] | None = None
        """Called once, when the first answer that a model has written has ended."""
        self.created = int(time.time())
        self.draining = False
        """Whether load balancers should send nothing more; requests that arrive are still served."""
        self.stopping = False
        self.changed = asyncio.Event()
        """Set, and replaced by another, when a model has nothing to answer any more, was loaded, or was let go."""

    def open(self) -> None:
        """Load the first model, which most requests ask for. Raises as its `load` does."""
        if self.first.service is None:
            self._install(self.first, self._make(self.first))

    def add(self, one: Offered) -> None:
        """Offer another model from now on; may be called by any thread."""
        self.offered = self.offered | {one.name: one}

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self.offered) > 1

    @property
    def services(self) -> list[Service]:
        """The services of the models that are loaded."""
        return [one.service for one in self.offered.values() if one.service is not None]

    @property
    def alive(self) -> bool:
        """Whether the threads of all engines run; without one some requests cannot be answered."""
        return all(service.engine_thread.alive for service in self.services)

    @property
    def ready(self) -> bool:
        """False while draining or after a thread died: load balancers should send nothing."""
        return self.alive and not self.draining

    def start(self) -> None:
        """Start the threads of the models that are loaded; they report to the running event loop."""
        for service in self.services:
            service.start(self.settings)

    def stop(self) -> None:
        """Tell the threads to end after their current step; unfinished jobs get ServerStopping, and so do requests
        that wait for a model."""
        self.stopping = True
        self._wake()
        for service in self.services:
            service.engine_thread.stop()

    async def close(self) -> None:
        """Stop, and wait until all threads have ended."""
        self.stop()
        loading = [one.loading for one in self.offered.values() if one.loading is not None]
        await asyncio.gather(*loading, return_exceptions=True)
        for service in self.services:
            await service.close()

    def find(self, name: str | None) -> Offered:
        """The model of a name; the first where there is none. Raises APIError for an unknown name."""
        if name is None:
            return self.first
        if name not in self.offered:
            known = [repr(known) for known in self.offered]
            all_known = " and ".join(filter(None, (", ".join(known[:-1]), known[-1])))
            message = f"there is no model {name[:100]!r} here; this server has {all_known}"
            raise APIError(404, message, param="model", code="model_not_found")
        return self.offered[name]

    def named(self, request: Request, name: str | None = None) -> Offered:
        """The model that a request names in its body, or else in its query. Raises APIError for an unknown name."""
        return self.find(name if name is not None else request.query_params.get("model"))

    def context(self, one: Offered) -> int:
        """Tokens of the longest text that a model is served with, answer included, as far as that is known."""
        if one.service is not None:
            return one.service.n_ctx
        n_ctx = self.settings.context(one.config.n_ctx)
        return n_ctx if one.memory is None else min(n_ctx, one.memory.cache_tokens)

    async def use(self, request: Request, name: str | None = None, part: str = MODEL) -> Service:
        """The service of the model that a request names, which is loaded for it and stays loaded until the response has
        ended. Raises APIError for an unknown name, and where there is no room in time."""
        one = self.named(request, name)
        record = current_request.get()
        assert record is not None
        one.users += 1
        one.last_used = time.monotonic()
        record.ends.append(lambda: self._leave(one, record.generated_tokens))
        if not one.ready(part):
            await self._prepare(one, part, request)
        assert one.service is not None
        if self.several:
            record.model = one.name
        if self.settings.log_prompts:
            record.decode = one.service.tokenizer.decode
        return one.service

    def _leave(self, one: Offered, n_generated: int) -> None:
        one.users -= 1
        one.last_used = time.monotonic()
        if n_generated and self.after_first_completion is not None:
            called, self.after_first_completion = self.after_first_completion, None
            called()
        if one.users == one.waiting:
            self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _prepare(self, one: Offered, part: str, request: Request) -> None:
        """Wait until a model can answer, for a limited time. Raises APIError."""
        seconds = self.settings.model_wait
        needed = sum(one.needs.get(each, 0) for each in {MODEL, part})
        if self.room is not None and needed > self.room:
            message = f"{DOING[part]} with {one.name} needs {size(needed)} of memory; this server has {size(self.room)}"
            raise APIError(400, message, code="memory_too_small")
        try:
            async with asyncio.timeout(seconds):
                await unless_gone(request, self._until_ready(one, part))
        except TimeoutError:
            reason = "it is still being loaded" if one.loading else "the models in memory are all answering requests"
            message = f"{one.name} could not be made ready within {seconds:g} s: {reason}; try again in a few seconds"
            retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            raise APIError(503, message, type="server_error", code="model_not_ready", headers=retry) from None

    async def _until_ready(self, one: Offered, part: str) -> None:
        while not one.ready(part):
            if self.stopping:
                raise to_api_error(ServerStopping())
            changed = self.changed
            if not one.loading and not one.leaving and (idle := self._room_for(one, part)) is not None:
                for other in idle:
                    other.leaving = True
                lacking = one.lacking(part)
                one.held |= lacking  # before anyone else asks for room
                one.loading = asyncio.create_task(self._load(one, lacking, idle))
                one.loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may wait now
            if one.loading is not None:
                await asyncio.shield(one.loading)
            else:
                one.waiting += 1
                try:
                    await changed.wait()
                finally:
                    one.waiting -= 1

    def _room_for(self, one: Offered, part: str) -> list[Offered] | None:
        """The models to let go so that a model has room, those that were used least recently; None if those that
        answer no request do not take enough."""
        if self.room is None:
            return []
        free = self.room - sum(other.n_bytes for other in self.offered.values())
        free -= sum(one.needs.get(each, 0) for each in one.lacking(part))
        others = (other for other in self.offered.values() if other is not one)
        idle = [other for other in others if other.users == other.waiting and other.ready(MODEL)]
        idle.sort(key=lambda other: other.last_used)
        chosen: list[Offered] = []
        while free < 0 and idle:
            chosen.append(idle.pop(0))
            free += chosen[-1].n_bytes
        for other in chosen[::-1]:  # a small one need not go where a large one goes, too
            if other.n_bytes <= free:
                chosen.remove(other)
                free -= other.n_bytes
        return chosen if free >= 0 else None

    async def _load(self, one: Offered, lacking: set[str], idle: list[Offered]) -> None:
        """Let models go, then load one that is not loaded. Raises APIError where it cannot be loaded; it then holds no
        memory for what was `lacking`."""
        try:
            for other in idle:
                await self._let_go(other)
            if one.service is None:
                service = await asyncio.to_thread(self._make, one)
                service.start(self.settings)
                self._install(one, service)
        except Exception as error:  # readers of files share no class; those who asked are told, other models go on
            one.held -= lacking
            logger.exception("the model %s could not be loaded", one.name)
            why = "the server's log says why" if self.settings.public else sentence(error)
            message = f"{one.name} cannot be loaded: {why}"
            raise APIError(503, message, type="server_error", code="model_not_loaded") from None
        finally:
            for other in idle:
                other.leaving = False
            one.loading = None
            self._measure(one)
            self._wake()

    async def _let_go(self, one: Offered) -> None:
        """End the service of a model that answers nothing, and free its memory."""
        service, one.service = one.service, None
        assert service is not None
        await service.close()
        service.engine_thread.metrics.clear()
        service.model.close()
        del service
        await asyncio.to_thread(collect)
        one.held.clear()
        one.leaving = False
        self._measure(one)
        self._wake()

    def _make(self, one: Offered) -> Service:
        """Load a model, and what answers requests with it. Raises ValueError for a model of another shape than was
        offered, whose memory nobody has counted."""
        model = one.load()
        if model.config != one.config:
            raise ValueError(f"{one.path} holds another model than when the server started; start it again")
        counted = None if one.memory is None else one.memory.cache_tokens
        thread = EngineThread(model, self.settings, EngineMetrics(self.metrics, one.name), cache_tokens=counted)
        return Service(thread, fingerprint(thread.backend, model.tokenizer))

    def _install(self, one: Offered, service: Service) -> None:
        one.service = service
        one.held |= {MODEL} if one.needs else {MODEL, READING, INSIDE}
        if self.metrics.several:
            self.metrics.loads.labels(model=one.name).inc()
        self._measure(one)

    def _measure(self, one: Offered) -> None:
        if self.metrics.several:
            self.metrics.model_bytes.labels(model=one.name).set(one.n_bytes)


def catalogue_of(model: Model, settings: ServeSettings) -> Catalogue:
    """The catalogue of one model that is in memory, and stays there."""
    good_for = purpose(model.card, model.tokenizer)
    config, vocab_size = model.config, model.tokenizer.vocab_size
    one = Offered(model.name, config, lambda: model, vocab_size, model.path, model.licence, model.card, good_for)
    return Catalogue([one], settings)
