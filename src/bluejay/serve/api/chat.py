"""`POST /v1/chat/completions` answers conversations, for models that have a chat template.

https://platform.openai.com/docs/api-reference/chat
"""

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, FailFast, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from bluejay.chat_template import prompt_tokens
from bluejay.infer.params import SamplingParams
from bluejay.infer.prompts import maximum
from bluejay.infer.samples import Chunk
from bluejay.serve.api.completions import STREAM_CONTENT
from bluejay.serve.api.logprobs import ChatLogprobs, chat_logprob
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.parameters import MAX_LOGPROBS, Body, JSONRoute, Parameters, unsupported
from bluejay.serve.errors import ERRORS, APIError, Usage
from bluejay.serve.settings import PublicSettings
from bluejay.tokenizer import Tokenizer

MAX_MESSAGES = 2048
"""Messages of a conversation."""
MAX_VARIABLE = 100
"""Characters of a variable, which a template may repeat in each turn."""


class TextPart(Body):
    """A part of the content of a message."""

    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] | None = Field(None, description="Accepted and ignored, as prompt_cache_key.")
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, description="Accepted and ignored, as cache_control.")


def parse_content(value: Any) -> Any:
    """Convert the content of a message, a text or a list of text parts, to such a list."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list) or any(
        isinstance(part, dict) and part.get("type", "text") != "text" for part in value
    ):
        raise PydanticCustomError(
            "parts", "must be a text or a list of parts of type text; the model reads nothing else"
        )
    return value


def parse_variables(value: Any) -> Any:
    """Check the variables of a template. Raises APIError unless all are short texts, numbers or truth values."""
    if not isinstance(value, dict) or not all(
        one is None or (isinstance(one, str | int | float) and len(str(one)) <= MAX_VARIABLE) for one in value.values()
    ):
        form = f"an object whose values are true, false, numbers or texts, of at most {MAX_VARIABLE} characters"
        raise APIError(400, f"chat_template_kwargs must be {form}", param="chat_template_kwargs")
    return {name: one for name, one in value.items() if one is not None}


VARIABLES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "number", "string", "null"], "maxLength": MAX_VARIABLE},
}
CONTENT_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": TextPart.model_json_schema()}]}


class InputMessage(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[TextPart], FailFast(), BeforeValidator(parse_content), WithJsonSchema(CONTENT_SCHEMA)]
    name: str | None = Field(None, description="Accepted and ignored.")
    refusal: str | None = Field(None, description="Accepted and ignored.")
    tool_calls: Any = unsupported([])
    tool_call_id: Any = unsupported(None)
    function_call: Any = unsupported(None)
    audio: Any = unsupported(None)
    annotations: Any = unsupported([])

    @property
    def turn(self) -> dict[str, str]:
        """The message as the chat template reads it."""
        content = "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatRequest(Parameters):
    """The conversation to answer, and how to answer it."""

    messages: Annotated[list[InputMessage], FailFast()] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(
        None, ge=1, description="Tokens to generate at most; the default is as many as fit, or a public server's."
    )
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    logprobs: bool = Field(False, description="Log-probability of each token.")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Number of alternatives to report for each token."
    )
    chat_template_kwargs: Annotated[
        dict[str, Any], BeforeValidator(parse_variables), WithJsonSchema(VARIABLES_SCHEMA)
    ] = Field({}, description="Variables that the model's chat template reads, such as enable_thinking.")
    tools: Any = unsupported([])
    tool_choice: Any = unsupported("none", "auto")
    functions: Any = unsupported([])
    function_call: Any = unsupported("none", "auto")
    parallel_tool_calls: Any = unsupported(True, False)
    modalities: Any = unsupported(["text"])
    audio: Any = unsupported(None)
    prediction: Any = unsupported(None)
    web_search_options: Any = unsupported(None)
    moderation: Any = unsupported(None)
    verbosity: Any = unsupported("medium")
    store: Any = unsupported(False)
    metadata: dict[str, Any] | None = Field(None, description="Accepted and ignored.")
    service_tier: Any = unsupported("auto", "default")
    safety_identifier: str | None = Field(None, description="Accepted and ignored.")
    prompt_cache_key: str | None = Field(
        None, description="Accepted and ignored: prompts that begin alike always share the cache."
    )
    prompt_cache_retention: str | None = Field(None, description="Accepted and ignored, as prompt_cache_key.")
    prompt_cache_options: dict[str, Any] | None = Field(None, description="Accepted and ignored, as prompt_cache_key.")

    @property
    def limit(self) -> int | None:
        """Tokens to generate at most, if the request says."""
        return self.max_completion_tokens or self.max_tokens

    def sampling(self, n_ctx: int) -> SamplingParams:
        """The engine's parameters. Raises APIError for parameters that exclude each other."""
        if self.limit != (self.max_tokens or self.limit):
            message = "max_tokens and max_completion_tokens differ; send one of them"
            raise APIError(400, message, param="max_tokens")
        if self.top_logprobs and not self.logprobs:
            raise APIError(400, "top_logprobs needs logprobs", param="top_logprobs")
        return self.engine_params(
            max_tokens=self.limit or n_ctx,
            n=self.n,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class OutputMessage(TypedDict):
    """The message that the model writes; an event of a stream holds a part of it."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    refusal: NotRequired[None]


class ChatChoice(TypedDict):
    """One sample."""

    index: int
    message: OutputMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatAnswer(TypedDict):
    """A chat.completion."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChatWriter:
    """Writes the choices of a chat completion; satisfies `bluejay.serve.api.respond.Writer`."""

    id_prefix = "chatcmpl"
    kinds: tuple[str, str] = ("chat.completion", "chat.completion.chunk")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.started: set[int] = set()
        """Choices whose role has been sent."""

    def chunk(self, index: int, chunk: Chunk) -> dict[str, object]:
        """The choice for one chunk; the first one names the role."""
        delta: OutputMessage = {"content": chunk.text}
        if index not in self.started:
            delta = {"role": "assistant", **delta}
        self.started.add(index)
        logprobs = self.logprobs([chunk])
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": chunk.finish_reason}

    def whole(self, chunks: list[list[Chunk]]) -> list[ChatChoice]:
        """The choices of a response in one piece."""
        return [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(chunk.text for chunk in sample), "refusal": None},
                "logprobs": self.logprobs(sample),
                "finish_reason": sample[-1].finish_reason or "length",
            }
            for index, sample in enumerate(chunks)
        ]

    def logprobs(self, chunks: list[Chunk]) -> ChatLogprobs | None:
        """The log-probabilities of the tokens in chunks; None where none were requested."""
        found = [chat_logprob(self.tokenizer, chunk.logprob) for chunk in chunks if chunk.logprob is not None]
        return {"content": found, "refusal": None} if found else None


