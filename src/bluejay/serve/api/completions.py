"""`POST /v1/completions`: prompts are continued.

https://platform.openai.com/docs/api-reference/completions
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema
from typing_extensions import TypedDict

from bluejay.infer.engine import Chunk
from bluejay.infer.sampling import SamplingParams
from bluejay.serve.api.errors import ERRORS, APIError, Usage, json_response, usage
from bluejay.serve.api.logprobs import Logprobs, LogprobWriter, joined
from bluejay.serve.api.parameters import MAX_LOGPROBS, Parameters, unsupported
from bluejay.serve.engine_thread import Completion
from bluejay.serve.respond import EventStream, Service, events

MAX_PROMPTS = 64
MAX_BEST_OF = 128

DATA = {"type": "string", "description": "JSON like the other form's, with a piece of each choice; at the end [DONE]."}
EVENT = {"type": "object", "properties": {"data": DATA}, "required": ["data"]}
STREAM = {"text/event-stream": {"schema": EVENT}}
"""The form of a streamed answer, for the OpenAPI description."""


def parse_prompt(value: Any) -> list[str | list[int]]:
    """A prompt in any of its four forms, as a list of texts and token lists."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if is_tokens(value):
            return [value]
        if all(isinstance(item, str) for item in value) or all(is_tokens(item) for item in value):
            if len(value) > MAX_PROMPTS:
                message = f"prompt holds {len(value)} prompts; at most {MAX_PROMPTS} go in one request"
                raise APIError(400, message, param="prompt")
            return value
    forms = "a string, a list of strings, a list of token ids or a list of such lists, and not empty"
    raise APIError(400, f"prompt must be {forms}", param="prompt")


def is_tokens(value: Any) -> bool:
    """Whether a JSON value is a list of token ids (JSON's true and false are not)."""
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


TOKENS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS}
LISTS = {"type": "array", "items": TOKENS, "minItems": 1, "maxItems": MAX_PROMPTS}
PROMPT = {"anyOf": [{"type": "string"}, TEXTS, TOKENS, LISTS]}


class CompletionRequest(Parameters):
    """What shall be continued, and how."""

    prompt: Annotated[list[Any], BeforeValidator(parse_prompt), WithJsonSchema(PROMPT)] = Field(
        [""], description="One or several texts, or token ids. An empty text is the end-of-text token."
    )
    suffix: Any = unsupported("")
    max_tokens: int = Field(16, ge=0, description="Tokens to generate at most; with echo, 0 scores the prompt.")
    best_of: int | None = Field(
        None, ge=1, le=MAX_BEST_OF, description="Draw so many, give back the n likeliest per token; not streamed."
    )
    echo: bool = Field(False, description="The answer begins with the prompt; logprobs then score the prompt, too.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Log-probability of each token, and so many alternatives."
    )

    def sampling(self) -> SamplingParams:
        """What the engine needs. Raises APIError for what does not go together."""
        best_of = self.n if self.best_of is None else self.best_of
        if best_of < self.n:
            raise APIError(400, f"best_of is {best_of}; it must be at least n, which is {self.n}", param="best_of")
        if best_of > self.n and self.stream:
            raise APIError(400, "best_of cannot be streamed, as the best is known at the end", param="best_of")
        ranked = 0 if best_of > self.n else None
        return self.engine_params(
            max_tokens=self.max_tokens,
            n=best_of,
            logprobs=ranked if self.logprobs is None else self.logprobs,
            prompt_logprobs=self.max_tokens == 0 or (self.echo and self.logprobs is not None),
        )


class Choice(TypedDict):
    """One sample, or a piece of one."""

    index: int
    """Position of the prompt times n, plus the number of its sample."""
    text: str
    logprobs: Logprobs | None
    finish_reason: str | None
    """stop or length; null while it goes on."""


