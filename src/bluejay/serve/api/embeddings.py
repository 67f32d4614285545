"""`POST /v1/embeddings`: a vector for each text.

https://platform.openai.com/docs/api-reference/embeddings
"""

import asyncio
import base64
import time
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from bluejay.infer.exceptions import ContextLengthError, InferenceError
from bluejay.infer.model import Model
from bluejay.infer.needs import READING
from bluejay.infer.prompts import check_readable, encode_prompts, read_prompts
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.parameters import Body, JSONRoute, check_texts
from bluejay.serve.api.respond import Service, to_api_error
from bluejay.serve.engine_thread import ServerStopping, TimeLimitExceeded
from bluejay.serve.errors import ERRORS, APIError, json_response
from bluejay.serve.middleware.access_log import CLIENT_LEFT, RequestRecord, current_request

MAX_INPUTS = 2048
"""OpenAI's limit."""
INPUTS_PER_TURN = 16
"""Texts that are read before the next request has its turn."""
IDS_SCHEMA: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}}
LIST_SCHEMA = {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS}
INPUT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        IDS_SCHEMA | {"minItems": 1},
        LIST_SCHEMA | {"items": {"type": "string"}},
        LIST_SCHEMA | {"items": IDS_SCHEMA},
    ]
}


class EmbeddingRequest(Body):
    """The texts to embed."""

    input: Annotated[Any, WithJsonSchema(INPUT_SCHEMA)] = Field(description="One or several texts, or token ids.")
    model: str | None = Field(None, description="The name of the served model, which may be left out.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Numbers, or the bytes of 32-bit numbers, the lowest byte first, in base64."
    )
    dimensions: int | None = Field(None, description="Only the width of the model is accepted.")
    user: str | None = Field(None, description="Accepted and ignored.")


class Embedding(TypedDict):
    """The vector of one text, of length 1."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """Numbers of tokens over all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(TypedDict):
    """The vectors, in the order of the texts."""

    object: str
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def router(models: Catalogue) -> APIRouter:
    """The route of the endpoint."""
    routes, turn = APIRouter(route_class=JSONRoute), asyncio.Lock()

    def read(service: Service, value: Any) -> list[list[int]]:
        check_texts(value, "input")
        if value == []:
            raise APIError(400, "input is empty; it must hold a text or token ids", param="input")
        prompts, single = read_prompts(value)
        if len(prompts) > MAX_INPUTS:
            message = f"input holds {len(prompts)} texts; at most {MAX_INPUTS} go in one request"
            raise APIError(400, message, param="input")
        ids = encode_prompts(service.tokenizer, prompts)
        check_readable(ids, service.n_ctx, service.model.config.vocab_size, "input" if single else "input.{}")
        return ids

    async def embed(
        model: Model, ids: list[list[int]], request: Request, record: RequestRecord | None
    ) -> list[np.ndarray]:
        """The vectors, some texts at a time, so that requests take turns and the end of client, server or time is
        noticed. Raises APIError then, and refunds the tokens of the texts that were not read."""
        found: list[np.ndarray] = []
        latest = time.monotonic() + models.settings.time_limit
        for at in range(0, len(ids), INPUTS_PER_TURN):
            try:
                if await request.is_disconnected():
                    raise APIError(CLIENT_LEFT, "the client went away")
                async with turn:
                    if models.stopping:
                        raise to_api_error(ServerStopping())
                    if time.monotonic() > latest:
                        raise to_api_error(TimeLimitExceeded())
                    part = await asyncio.to_thread(model.embed, ids[at : at + INPUTS_PER_TURN], progress=False)
            except APIError:
                if record is not None:
                    record.refund(sum(map(len, ids[at:])))
                raise
            found += list(part.numpy())
        return found

    @routes.post("/v1/embeddings", response_model=EmbeddingAnswer, responses=ERRORS)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """The mean of the hidden states of each text, at length 1."""
        service = await models.use(request, body.model, READING)
        model = service.model
        if body.dimensions not in (None, model.config.d_model):
            message = f"dimensions is {body.dimensions}; this model's embeddings have {model.config.d_model}"
            raise APIError(400, message, param="dimensions")
        record = current_request.get()
        try:
            values = body.input if isinstance(body.input, list) else [body.input]
            with service.reading([value for value in values if isinstance(value, str)], "input"):
                ids = await asyncio.to_thread(read, service, body.input)
            n_tokens = sum(map(len, ids))
            if record is not None:
                record.reserve(n_tokens)
                record.prompts += ids
            vectors = await embed(model, ids, request, record)
        except InferenceError as error:
            code = "context_length_exceeded" if isinstance(error, ContextLengthError) else None
            raise APIError(400, str(error), param="input", code=code) from None
        plain = body.encoding_format == "float"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": vector.tolist() if plain else base64.b64encode(vector.astype("<f4").tobytes()).decode(),
            }
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return json_response({"object": "list", "data": data, "model": model.name, "usage": usage})

    return routes