def default_limit(n_ctx: int, n_prompt: int, n: int, public: PublicSettings | None) -> int:
    """Tokens that each of `n` samples may have where the request gives no limit. All are charged in advance, so that a
    stranger's take an eighth of an hour's tokens, less where they would not be left beside those of the prompt."""
    if public is None:
        return n_ctx
    return max(1, min(n_ctx, public.tokens_per_hour // 8, (public.tokens_per_hour - n_prompt) // n))


def router(models: Catalogue) -> APIRouter:
    """The route of the endpoint."""
    routes = APIRouter(route_class=JSONRoute)

    @routes.post(
        "/v1/chat/completions", response_model=ChatAnswer, responses={200: {"content": STREAM_CONTENT}, **ERRORS}
    )
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation, with a model that has a chat template."""
        service = await models.use(request, body.model)
        tokenizer = service.tokenizer
        params, turns = body.sampling(service.n_ctx), [message.turn for message in body.messages]
        if len(turns) > (n_ctx := service.n_ctx):
            message = f"messages holds {len(turns)} messages; {maximum(n_ctx)}"
            raise APIError(400, message, param="messages", code="context_length_exceeded")
        constraint = await service.constraint(body)
        try:
            with service.reading(["".join(turn["content"] for turn in turns)], "messages"):
                prompt = await asyncio.to_thread(prompt_tokens, tokenizer, turns, body.chat_template_kwargs)
        except ValueError as error:
            variable = str(error).startswith("chat_template_kwargs")
            raise APIError(400, str(error), param="chat_template_kwargs" if variable else "messages") from None
        if body.limit is None:
            params = replace(params, max_tokens=default_limit(n_ctx, len(prompt), params.n, models.settings.public))
        job = await service.submit([prompt], params, constraint, param="messages")
        return await service.respond(body, request, job, ChatWriter(tokenizer))

    return routes
