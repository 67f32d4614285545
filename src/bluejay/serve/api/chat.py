"""`POST /v1/chat/completions`: conversations, for models that have a chat template.

https://platform.openai.com/docs/api-reference/chat
"""

import asyncio
from typing import Annotated, Any, Literal, NotRequired

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from bluejay.infer.engine import Chunk
from bluejay.infer.sampling import SamplingParams
from bluejay.serve.api.completions import STREAM
from bluejay.serve.api.errors import ERRORS, APIError, Usage, json_response, usage
from bluejay.serve.api.logprobs import ChatLogprobs, chat_logprob
from bluejay.serve.api.parameters import MAX_LOGPROBS, Body, Parameters, unsupported
from bluejay.serve.api.template import prompt_tokens
from bluejay.serve.respond import EventStream, Service, events
from bluejay.tokenizer import Tokenizer


def parse_content(value: Any) -> Any:
    """The text of a message, which may come in parts."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        raise PydanticCustomError(
            "parts", "must be a text or a list of parts of type text; the model reads nothing else"
        )
    texts = [part.get("text") for part in value]
    if not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("parts", "must have a text in each of its parts")
    return "".join(texts)


PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": PART}]}


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(parse_content), WithJsonSchema(CONTENT)]
    name: str | None = Field(None, description="Accepted and not used.")
    refusal: str | None = Field(None, description="Accepted and not used.")
    tool_calls: Any = unsupported([])

    @property
    def turn(self) -> dict[str, str]:
        """What a template reads."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class ChatRequest(Parameters):
    """The conversation that shall be answered, and how."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, description="Tokens to generate at most; as many as fit.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    logprobs: bool = Field(False, description="Log-probability of each token.")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="So many alternatives to each token.")
    tools: Any = unsupported([])
    tool_choice: Any = unsupported("none", "auto")
    functions: Any = unsupported([])
    function_call: Any = unsupported("none", "auto")
    modalities: Any = unsupported(["text"])
    store: Any = unsupported(False)
    metadata: dict[str, str] | None = Field(None, description="Accepted and not used.")
    service_tier: Any = unsupported("auto", "default")
    safety_identifier: str | None = Field(None, description="Accepted and not used.")
    prompt_cache_key: str | None = Field(None, description="Accepted and not used: equal beginnings are always shared.")

    def sampling(self, n_ctx: int) -> SamplingParams:
        """What the engine needs. Raises APIError for what does not go together."""
        if self.top_logprobs is not None and not self.logprobs:
            raise APIError(400, "top_logprobs goes with logprobs only", param="top_logprobs")
        return self.engine_params(
            max_tokens=self.max_completion_tokens or self.max_tokens or n_ctx,
            n=self.n,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class Said(TypedDict):
    """What the model says."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    refusal: NotRequired[None]


class ChatChoice(TypedDict):
    """One sample."""

    index: int
    message: Said
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


def chat_logprobs(tokenizer: Tokenizer, chunks: list[Chunk]) -> ChatLogprobs | None:
    """The log-probabilities that chunks bring."""
    found = [chat_logprob(tokenizer, chunk.logprob) for chunk in chunks if chunk.logprob is not None]
    return {"content": found, "refusal": None} if found else None


async def answer(body: ChatRequest, request: Request, service: Service) -> Response:
    """Answer one request. Raises APIError."""
    service.check_name(body.model)
    params = body.sampling(service.model.config.n_ctx)
    form = await service.form(body)
    try:
        prompt = await asyncio.to_thread(prompt_tokens, service.tokenizer, [message.turn for message in body.messages])
    except ValueError as error:
        raise APIError(400, str(error), param="messages") from None
    completion = await service.submit([prompt], params, form, param="messages")
    if body.stream:
        heading = service.heading("chatcmpl", "chat.completion.chunk")
        more = {"usage": None} if body.include_usage else {}
        begun: set[int] = set()

        def piece(index: int, chunk: Chunk) -> dict[str, Any]:
            delta: Said = {"content": chunk.text} if index in begun else {"role": "assistant", "content": chunk.text}
            begun.add(index)
            logprobs = chat_logprobs(service.tokenizer, [chunk])
            choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": chunk.finish_reason}
            return {**heading, "choices": [choice], **more}

        def last() -> dict[str, Any]:
            return {**heading, "choices": [], "usage": usage(len(prompt), completion.n_generated)}

        stream = events(completion, piece, last if body.include_usage else None, form)
        return EventStream(service.worker, completion, stream)
    chunks: list[list[Chunk]] = [[] for _ in range(body.n)]
    for index, chunk in await service.collect(completion, request, form):
        chunks[index].append(chunk)
    choices: list[ChatChoice] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": "".join(chunk.text for chunk in sample), "refusal": None},
            "logprobs": chat_logprobs(service.tokenizer, sample),
            "finish_reason": sample[-1].finish_reason or "length",
        }
        for index, sample in enumerate(chunks)
    ]
    heading = service.heading("chatcmpl", "chat.completion")
    return json_response({**heading, "choices": choices, "usage": usage(len(prompt), completion.n_generated)})


def router(service: Service) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_model=ChatAnswer, responses={200: {"content": STREAM}, **ERRORS})
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation, with a model that has a chat template."""
        return await answer(body, request, service)

    return routes
