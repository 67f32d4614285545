"""`POST /v1/completions` continues prompts.

https://platform.openai.com/docs/api-reference/completions
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema
from typing_extensions import TypedDict

from bluejay.infer.params import SamplingParams
from bluejay.infer.samples import Chunk
from bluejay.serve.api.logprobs import Logprobs, LogprobWriter, concatenate
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.parameters import MAX_LOGPROBS, JSONRoute, Parameters, is_token_ids, unsupported
from bluejay.serve.api.respond import Service
from bluejay.serve.engine_thread import Job
from bluejay.serve.errors import ERRORS, APIError, Usage
from bluejay.tokenizer import Tokenizer

MAX_PROMPTS = 64
MAX_BEST_OF = 128
MAX_ECHOED = 1_000_000
"""Tokens of prompts that an answer repeats, each counted with its alternatives: about 30 MB of JSON."""

DATA_SCHEMA = {"type": "string", "description": "JSON with one token of one choice; [DONE] at the end."}
EVENT_SCHEMA = {"type": "object", "properties": {"data": DATA_SCHEMA}, "required": ["data"]}
STREAM_CONTENT = {"text/event-stream": {"schema": EVENT_SCHEMA}}
"""The content of a streamed response, for the OpenAPI description."""


def parse_prompt(value: Any) -> list[str | list[int]]:
    """Convert a prompt in any of its four forms to a list of texts and token lists. Raises APIError."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if is_token_ids(value):
            return [value]
        if all(isinstance(item, str) for item in value) or all(item and is_token_ids(item) for item in value):
            if len(value) > MAX_PROMPTS:
                message = f"prompt holds {len(value)} prompts; at most {MAX_PROMPTS} go in one request"
                raise APIError(400, message, param="prompt")
            return value
    forms = "a string, a list of strings, a list of token ids or a list of such lists, and not empty"
    raise APIError(400, f"prompt must be {forms}", param="prompt")


TOKENS_SCHEMA: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
TEXTS_SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS}
TOKEN_LISTS_SCHEMA = {"type": "array", "items": TOKENS_SCHEMA, "minItems": 1, "maxItems": MAX_PROMPTS}
PROMPT_SCHEMA = {"anyOf": [{"type": "string"}, TEXTS_SCHEMA, TOKENS_SCHEMA, TOKEN_LISTS_SCHEMA]}


class CompletionRequest(Parameters):
    """The prompts to continue, and how to continue them."""

    prompt: Annotated[list[Any], BeforeValidator(parse_prompt), WithJsonSchema(PROMPT_SCHEMA)] = Field(
        [""], description="One or several texts, or token ids. An empty text is the end-of-text token."
    )
    suffix: Any = unsupported("")
    max_tokens: int = Field(16, ge=0, description="Tokens to generate at most; with echo, 0 scores the prompt.")
    best_of: int | None = Field(
        None, ge=1, le=MAX_BEST_OF, description="Samples to draw; the n likeliest per token are returned. Not streamed."
    )
    echo: bool = Field(False, description="The answer begins with the prompt; logprobs then score the prompt, too.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Log-probability of each token and of this many alternatives."
    )

    def sampling(self) -> SamplingParams:
        """The engine's parameters. Raises APIError for parameters that exclude each other."""
        best_of = self.n if self.best_of is None else self.best_of
        if best_of < self.n:
            raise APIError(400, f"best_of is {best_of}; it must be at least n, which is {self.n}", param="best_of")
        if best_of > self.n and self.stream:
            raise APIError(
                400, "best_of cannot be streamed, because the best samples are known only at the end", param="best_of"
            )
        ranked = 0 if best_of > self.n else None
        return self.engine_params(
            max_tokens=self.max_tokens,
            n=best_of,
            logprobs=ranked if self.logprobs is None else self.logprobs,
            prompt_logprobs=self.max_tokens == 0 or (self.echo and self.logprobs is not None),
        )


class Choice(TypedDict):
    """One sample, or one token of a sample in a stream."""

    index: int
    """Position of the prompt times n, plus the number of its sample."""
    text: str
    logprobs: Logprobs | None
    finish_reason: str | None
    """"stop" or "length"; null in a stream before the end of the sample."""


