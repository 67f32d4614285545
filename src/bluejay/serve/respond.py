"""From a call to the engine, and from the engine's chunks to an answer in one piece or a stream of events."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bluejay.infer.engine import Chunk, QueueFull
from bluejay.infer.sampling import SamplingParams
from bluejay.serve.api.constraints import Constraints, Form
from bluejay.serve.api.errors import DONE, APIError, event
from bluejay.serve.api.parameters import Parameters
from bluejay.serve.engine_thread import Completion, GenerationFailed, ServerStopping, Worker

ENDINGS = (GenerationFailed, QueueFull, ServerStopping)
"""How a call can end before its answer does."""
RETRY_AFTER = 5
"""Seconds that a client turned away should wait."""


class Service:
    """What the endpoints share: the engine's thread, and what they say of the model."""

    def __init__(self, worker: Worker, fingerprint: str) -> None:
        self.worker = worker
        self.model = worker.model
        self.tokenizer = worker.model.tokenizer
        self.fingerprint = fingerprint
        self.constraints = Constraints(self.tokenizer)

    def heading(self, prefix: str, kind: str) -> dict[str, Any]:
        """What all parts of one answer begin with."""
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model.name,
            "system_fingerprint": self.fingerprint,
        }

    def check_name(self, name: str | None) -> None:
        """Raises APIError unless a request's model is the one that is served, or left out."""
        if name is not None and name != self.model.name:
            message = f"there is no model {name[:100]!r} here; this server has {self.model.name!r}"
            raise APIError(404, message, param="model", code="model_not_found")

    async def form(self, body: Parameters) -> Form | None:
        """What a call's answers must be, where it says so. Raises APIError."""
        wanted, schema = body.response_format, None
        if wanted is not None and wanted.type == "json_object":
            schema = {"type": "object"}
        elif wanted is not None and wanted.type == "json_schema":
            if wanted.json_schema is None:
                raise APIError(400, "response_format.json_schema is missing", param="response_format.json_schema")
            schema = wanted.json_schema.definition
        if body.regex is not None and schema is not None:
            raise APIError(400, "regex and response_format exclude each other", param="regex")
        try:
            if body.regex is not None:
                return await asyncio.to_thread(self.constraints.regex, body.regex)
            return None if schema is None else await asyncio.to_thread(self.constraints.json, schema)
        except ValueError as error:
            param = "regex" if schema is None else "response_format"
            raise APIError(400, f"{param} cannot be used: {error}", param=param) from None

    async def submit(
        self, prompts: list[list[int]], params: SamplingParams, form: Callable | None = None, param: str = "prompt"
    ) -> Completion:
        """Hand a call to the engine; whoever does must release it. Raises APIError when it is refused."""
        try:
            return await self.worker.submit(prompts, params, form)
        except ValueError as error:
            param = "logit_bias" if str(error).startswith("logit_bias") else param
            too_long = any(len(prompt) >= self.worker.engine.n_ctx for prompt in prompts)
            code = "context_length_exceeded" if too_long else None
            raise APIError(400, str(error), param=param, code=code) from None
        except (QueueFull, ServerStopping) as reason:
            raise failure(reason) from None

    async def collect(
        self, completion: Completion, request: Request, form: Form | None = None
    ) -> list[tuple[int, Chunk]]:
        """All chunks of a call, which ends with this. Raises APIError.

        When the client goes away before that, nobody works on it any longer.
        """

        async def every() -> list[tuple[int, Chunk]]:
            return [part async for part in completion.chunks()]

        # The body has been read, so the next thing that the connection can say is that it is gone.
        collecting, gone = asyncio.ensure_future(every()), asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((collecting, gone), return_when=asyncio.FIRST_COMPLETED)
            if not collecting.done():
                raise APIError(499, "the client went away")  # nginx's number for it; there is nobody to read this
            chunks = collecting.result()
            check(form)
            return chunks
        except ENDINGS as reason:
            raise failure(reason) from None
        finally:
            collecting.cancel()
            gone.cancel()
            self.worker.release(completion)


def check(form: Form | None) -> None:
    """Raises APIError where an answer could not be held to its form until its end."""
    if form is not None and form.error is not None:
        message = f"the answer could not be kept in its form, which is too complex: {form.error}"
        raise APIError(400, message, code="constraint_too_complex")


def failure(reason: Exception) -> APIError:
    """How a client learns that the engine cannot serve it."""
    retry = {"Retry-After": str(RETRY_AFTER)}
    if isinstance(reason, QueueFull):
        message = "too many requests are waiting; try again in a few seconds"
        return APIError(429, message, type="rate_limit_error", code="queue_full", headers=retry)
    if isinstance(reason, ServerStopping):
        message = "the server is shutting down"
        return APIError(503, message, type="server_error", code="shutting_down", headers=retry)
    message = "the generation failed; the server's log says why"
    return APIError(500, message, type="server_error", code="generation_failed")


async def events(
    completion: Completion,
    piece: Callable[[int, Chunk], dict[str, Any]],
    last: Callable[[], dict[str, Any]] | None,
    form: Form | None,
) -> AsyncIterator[str]:
    """An answer as server-sent events: `piece` of every chunk, then `last`, then the sign of the end."""
    try:
        async for index, chunk in completion.chunks():
            yield event(piece(index, chunk))
        check(form)
    except APIError as error:
        yield event(error.body)
        return
    except ENDINGS as reason:
        yield event(failure(reason).body)
        return
    if last is not None:
        yield event(last())
    yield DONE


class EventStream(StreamingResponse):
    """Server-sent events that free the engine's rows when they end, however they end."""

    def __init__(self, worker: Worker, completion: Completion, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.worker = worker
        self.completion = completion

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client goes away."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.worker.release(self.completion)
