"""From a request to the engine, and from the engine's chunks to a response: one JSON object or a stream of events."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol, TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bluejay.infer.engine import QueueFull
from bluejay.infer.params import SamplingParams
from bluejay.infer.prompts import maximum
from bluejay.infer.samples import Chunk
from bluejay.lens.activations import Lens
from bluejay.serve.api.constraints import Constraint, Constraints
from bluejay.serve.api.parameters import Parameters
from bluejay.serve.engine_thread import EngineThread, GenerationFailed, Job, ServerStopping, TimeLimitExceeded
from bluejay.serve.errors import DONE, WAITING, APIError, Usage, event, json_response, usage
from bluejay.serve.middleware.access_log import CLIENT_LEFT, current_request
from bluejay.serve.settings import ServeSettings

T = TypeVar("T")
ENGINE_ERRORS = (GenerationFailed, QueueFull, ServerStopping, TimeLimitExceeded)
"""The exceptions that end a job before its answer is complete."""
RETRY_AFTER_SECONDS = 5
"""How long a rejected client should wait, as the Retry-After header says."""

SILENT_SECONDS = 15.0
"""How long a stream sends nothing, as where its prompt waits for a place: many proxies close what is idle for 60 s."""

MAX_TEXT_BYTES = 100_000
"""Bytes of text that are tokenized in up to a quarter of a second; more are read for contexts above 12,500."""


class Writer(Protocol):
    """Writes the choices of a response in the form of one API."""

    id_prefix: str
    kinds: tuple[str, str]
    """The `object` of a response in one piece, and of an event in a stream."""

    def chunk(self, index: int, chunk: Chunk) -> Mapping[str, object]:
        """The choice in the event for one chunk of the choice with this index."""
        ...

    def whole(self, chunks: list[list[Chunk]]) -> Sequence[Mapping[str, object]]:
        """All choices of a response in one piece, from the chunks of each."""
        ...


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of work for a request whose body has been read, which is cancelled when the client goes away. Raises
    APIError then."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise APIError(CLIENT_LEFT, "the client went away")  # nobody is left to read it
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


class Service:
    """What answers requests with one model: the engine's thread, and the name and fingerprint of its model."""

    def __init__(self, engine_thread: EngineThread, fingerprint: str) -> None:
        self.engine_thread = engine_thread
        self.model = engine_thread.model
        self.tokenizer = engine_thread.model.tokenizer
        self.fingerprint = fingerprint
        self.constraints = Constraints(self.tokenizer)
        self.longest_token = max(map(len, self.tokenizer.token_bytes()))

    def start(self, settings: ServeSettings) -> None:
        """Start the engine's thread, which reports to the running event loop."""
        self.engine_thread.start()
        if settings.public is not None:
            self.constraints.start()

    async def close(self) -> None:
        """Stop the engine's thread and wait for its end."""
        self.constraints.close()
        self.engine_thread.stop()
        await asyncio.to_thread(self.engine_thread.thread.join)

    @cached_property
    def lens(self) -> Lens:
        """The model in float32, to look into. Raises ValueError where memory is too short for it."""
        return self.model.lens()

    async def constraint(self, body: Parameters) -> Constraint | None:
        """The constraint that a request puts on the text of its answers. Raises APIError for an invalid one."""
        wanted, schema = body.response_format, None
        if wanted is not None and wanted.json_schema is not None and wanted.type != "json_schema":
            message = f"response_format.json_schema needs the type json_schema; the type is {wanted.type}"
            raise APIError(400, message, param="response_format.json_schema")
        if wanted is not None and wanted.type == "json_object":
            schema = {"type": "object"}
        elif wanted is not None and wanted.type == "json_schema":
            if wanted.json_schema is None:
                raise APIError(400, "response_format.json_schema is missing", param="response_format.json_schema")
            schema = wanted.json_schema.definition
        if body.regex is not None and schema is not None:
            raise APIError(400, "regex and response_format exclude each other", param="regex")
        if schema is not None:
            try:
                param, kind, source = "response_format", "json", json.dumps(schema, allow_nan=False)
            except ValueError:  # Python reads 1e999 as infinity
                message = "response_format cannot be used: its schema holds a number that is too large"
                raise APIError(400, message, param="response_format") from None
        elif body.regex is not None:
            param, kind, source = "regex", "regex", body.regex
        else:
            return None
        try:
            return await self.constraints.compile(kind, source, current_request.get())
        except ValueError as error:
            raise APIError(400, f"{param} cannot be used: {error}", param=param) from None
        except QueueFull as reason:
            raise to_api_error(reason) from None

    @property
    def n_ctx(self) -> int:
        """Tokens of the longest text that is served, answer included."""
        return self.engine_thread.engine.n_ctx

    @property
    def max_text_bytes(self) -> int:
        """The bytes of a text that are tokenized; with --public, of all texts of a request."""
        return max(MAX_TEXT_BYTES, 8 * self.n_ctx)

    @contextmanager
    def reading(self, texts: Sequence[str], param: str, in_context: bool = True) -> Generator[None]:
        """A context in which the texts of a request, its parameter `param`, are tokenized, each for a context of its
        own if they are `in_context`.

        The client is charged for the fewest tokens that they can have; the charge for all tokens follows if they go to
        the engine. Raises APIError for texts that are too long and for a client without enough tokens.
        """
        sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
        longest, n_bytes, most = max(sizes, default=0), sum(sizes), self.max_text_bytes
        if longest > most:
            code = "context_length_exceeded" if in_context else "text_too_long"
            has = "has a text of" if len(texts) > 1 else "has"
            message = f"{param} {has} {longest:,} bytes; at most {most:,} are read"
            if in_context:
                message += f", because {maximum(self.n_ctx)}"
            raise APIError(400, message, param=param, code=code)
        if n_bytes > most and self.engine_thread.settings.public is not None:
            message = f"{param} has {n_bytes:,} bytes in all; at most {most:,} are read; send fewer texts at a time"
            raise APIError(400, message, param=param, code="text_too_long")
        record, least = current_request.get(), n_bytes // self.longest_token
        if record is not None:
            record.reserve(least)
        yield
        if record is not None and in_context:
            record.refund(least)

    async def submit(
        self, prompts: list[list[int]], params: SamplingParams, constraint: Constraint | None, param: str = "prompt"
    ) -> Job:
        """Submit prompts, the request's parameter `param`; the caller must release the job. Raises APIError."""
        try:
            return await self.engine_thread.submit(prompts, params, constraint)
        except ValueError as error:
            param = "logit_bias" if str(error).startswith("logit_bias") else param
            too_long = any(len(prompt) >= self.n_ctx for prompt in prompts)
            code = "context_length_exceeded" if too_long else None
            raise APIError(400, str(error), param=param, code=code) from None
        except (QueueFull, ServerStopping) as reason:
            raise to_api_error(reason) from None

    async def respond(self, body: Parameters, request: Request, job: Job, writer: Writer) -> Response:
        """The response to a request whose prompts have been submitted; the job is released. Raises APIError."""
        heading = {
            "id": f"{writer.id_prefix}-{uuid.uuid4().hex}",
            "object": writer.kinds[body.stream],
            "created": int(time.time()),
            "model": self.model.name,
            "system_fingerprint": self.fingerprint,
        }
        if body.stream:
            return EventStream(self.engine_thread, job, events(job, writer, heading, body.include_usage))
        chunks: list[list[Chunk]] = [[] for _ in range(len(job.prompts) * job.params.n)]
        for index, chunk in await self.collect(job, request):
            chunks[index].append(chunk)
        return json_response({**heading, "choices": writer.whole(chunks), "usage": usage_of(job)})

    async def collect(self, job: Job, request: Request) -> list[tuple[int, Chunk]]:
        """All chunks of a job, which is then released. Raises APIError.

        The job is cancelled when the client disconnects before its end.
        """

        async def collect_all() -> list[tuple[int, Chunk]]:
            return [part async for part in job.chunks()]

        try:
            chunks = await unless_gone(request, collect_all())
            raise_if_broken(job)
            return chunks
        except ENGINE_ERRORS as reason:
            raise to_api_error(reason) from None
        finally:
            self.engine_thread.release(job)