class CompletionAnswer(TypedDict):
    """A text_completion; an event of a stream has the same shape."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: NotRequired[Usage | None]


class CompletionWriter:
    """Writes the choices of a completion; satisfies `bluejay.serve.api.respond.Writer`."""

    id_prefix = "cmpl"
    kinds: tuple[str, str] = ("text_completion", "text_completion")

    def __init__(self, body: CompletionRequest, job: Job, tokenizer: Tokenizer) -> None:
        self.job = job
        self.n = body.n
        texts = [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in body.prompt]
        n_choices = len(job.prompts) * job.params.n
        self.echoes = {i: texts[i // job.params.n] for i in range(n_choices) if body.echo}
        """Choice -> the text of its prompt, until it is written."""
        self.logprobs = None if body.logprobs is None else [LogprobWriter(tokenizer) for _ in range(n_choices)]

    def chunk(self, index: int, chunk: Chunk) -> Choice:
        """The choice for one chunk; the first one includes the prompt if it is to be echoed."""
        echo = self.echoes.pop(index, None)
        parts: list[Logprobs] = []
        if self.logprobs and echo is not None:
            request = self.job.requests[index // self.job.params.n]
            parts.append(self.logprobs[index].prompt(request.prompt, request.prompt_logprobs))
        if self.logprobs and chunk.logprob is not None:
            parts.append(self.logprobs[index].write([chunk.logprob]))
        return {
            "index": index,
            "text": (echo or "") + chunk.text,
            "logprobs": concatenate(parts) if self.logprobs else None,
            "finish_reason": chunk.finish_reason,
        }

    def whole(self, chunks: list[list[Chunk]]) -> list[Choice]:
        """The n choices of each prompt: all samples, or the best of them."""
        choices: list[Choice] = []
        n_samples = self.job.params.n
        for first in range(0, len(chunks), n_samples):
            samples = chunks[first : first + n_samples]
            for number in best(samples, self.n) if n_samples > self.n else range(self.n):
                parts = [self.chunk(first + number, chunk) for chunk in samples[number]]
                logprobs = [part["logprobs"] for part in parts if part["logprobs"] is not None]
                choices.append(
                    {
                        "index": len(choices),
                        "text": "".join(part["text"] for part in parts),
                        "logprobs": concatenate(logprobs) if logprobs else None,
                        "finish_reason": parts[-1]["finish_reason"],
                    }
                )
        return choices


def best(samples: Sequence[Sequence[Chunk]], n: int) -> list[int]:
    """The indices of the n samples with the highest log-probability per token, best first; those without a token come
    last."""

    def per_token(index: int) -> float:
        logprobs = [chunk.logprob.logprob for chunk in samples[index] if chunk.logprob is not None]
        return sum(logprobs) / len(logprobs) if logprobs else -math.inf

    return sorted(range(len(samples)), key=per_token, reverse=True)[:n]


def check_echo(body: CompletionRequest, prompts: Sequence[Sequence[int]], n_ctx: int) -> None:
    """Raise APIError where an answer would repeat too much of its prompts, which costs a client no tokens. Prompts
    longer than `n_ctx` tokens are refused elsewhere."""
    values = body.n * sum(min(len(prompt), n_ctx) for prompt in prompts) * (1 + (body.logprobs or 0))
    if body.echo and values > MAX_ECHOED:
        message = (
            f"echo would repeat {values:,} values, n times the tokens of the prompts times 1 + logprobs; "
            f"at most {MAX_ECHOED:,} go in one answer"
        )
        raise APIError(400, message, param="echo")


async def prompts_of(service: Service, body: CompletionRequest) -> list[list[int]]:
    """The token ids of the prompts of a request. Raises APIError where there is too much to read or to repeat."""
    encode = service.tokenizer.encode_prompt
    with service.reading([prompt for prompt in body.prompt if isinstance(prompt, str)], "prompt"):
        prompts = await asyncio.to_thread(lambda: [encode(p) if isinstance(p, str) else p for p in body.prompt])
    check_echo(body, prompts, service.n_ctx)
    return prompts


def router(models: Catalogue) -> APIRouter:
    """The route of the endpoint."""
    routes = APIRouter(route_class=JSONRoute)

    @routes.post(
        "/v1/completions", response_model=CompletionAnswer, responses={200: {"content": STREAM_CONTENT}, **ERRORS}
    )
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue prompts."""
        service = await models.use(request, body.model)
        params, constraint = body.sampling(), await service.constraint(body)
        job = await service.submit(await prompts_of(service, body), params, constraint)
        return await service.respond(body, request, job, CompletionWriter(body, job, service.tokenizer))

    return routes