class CompletionAnswer(TypedDict):
    """A text_completion; an event of a stream has the same shape."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: NotRequired[Usage | None]


class ChoiceWriter:
    """Writes the pieces of one choice as its tokens come."""

    def __init__(self, index: int, echo: str | None, writer: LogprobWriter | None) -> None:
        self.index = index
        self.echo = echo
        """The prompt's text, until it is written."""
        self.writer = writer
        """Where log-probabilities are asked for."""

    def piece(self, completion: Completion, chunk: Chunk) -> Choice:
        """What a chunk brings; the first one brings the prompt, where it shall be echoed."""
        echo, self.echo = self.echo, None
        logprobs: list[Logprobs] = []
        if self.writer and echo is not None:
            request = completion.requests[self.index // completion.params.n]
            logprobs.append(self.writer.prompt(request.prompt, request.prompt_logprobs))
        if self.writer and chunk.logprob is not None:
            logprobs.append(self.writer.write([chunk.logprob]))
        return {
            "index": self.index,
            "text": (echo or "") + chunk.text,
            "logprobs": joined(logprobs) if self.writer else None,
            "finish_reason": chunk.finish_reason,
        }


def whole(pieces: Sequence[Choice]) -> Choice:
    """A choice from its pieces."""
    logprobs = [piece["logprobs"] for piece in pieces if piece["logprobs"] is not None]
    return {
        "index": pieces[0]["index"],
        "text": "".join(piece["text"] for piece in pieces),
        "logprobs": joined(logprobs) if logprobs else None,
        "finish_reason": pieces[-1]["finish_reason"],
    }


def best(samples: Sequence[Sequence[Chunk]], n: int) -> list[int]:
    """The numbers of the n samples with the highest log-probability per token, the best first."""

    def per_token(number: int) -> float:
        logprobs = [chunk.logprob.logprob for chunk in samples[number] if chunk.logprob is not None]
        return sum(logprobs) / max(1, len(logprobs))

    return sorted(range(len(samples)), key=per_token, reverse=True)[:n]


async def complete(body: CompletionRequest, request: Request, service: Service) -> Response:
    """Answer one request. Raises APIError."""
    service.check_name(body.model)
    params = body.sampling()
    form = await service.form(body)
    encode, decode = service.tokenizer.encode_prompt, service.tokenizer.decode
    prompts = await asyncio.to_thread(lambda: [encode(p) if isinstance(p, str) else p for p in body.prompt])
    texts = [prompt if isinstance(prompt, str) else decode(prompt) for prompt in body.prompt]
    completion = await service.submit(prompts, params, form)
    writers = [
        ChoiceWriter(
            index,
            texts[index // params.n] if body.echo else None,
            None if body.logprobs is None else LogprobWriter(service.tokenizer),
        )
        for index in range(len(prompts) * params.n)
    ]
    heading = service.heading("cmpl", "text_completion")
    n_prompt = sum(map(len, prompts))
    if body.stream:
        more = {"usage": None} if body.include_usage else {}

        def piece(index: int, chunk: Chunk) -> dict[str, Any]:
            return {**heading, "choices": [writers[index].piece(completion, chunk)], **more}

        def last() -> dict[str, Any]:
            return {**heading, "choices": [], "usage": usage(n_prompt, completion.n_generated)}

        stream = events(completion, piece, last if body.include_usage else None, form)
        return EventStream(service.worker, completion, stream)
    chunks: list[list[Chunk]] = [[] for _ in writers]
    for index, chunk in await service.collect(completion, request, form):
        chunks[index].append(chunk)
    choices = []
    for first in range(0, len(chunks), params.n):
        for number in best(chunks[first : first + params.n], body.n) if params.n > body.n else range(body.n):
            index = first + number
            choice = whole([writers[index].piece(completion, chunk) for chunk in chunks[index]])
            choices.append({**choice, "index": len(choices)})
    return json_response({**heading, "choices": choices, "usage": usage(n_prompt, completion.n_generated)})


def router(service: Service) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    @routes.post("/v1/completions", response_model=CompletionAnswer, responses={200: {"content": STREAM}, **ERRORS})
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue prompts."""
        return await complete(body, request, service)

    return routes