def usage_of(job: Job) -> Usage:
    """The `usage` of a job: the tokens of all its prompts and samples so far."""
    return usage(sum(map(len, job.prompts)), job.n_generated)


def raise_if_broken(job: Job) -> None:
    """Raises APIError if the constraint of a job could not be enforced to the end of its answers."""
    constraint = job.processor
    if isinstance(constraint, Constraint) and constraint.error is not None:
        message = f"the constraint is too complex to be enforced to the end of the answer: {constraint.error}"
        raise APIError(400, message, code="constraint_too_complex")


def to_api_error(reason: Exception) -> APIError:
    """The error that tells a client why the engine cannot serve it."""
    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    if isinstance(reason, QueueFull):
        message = "too many requests are waiting; try again in a few seconds"
        return APIError(429, message, type="rate_limit_error", code="queue_full", headers=retry)
    if isinstance(reason, ServerStopping):
        message = "the server is shutting down"
        return APIError(503, message, type="server_error", code="shutting_down", headers=retry)
    if isinstance(reason, TimeLimitExceeded):
        message = "the server's time limit ended the request before all of its texts were read; send less at a time"
        return APIError(503, message, type="server_error", code="time_limit")
    message = "the generation failed; the server's log says why"
    return APIError(500, message, type="server_error", code="generation_failed")


async def events(job: Job, writer: Writer, heading: Mapping[str, object], with_usage: bool) -> AsyncIterator[str]:
    """A response as server-sent events: one for each chunk, one with the usage where it is wanted, then [DONE]. A
    comment, which clients read over, stands for every `SILENT_SECONDS` without an event."""
    usage_field = {"usage": None} if with_usage else {}
    try:
        async for part in job.parts(SILENT_SECONDS):
            if part is None:
                yield WAITING
            else:
                yield event({**heading, "choices": [writer.chunk(*part)], **usage_field})
            await asyncio.sleep(0)  # where many chunks wait, a lost connection would be noticed after the last one only
        raise_if_broken(job)
    except (APIError, *ENGINE_ERRORS) as reason:
        error = reason if isinstance(reason, APIError) else to_api_error(reason)
        if job.record is not None:
            job.record.error = error.body["error"]["code"]
        yield event(error.body)
        return
    if with_usage:
        yield event({**heading, "choices": [], "usage": usage_of(job)})
    yield DONE


class EventStream(StreamingResponse):
    """Server-sent events; the job is released when they end, for whatever reason."""

    def __init__(self, engine_thread: EngineThread, job: Job, events: AsyncIterator[str]) -> None:
        # nginx would else collect tokens, unless it is told by proxy_buffering.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self.engine_thread = engine_thread
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client disconnects."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.engine_thread.release(self.job)
