"""`POST /v1/completions`: from a request to the engine, and from its chunks to an answer in one piece or many."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bluejay.infer.engine import QueueFull
from bluejay.infer.model import Model
from bluejay.infer.sampling import SamplingParams
from bluejay.serve.openai import (
    DONE,
    Answer,
    APIError,
    CompletionRequest,
    choice,
    event,
    gather,
    json_response,
    usage,
)
from bluejay.serve.worker import Completion, GenerationFailed, ServerStopping, Worker

RETRY_AFTER = 5
"""Seconds that a client turned away should wait."""


async def complete(body: CompletionRequest, request: Request, worker: Worker) -> Response:
    """Answer one request. Raises APIError."""
    model = worker.model
    check_name(body.model, model)
    params = body.sampling()
    prompts = await asyncio.to_thread(tokens_of, body.prompt, model)
    completion = await submit(worker, prompts, params)
    texts = [text if isinstance(text, str) else model.tokenizer.decode(text) for text in body.prompt]
    echoes = [text if body.echo else "" for text in texts for _ in range(params.n)]
    if body.stream:
        return EventStream(worker, completion, parts(completion, Answer(model.name), echoes, body))
    return await whole(worker, completion, Answer(model.name), echoes, request)


def check_name(name: str | None, model: Model) -> None:
    """Raises APIError unless a request's model is the one that is served, or left out."""
    if name is not None and name != model.name:
        message = f"there is no model {name[:100]!r} here; this server has {model.name!r}"
        raise APIError(404, message, param="model", code="model_not_found")


def tokens_of(prompts: list[Any], model: Model) -> list[list[int]]:
    """The prompts as token ids; an empty text is the end-of-text token, which begins a new document."""
    return [model.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


async def submit(worker: Worker, prompts: list[list[int]], params: SamplingParams) -> Completion:
    """Hand a call to the engine. Raises APIError when it is refused."""
    try:
        return await worker.submit(prompts, params)
    except ValueError as error:
        too_long = any(len(prompt) >= worker.engine.n_ctx for prompt in prompts)
        code = "context_length_exceeded" if too_long else None
        raise APIError(400, str(error), param="prompt", code=code) from None
    except (QueueFull, ServerStopping) as reason:
        raise failure(reason) from None


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


async def whole(
    worker: Worker, completion: Completion, answer: Answer, echoes: list[str], request: Request
) -> Response:
    """The answer in one piece. When the client goes away before it is complete, nobody works on it any longer."""

    async def collect() -> list[Any]:
        return [part async for part in completion.chunks()]

    # The body has been read, so the next thing that the connection can say is that it is gone.
    collecting, gone = asyncio.ensure_future(collect()), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((collecting, gone), return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            return Response(status_code=499)  # nginx's number for it; there is nobody to read this
        n_prompt = sum(map(len, completion.prompts))
        choices = gather(collecting.result(), echoes)
        return json_response(answer.body(choices, usage=usage(n_prompt, completion.n_generated)))
    except (GenerationFailed, ServerStopping) as reason:
        raise failure(reason) from None
    finally:
        collecting.cancel()
        gone.cancel()
        worker.release(completion)


async def parts(
    completion: Completion, answer: Answer, echoes: list[str], body: CompletionRequest
) -> AsyncIterator[str]:
    """The answer as server-sent events: one for every token, also where a token completes no character yet."""
    more = {"usage": None} if body.stream_options.include_usage else {}
    try:
        async for index, chunk in completion.chunks():
            text, echoes[index] = echoes[index] + chunk.text, ""
            yield event(answer.body([choice(index, text, chunk.finish_reason)], **more))
    except (GenerationFailed, ServerStopping) as reason:
        yield event(failure(reason).body)
        return
    if more:
        yield event(answer.body([], usage=usage(sum(map(len, completion.prompts)), completion.n_generated)))
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
